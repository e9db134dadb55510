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
import json
import os
import secrets
import shutil
import tokenize
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from setrep import __version__
from setrep.errors import InputError
from setrep.index.kinds import FLAT, SearchKind, kind_of
from setrep.index.mapped import MappedRecords, checked_once, map_array
from setrep.index.records import Records, check

FORMAT, SCHEMA = "setrep.DirectoryEngine", 1
MANIFEST, SEGMENTS, ATTACHMENTS, LOCK = "manifest.json", "segments", "attachments", "lock"
ARRAYS = ("vectors.npy", "members.npy", "offsets.npy")
ROWS, INDEX = "rows.json", ".faiss"
# What reading a tampered manifest, array or table raises.
DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class SegmentEntry:
    """What the manifest says of a segment."""

    name: str
    sha256: dict[str, str]
    deleted: tuple[int, ...] = ()
    kind: SearchKind = FLAT  # with its file in `sha256`, where it is not flat

    @property
    def index_file(self) -> str:
        """The name of the file of the approximate index."""
        return next(name for name in self.sha256 if name.endswith(INDEX))


@dataclass(frozen=True)
class Manifest:
    """What an index holds."""

    dim: int
    member_dim: int
    metric: str
    attachments: dict[str, str] = field(default_factory=dict)  # name to SHA-256
    segments: tuple[SegmentEntry, ...] = ()
    note: str | None = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest: from here on the index is the new one."""
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "setrep_version": __version__,
        "dim": manifest.dim,
        "member_dim": manifest.member_dim,
        "metric": manifest.metric,
        "attachments": manifest.attachments,
        "note": manifest.note,
        "segments": [
            {
                "name": one.name,
                "sha256": one.sha256,
                "deleted": list(one.deleted),
                "kind": asdict(one.kind),
            }
            for one in manifest.segments
        ],
    }
    staged = folder / f".{MANIFEST}.{secrets.token_hex(4)}.tmp"
    write(staged, json.dumps(content, indent=1).encode())
    staged.replace(folder / MANIFEST)
    sync_directory(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest.

    Raises:
        InputError: there is no index, it is damaged, or of a schema that is not known here.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content["format"] != FORMAT:
            raise InputError(f"{folder} is not an index of setrep.")
        if content["schema"] != SCHEMA:
            raise InputError(
                f"The index {folder} is of schema {content['schema']!r}, but setrep {__version__} "
                f"reads schema {SCHEMA}."
            )
        return Manifest(
            int(content["dim"]),
            int(content["member_dim"]),
            str(content["metric"]),
            {str(name): str(sha256) for name, sha256 in content["attachments"].items()},
            tuple(
                SegmentEntry(
                    str(one["name"]),
                    dict(one["sha256"]),
                    tuple(int(row) for row in one["deleted"]),
                    kind_of(one.get("kind", asdict(FLAT))),
                )
                for one in content["segments"]
            ),
            None if content["note"] is None else str(content["note"]),
        )
    except InputError:
        raise
    except FileNotFoundError as error:
        if folder.exists():
            raise InputError(f"There is no index at {folder}: it has no {MANIFEST}.") from error
        raise InputError(f"There is no index at {folder}.") from error
    except OSError as error:
        raise InputError(f"Cannot read {folder / MANIFEST}: {error.strerror}.") from error
    except DAMAGE as error:
        raise InputError(
            f"{folder / MANIFEST} is damaged or of something else; build the index again."
        ) from error


def is_index(folder: Path) -> bool:
    """Say whether a directory has a manifest of an index, damaged perhaps in what it says."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def aside_of(folder: Path) -> Path:
    """Where an old index lies while a new one is moved to its place."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.setrep-old")


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
        with (place / file_name).open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    rows = {"ids": records.ids, "payloads": records.payloads}
    write(place / ROWS, json.dumps(rows, allow_nan=False).encode())
    for file_name in (*ARRAYS, ROWS):
        sha256[file_name] = digest(place / file_name)
    sync_directory(place)
    sync_directory(place.parent)
    return SegmentEntry(name, sha256)


def read_segment(folder: Path, entry: SegmentEntry, dim: int, member_dim: int) -> Records:
    """Map a segment, after checking every file against the manifest, but members at first use.

    Values were checked before they were written, so that the sums stand for them, too.

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


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Force the names in a directory to disk, where the system can."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
