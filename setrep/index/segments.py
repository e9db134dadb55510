"""The files of an engine in a directory: segments that never change, and a manifest of them.

    manifest.json                 what the index holds; replaced as a whole
    attachments/<name>            files that were given with it, such as the model; never change
    segments/<name>/vectors.npy   embeddings of collections
    segments/<name>/members.npy   embeddings of their members
    segments/<name>/offsets.npy   where the members of each begin
    segments/<name>/rows.json     ids and payloads
    segments/<name>/*.faiss       an approximate index of the vectors, if there is one

A segment is written under its own name and counts from the moment that the manifest names it. So a
kill leaves the old index or the new one, and at worst a segment that the next writer removes.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.disk import digest, sync_directory, write
from setrep.index.manifest import ARRAYS, DAMAGE, INDEX, MANIFEST, ROWS, Manifest, SegmentEntry
from setrep.index.mapped import MappedRecords, checked_once, map_array
from setrep.index.records import Records, check

SEGMENTS, ATTACHMENTS, LOCK = "segments", "attachments", "lock"


def write_attachments(folder: Path, attachments: Mapping[str, bytes]) -> dict[str, str]:
    """Write files that stay as they are, forced to disk; return their SHA-256."""
    if not attachments:
        return {}
    place = folder / ATTACHMENTS
    place.mkdir()
    for name, content in attachments.items():
        write(place / name, content)
    sync_directory(place)
    return {name: hashlib.sha256(content).hexdigest() for name, content in attachments.items()}


def read_attachment(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Read a file that was given with the index.

    Raises:
        InputError: there was none of that name, or it is missing or damaged.
    """
    if name not in manifest.attachments:
        raise InputError(f"The index {folder} has no {name}.")
    path = folder / ATTACHMENTS / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != manifest.attachments[name]:
        raise InputError(f"{path} is damaged: build the index again.")
    return content


def write_segment(folder: Path, records: Records) -> SegmentEntry:
    """Write collections as a segment, forced to disk."""
    name = secrets.token_hex(8)
    place = folder / SEGMENTS / name
    place.mkdir(parents=True)
    arrays = (records.vectors, records.members, records.offsets)
    sha256 = {}
    for file_name, array in zip(ARRAYS, arrays, strict=True):
        write(place / file_name, *npy_of(np.ascontiguousarray(array)))
    rows = {"ids": records.ids, "payloads": records.payloads}
    write(place / ROWS, json.dumps(rows, allow_nan=False).encode())
    for file_name in (*ARRAYS, ROWS):
        sha256[file_name] = digest(place / file_name)
    sync_directory(place)
    sync_directory(place.parent)
    return SegmentEntry(name, sha256)


def npy_of(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """Return header and content of a `.npy` file; NumPy itself does not tell of a short write."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


def read_segment(folder: Path, entry: SegmentEntry, dim: int, member_dim: int) -> Records:
    """Map a segment, after checking every file against the manifest, but members at first use.

    Values are checked when they are first searched or given away.

    Raises:
        InputError: a file is missing or damaged.
    """
    place = folder / SEGMENTS / entry.name
    try:
        checks = {name: checked_once(place / name, entry.sha256[name]) for name in (*ARRAYS, ROWS)}
        for name in ("vectors.npy", "offsets.npy", ROWS):
            checks[name]()
        vectors, members, offsets = (map_array(place / file_name) for file_name in ARRAYS)
        rows = json.loads((place / ROWS).read_bytes())
        names, payloads = tuple(rows["ids"]), tuple(rows["payloads"])
        found = MappedRecords(names, vectors, members, offsets, payloads, checks["members.npy"])
        check(found, dim, member_dim, with_values=False)
        if max(entry.deleted, default=-1) >= len(found):
            raise IndexError("a row that is not there is deleted")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"Cannot read {error.filename}: {error.strerror}.") from error
    except DAMAGE as error:
        raise InputError(f"The index {folder} is damaged: build it again.") from error
    return found


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what no manifest names: segments of a writer that was killed, or of the past."""
    named = {entry.name: entry for entry in manifest.segments}
    if (folder / SEGMENTS).is_symlink():  # nobody here has made it
        return
    for place in (folder / SEGMENTS).glob("*"):
        if place.name not in named:
            shutil.rmtree(place, ignore_errors=True)
            continue
        for path in place.glob(f"*{INDEX}"):
            if path.name not in named[place.name].sha256:
                path.unlink(missing_ok=True)
    for path in folder.glob(f".{MANIFEST}.*.tmp"):
        path.unlink(missing_ok=True)
