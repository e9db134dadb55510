"""Where the parts of Omniglot lie, how they are fetched, and what is in them."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from setrep.data.archive import Archive, open_archive
from setrep.data.archive_kinds import one_line
from setrep.data.cache import cache_dir
from setrep.errors import InputError

logger = logging.getLogger(__name__)

FOLDER = "omniglot-py"  # as torchvision names it
STALL_SECONDS = 20.0
# Whoever names a data root expects the files there, and an answer soon if they are not.
STALL_SECONDS_WITH_ROOT = 4.0


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
        with _stalls_end_after(STALL_SECONDS_WITH_ROOT if data_root else STALL_SECONDS):
            archive = open_archive(download(part, downloads / FOLDER))
    except (OSError, RuntimeError, HTTPException) as error:
        place = f"{data_root or 'DATA'}/{FOLDER}/{part}.zip"
        hint = "" if data_root else " and name DATA with --data-root or SETREP_DATA"
        raise InputError(
            f"Omniglot's {part} is neither at hand nor to be downloaded ({one_line(error)}). "
            f"Put the official {part}.zip (or a directory of that name) at {place}{hint}."
        ) from error
    return archive, read_layout(archive, part)


@contextlib.contextmanager
def _stalls_end_after(seconds: float) -> Iterator[None]:
    """Bound each wait for the network; torchvision has no argument for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download(part: str, into: Path) -> Path:
    """Fetch an official archive through torchvision, which checks the sums it knows."""
    from torchvision.datasets import Omniglot
    from torchvision.datasets.utils import download_url

    into.mkdir(parents=True, exist_ok=True)
    name = f"{part}.zip"
    logger.warning("Downloading %s to %s.", name, into)
    # Renamed when whole; torchvision prints its progress to stdout, where only results belong.
    with tempfile.TemporaryDirectory(dir=into) as folder, contextlib.redirect_stdout(sys.stderr):
        url = f"{Omniglot.download_url_prefix}/{name}"
        download_url(url, folder, filename=name, md5=Omniglot.zips_md5.get(part))
        return Path(folder, name).replace(into / name)


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
