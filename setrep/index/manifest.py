"""The manifest of an index in a directory: what it holds, by names and checksums.

It has a checksum of its own, so that damage is told from what was written. A checksum is no
signature: who means to deceive can make it anew, and what is read here is checked for that, too.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from setrep import __version__
from setrep.errors import InputError
from setrep.index.disk import write
from setrep.index.kinds import FLAT, SearchKind, kind_of

FORMAT, SCHEMA = "setrep.DirectoryEngine", 1
MANIFEST = "manifest.json"
ARRAYS = ("vectors.npy", "members.npy", "offsets.npy")
ROWS, INDEX = "rows.json", ".faiss"
SUM = re.compile("[0-9a-f]{64}")
SEGMENT_NAME = re.compile("[0-9a-f]{16}")
INDEX_NAME = re.compile("[a-z]{1,9}-[0-9a-f]{8}" + re.escape(INDEX))
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
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class SegmentEntry:
    """What the manifest says of a segment."""

    name: str
    sha256: dict[str, str]
    deleted: tuple[int, ...] = ()
    kind: SearchKind = FLAT  # with its file in `sha256`, where it is not flat

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no engine writes."""
        files = set(self.sha256) - {*ARRAYS, ROWS}
        is_whole = len(self.sha256) == len(files) + len(ARRAYS) + 1
        are_names = all(INDEX_NAME.fullmatch(name) for name in files)
        if not (SEGMENT_NAME.fullmatch(self.name) and is_whole and are_names):
            raise ValueError("a segment of other files")
        if len(files) != (self.kind.kind != "flat"):
            raise ValueError("a segment of another kind")
        if not all(SUM.fullmatch(one) for one in self.sha256.values()):
            raise ValueError("no checksums")
        if any(row < 0 or type(row) is not int for row in self.deleted):
            raise ValueError("rows that are none")

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

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no engine writes."""
        if any(type(dim) is not int or dim < 1 for dim in (self.dim, self.member_dim)):
            raise ValueError("dimensions that are none")
        if self.metric not in ("euclidean", "inner_product"):
            raise ValueError("another metric")
        if len({one.name for one in self.segments}) < len(self.segments):
            raise ValueError("a segment named twice")
        if any(one.kind.kind != "flat" for one in self.segments[1:]):
            raise ValueError("an approximate index that is not the first")
        if not (self.note is None or isinstance(self.note, str)):
            raise ValueError("a note that is no text")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest: from here on the index is the new one, once the directory is synced."""
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
    write(staged, json.dumps(content | {"sha256": sum_of(content)}, indent=1).encode())
    staged.replace(folder / MANIFEST)


def sum_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says beside that."""
    said = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest.

    Raises:
        InputError: there is no index, it is damaged, or of a schema that is not known here.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise InputError(f"{folder} is not an index of setrep.")
        if type(content["schema"]) is int and content["schema"] != SCHEMA:
            raise InputError(
                f"The index {folder} is of another schema than {SCHEMA}, which setrep "
                f"{__version__} reads: build it again."
            )
        if content["schema"] is not SCHEMA or content["sha256"] != sum_of(content):
            raise ValueError("damaged")
        return manifest_of(content)
    except InputError:
        raise
    except FileNotFoundError as error:
        if folder.exists():
            raise InputError(f"There is no index at {folder}: it has no {MANIFEST}.") from error
        raise InputError(f"There is no index at {folder}.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    except DAMAGE as error:
        raise InputError(f"{path} is damaged or of something else; build the index again.") from (
            error
        )


def manifest_of(content: Mapping[str, Any]) -> Manifest:
    """Read what a manifest says; of something else raise one of `DAMAGE`."""
    segments = tuple(
        SegmentEntry(one["name"], dict(one["sha256"]), tuple(one["deleted"]), kind_of(one["kind"]))
        for one in content["segments"]
    )
    attachments = dict(content["attachments"])
    return Manifest(
        content["dim"],
        content["member_dim"],
        content["metric"],
        attachments,
        segments,
        content["note"],
    )


def is_index(folder: Path) -> bool:
    """Say whether a directory has a manifest of an index, damaged perhaps in what it says.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return False
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    return isinstance(content, dict) and content.get("format") == FORMAT


def aside_of(folder: Path) -> Path:
    """Where an old index lies while a new one is moved to its place."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.setrep-old")
