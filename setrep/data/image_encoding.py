"""What image files were stored as: lossless, or JPEG of some quality."""

from __future__ import annotations

import functools
import io
from collections.abc import Collection
from itertools import islice
from pathlib import PurePosixPath

from PIL import Image

from setrep.data.archive import Archive
from setrep.data.images import NOT_AN_IMAGE

NUM_SAMPLED = 20
JPEG_SUFFIXES = (".jpg", ".jpeg")
Tables = tuple[tuple[int, ...], ...]


def describe_encoding(archive: Archive, names: Collection[str]) -> str:
    """Return `PNG`, `JPEG and PNG`, or `JPEG q90` where the first 20 files agree on a quality."""
    suffixes = {PurePosixPath(name).suffix.lower() for name in names}
    kinds = {"JPEG" if suffix in JPEG_SUFFIXES else suffix[1:].upper() for suffix in suffixes}
    if kinds != {"JPEG"}:
        return " and ".join(sorted(kinds))
    sampled = islice(archive.read_many(names), NUM_SAMPLED)
    qualities = {jpeg_quality(content) for _, content in sampled}
    quality = qualities.pop() if len(qualities) == 1 else None
    return "JPEG" if quality is None else f"JPEG q{quality}"


def jpeg_quality(content: bytes) -> int | None:
    """Return the quality at which libjpeg writes the tables of a JPEG file, if there is one."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return _known_tables().get(_tables(image))
    except NOT_AN_IMAGE:
        return None


def _tables(image: Image.Image) -> Tables:
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    return tuple(tuple(tables[number]) for number in sorted(tables))


@functools.cache
def _known_tables() -> dict[Tables, int]:
    """Map the tables to the quality, by writing at each; a grey image has the first one only."""
    known = {}
    for quality in range(1, 101):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.new(mode, (8, 8)).save(file, "JPEG", quality=quality)
            with Image.open(file) as image:
                known[_tables(image)] = quality
    return known
