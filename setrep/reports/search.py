"""What `setrep index` and `setrep query` call: collections of image files, indexed and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from setrep.data.images import IMAGE_SUFFIXES
from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, Match
from setrep.retrieval.files import MANIFEST
from setrep.set_encoder import SetEncoder


def build_index(
    run: str | Path,
    directory: str | Path,
    output: str | Path,
    *,
    labelled: bool = False,
    overwrite: bool = False,
) -> CollectionIndex:
    """Index `directory/<collection>/*`, or `directory/<label>/<collection>/*` when labelled.

    A collection's id is its path below `directory`.

    Raises:
        InputError: the directory holds no such collections, a file is not an image, or there is an
            index that is not to be replaced.
    """
    if not overwrite and (Path(output) / MANIFEST).exists():
        raise InputError(
            f"{output} already holds an index. Replace it with --overwrite, "
            f"or choose another --output."
        )
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root} is not a directory of collections of images.")
    folders = sorted(p for p in root.glob("*/*" if labelled else "*") if p.is_dir())
    collections = {str(p.relative_to(root)): image_files([p]) for p in folders if has_images(p)}
    if not collections:
        layout = "<label>/<collection>/*" if labelled else "<collection>/*"
        raise InputError(f"Found no images in {root}/{layout}.")
    labels = [Path(name).parts[0] for name in collections] if labelled else None
    index = CollectionIndex.build(
        SetEncoder.from_pretrained(run), list(collections.values()), list(collections), labels
    )
    index.save(output)
    return index


def query_index(directory: str | Path, paths: Sequence[Path], k: int) -> list[Match]:
    """Return the `k` collections nearest to one collection of image files.

    Raises:
        InputError: the directory is not an index, or a path is not an image.
    """
    index = CollectionIndex.open(directory)
    return index.query(image_files(paths), k=k)


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, and those of named directories."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"There is no file {path}.")
    if not files:
        raise InputError(f"Found no images in {', '.join(map(str, paths))}.")
    return files


def has_images(directory: Path) -> bool:
    """Return whether a directory holds an image file."""
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in directory.iterdir())


def query_table(matches: Sequence[Match]) -> Table:
    """Show matches, nearest first."""
    caption = "score: minus the squared distance between embeddings; 0 is nearest"
    table = Table(caption=caption, caption_justify="left")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("collection", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for rank, match in enumerate(matches, 1):
        label = "–" if match.label is None else str(match.label)
        table.add_row(str(rank), str(match.id), label, f"{match.score + 0.0:.6g}")
    return table
