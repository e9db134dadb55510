"""Decoded items on disk, found again by the content of the files they came from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import platformdirs
from numpy.typing import NDArray

from setrep.data.archive import Archive
from setrep.data.images import read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat

logger = logging.getLogger(__name__)

CACHE_VERSION = 1  # raise when the same files would be decoded to other numbers
STALE_SECONDS = 24 * 3600
ATTEMPTS = 5


@dataclass(frozen=True, eq=False)
class DecodedItems:
    """Hold the items of the files `names`, in that order, and the files that were left out."""

    items: NDArray[np.uint8]  # [N, C, H, W], memory-mapped, read-only
    names: tuple[str, ...]
    skipped: tuple[str, ...]


def cache_dir() -> Path:
    """Return `SETREP_CACHE`, or the platform's own place for caches."""
    named = os.environ.get("SETREP_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("setrep"))


def decode_items(
    archive: Archive,
    names: Sequence[str],
    item_format: ItemFormat,
    *,
    on_bad_image: str = "fail",
) -> DecodedItems:
    """Decode the named files, or map them from the cache if that was done before.

    Two processes may build one entry at once: each works in a directory of its own, and the first
    to rename it wins. An entry that is damaged is built again.

    Raises:
        InputError: a file is no whole image, or the cache directory cannot be written.
    """
    names = sorted(names)
    entry = cache_dir() / "items" / _key(archive, names, item_format, on_bad_image)
    try:
        for _ in range(ATTEMPTS):
            found = _open_entry(entry, names, item_format)
            if found is not None:
                return found
            _build_entry(entry, archive, names, item_format, on_bad_image)
    except OSError as error:
        raise InputError(
            f"Cannot write the cache directory {cache_dir()}: {error.strerror or error}. "
            f"Free space there, or set SETREP_CACHE to a directory that can be written."
        ) from error
    raise InputError(f"The cache entry {entry} is damaged each time it is written. Check the disk.")


def _key(archive: Archive, names: Sequence[str], item_format: ItemFormat, on_bad_image: str) -> str:
    described = [CACHE_VERSION, archive.fingerprint(names), asdict(item_format), on_bad_image]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _open_entry(entry: Path, wanted: list[str], item_format: ItemFormat) -> DecodedItems | None:
    """Map an entry, or return none if there is none; a damaged one is taken away first."""
    if not entry.exists():
        return None
    try:
        manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
        names, skipped = tuple(manifest["names"]), tuple(manifest["skipped"])
        if sorted([*names, *skipped]) != wanted or list(names) != sorted(names):
            raise ValueError("its names are not those that were written")
        if manifest["sha256"] != _sha256(entry / "items.npy"):
            raise ValueError("its items are not those that were written")
        items = np.load(entry / "items.npy", mmap_mode="r", allow_pickle=False)
        if items.shape != (len(names), *item_format.shape) or items.dtype != np.uint8:
            raise ValueError(f"its items have shape {items.shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The cache entry %s is damaged (%s) and is built again.", entry.name, error)
        _take_away(entry)
        return None
    return DecodedItems(items, names, skipped)


def _build_entry(
    entry: Path, archive: Archive, names: list[str], item_format: ItemFormat, on_bad_image: str
) -> None:
    """Decode into a directory of our own and rename it; lose quietly if another was faster."""
    logger.info("Decoding %d images of %s into the cache.", len(names), archive.title)
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(entry.parent)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=entry.parent))
    try:
        with (building / "items.npy").open("w+b") as file:
            skipped = _write_items(file, archive, names, item_format, on_bad_image)
        manifest = {
            "version": CACHE_VERSION,
            "names": [name for name in names if name not in skipped],
            "skipped": sorted(skipped),
            "sha256": _sha256(building / "items.npy"),
        }
        (building / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        try:
            building.rename(entry)
        except OSError:
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_items(
    file: IO[bytes], archive: Archive, names: list[str], item_format: ItemFormat, on_bad_image: str
) -> set[str]:
    """Write one row per good file, in the order of `names`; return the bad ones."""
    start = _write_header(file, len(names), item_format)
    rows = {name: row for row, name in enumerate(names)}
    row_bytes = int(np.prod(item_format.shape))
    skipped: set[str] = set()
    for name, content in archive.read_many(names):
        try:
            item = read_image(content, item_format)
        except InputError as error:
            if on_bad_image == "fail":
                raise InputError(
                    f"{archive.where(name)}: {error} Mend or remove it, or leave out such files "
                    f"with --on-bad-image skip."
                ) from error
            logger.warning("Skipped %s: %s", archive.where(name), error)
            skipped.add(name)
            continue
        # Plain writes, not a memory map: a full disk is then an error and not a killed process.
        file.seek(start + rows[name] * row_bytes)
        file.write(item.tobytes())
    if len(skipped) == len(names):
        raise InputError(f"{archive.path} holds no readable image; all {len(names)} are damaged.")
    if skipped:
        _close_gaps(file, start, [rows[n] for n in names if n not in skipped], item_format)
    return skipped


def _write_header(file: IO[bytes], num_items: int, item_format: ItemFormat) -> int:
    """Write what makes the file an `.npy`; return where its rows start."""
    shape = (num_items, *item_format.shape)
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _close_gaps(file: IO[bytes], start: int, kept: list[int], item_format: ItemFormat) -> None:
    """Move the kept rows together and cut the file to their number."""
    row_bytes = int(np.prod(item_format.shape))
    for target, source in enumerate(kept):
        file.seek(start + source * row_bytes)
        row = file.read(row_bytes)
        file.seek(start + target * row_bytes)
        file.write(row)
    file.truncate(start + len(kept) * row_bytes)
    moved = _write_header(file, len(kept), item_format)
    assert moved == start, "numpy leaves room in the header for any number of rows"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def _take_away(entry: Path) -> None:
    """Rename before removing, so that no half-removed entry is ever seen."""
    trash = Path(tempfile.mkdtemp(prefix=".building-", dir=entry.parent))
    try:
        entry.rename(trash / "entry")
    except FileNotFoundError:
        logger.info("Another process took the damaged entry away.")
    shutil.rmtree(trash, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove what processes that were killed have left, once it is a day old."""
    for left in folder.glob(".building-*"):
        try:
            is_stale = left.stat().st_mtime < time.time() - STALE_SECONDS
        except FileNotFoundError:
            continue
        if is_stale:
            shutil.rmtree(left, ignore_errors=True)
