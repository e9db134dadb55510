"""The file of an approximate index, beside the vectors of a segment."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from pathlib import Path

from setrep.errors import InputError
from setrep.index.disk import digest, sync_directory, write
from setrep.index.kinds import FLAT, SearchKind
from setrep.index.manifest import INDEX, SegmentEntry
from setrep.index.segments import SEGMENTS


def write_index(
    folder: Path, entry: SegmentEntry, kind: SearchKind, content: memoryview
) -> SegmentEntry:
    """Write an approximate index beside the vectors of a segment, forced to disk."""
    place, name = folder / SEGMENTS / entry.name, f"{kind.kind}-{secrets.token_hex(4)}{INDEX}"
    write(place / name, content)
    sync_directory(place)
    sha256 = without_index(entry).sha256 | {name: hashlib.sha256(content).hexdigest()}
    return replace(entry, sha256=sha256, kind=kind)


def without_index(entry: SegmentEntry) -> SegmentEntry:
    """Return a segment that is searched exactly."""
    sha256 = {name: one for name, one in entry.sha256.items() if not name.endswith(INDEX)}
    return replace(entry, sha256=sha256, kind=FLAT)


def index_path(folder: Path, entry: SegmentEntry) -> Path:
    """Return where the approximate index of a segment is, after checking it against the manifest.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        path = folder / SEGMENTS / entry.name / entry.index_file
        if digest(path) != entry.sha256[entry.index_file]:
            raise InputError(f"{path} is damaged: set the kind of the index again.")
    except OSError as error:
        raise InputError(f"Cannot read {error.filename}: {error.strerror}.") from error
    return path
