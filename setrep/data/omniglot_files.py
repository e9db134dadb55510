"""Where the parts of Omniglot lie, how they are fetched, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from setrep.data.archive import Archive, open_archive
from setrep.data.archive_kinds import one_line
from setrep.data.cache import cache_dir
from setrep.data.downloads import NO_DOWNLOAD, fetch, stalls_bounded
from setrep.errors import InputError

FOLDER = "omniglot-py"  # as torchvision names it


@dataclass(frozen=True)
class Part:
    """Say how large one of the official archives is."""

    title: str
    num_alphabets: int
    num_characters: int


PARTS = {
    "images_background": Part("background", 30, 964),
    "images_evaluation": Part("evaluation", 20, 659),
    "images_background_small1": Part("background small1", 5, 136),
    "images_background_small2": Part("background small2", 5, 156),
}


@dataclass(frozen=True)
class Drawing:
    """Place one file in its alphabet and character."""

    file: str
    alphabet: str
    character: str  # `Alphabet/characterNN`


def open_part(part: str, data_root: Path | None) -> tuple[Archive, list[Drawing]]:
    """Find one part below the data root, or among earlier downloads, or download it.

    Raises:
        InputError: it is nowhere and cannot be downloaded, or does not hold what its name says.
    """
    if data_root and not data_root.is_dir():
        raise InputError(
            f"The data root of omniglot is the directory that holds {FOLDER}/, but {data_root} is "
            f"a file."
        )
    downloads = cache_dir() / "downloads"
    for root in [data_root, downloads] if data_root else [downloads]:
        for path in (root / FOLDER / f"{part}.zip", root / FOLDER / part):
            if path.exists():
                archive = open_archive(path)
                return archive, read_layout(archive, part)
    try:
        with stalls_bounded(data_root):
            archive = open_archive(download(part, downloads / FOLDER))
    except NO_DOWNLOAD as error:
        place = f"{data_root or 'DATA'}/{FOLDER}/{part}.zip"
        hint = "" if data_root else " and name DATA with --data-root or SETREP_DATA"
        raise InputError(
            f"Omniglot's {part} is neither at hand nor to be downloaded ({one_line(error)}). "
            f"Put the official {part}.zip (or a directory of that name) at {place}{hint}."
        ) from error
    return archive, read_layout(archive, part)


def download(part: str, into: Path) -> Path:
    """Fetch an official archive through torchvision, which checks the sums it knows."""
    from torchvision.datasets import Omniglot

    url = f"{Omniglot.download_url_prefix}/{part}.zip"
    return fetch(url, f"{part}.zip", Omniglot.zips_md5.get(part), into)


def read_layout(archive: Archive, part: str) -> list[Drawing]:
    """Read `[<part>/]<Alphabet>/<character>/*.png`.

    Raises:
        InputError: there is another part inside, or no drawing at all.
    """
    drawings = []
    for name in archive.names:
        if not name.lower().endswith(".png"):
            continue
        above, _, below = name.partition("/")
        inside = (below if above == part else name).split("/")
        if len(inside) != 3:
            raise InputError(
                f"{archive.where(name)} is not where Omniglot has its drawings; "
                f"expected {part}/<Alphabet>/<character>/<drawing>.png."
            )
        alphabet, character, _ = inside
        drawings.append(Drawing(name, alphabet, f"{alphabet}/{character}"))
    if not drawings:
        raise InputError(
            f"{archive.path} holds no drawings; "
            f"expected {part}/<Alphabet>/<character>/<drawing>.png."
        )
    return drawings
