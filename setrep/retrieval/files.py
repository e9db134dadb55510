"""An index on disk: one directory, whole or not there.

`manifest.json` (schema, checksums, fingerprint), `embeddings.npy`, `collections.json` (ids, labels,
metadata) and, where the index has one, the set encoder in `encoder/`.
"""

from __future__ import annotations

import json
import os
import reprlib
import secrets
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from setrep import __version__
from setrep.errors import InputError
from setrep.files import sweep
from setrep.index.metric import LARGEST_VALUE
from setrep.index.segments import DAMAGE, digest
from setrep.set_encoder import SetEncoder

FORMAT = "setrep.CollectionIndex"
SCHEMA = 1
MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings.npy"
COLLECTIONS = "collections.json"
ENCODER = "encoder"
COLUMNS = ("ids", "labels", "metadata")
ENCODER_FILES = (f"{ENCODER}/model.safetensors", f"{ENCODER}/model.json")


class Contents(NamedTuple):
    """What an index directory holds; `rows` are the ids, labels and metadata."""

    embeddings: Float[NDArray[np.float32], "collection dim"]
    rows: dict[str, Any]
    set_encoder: SetEncoder | None
    fingerprint: str | None


def write_index(directory: Path, contents: Contents) -> None:
    """Write an index beside `directory` and put it there in one move.

    Raises:
        InputError: `directory` is something else than an index, or cannot be written.
    """
    target = directory.resolve()
    staged = target.with_name(f".{target.name}.setrep-new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        refuse_to_replace(target)
        staged.mkdir(parents=True)
        sweep(target.parent, f".{target.name}.setrep-new-")
        write_contents(staged, contents)
        move_into_place(staged, target)
    except OSError as error:
        raise InputError(f"Cannot write the index {directory}: {error.strerror}.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_contents(folder: Path, contents: Contents) -> None:
    """Write the files of an index, the manifest last, and force them to disk."""
    has_encoder = contents.set_encoder is not None
    np.save(folder / EMBEDDINGS, contents.embeddings, allow_pickle=False)
    (folder / COLLECTIONS).write_text(json.dumps(contents.rows), encoding="utf-8")
    if contents.set_encoder is not None:
        contents.set_encoder.save_pretrained(folder / ENCODER)
    checksums = {name: digest(folder / name) for name in files_of(has_encoder)}
    if has_encoder and checksums[ENCODER_FILES[0]] != contents.fingerprint:
        raise InputError("The set encoder has changed since it embedded this index: build it anew.")
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "setrep_version": __version__,
        "num_collections": len(contents.embeddings),
        "dim": contents.embeddings.shape[1],
        "score": "minus the squared Euclidean distance",
        "has_encoder": has_encoder,
        "fingerprint": contents.fingerprint,
        "sha256": checksums,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name in (EMBEDDINGS, COLLECTIONS, MANIFEST):
        force_to_disk(folder / name)


def move_into_place(staged: Path, target: Path) -> None:
    """Put `staged` in place of `target`; killed in between, the old index is still found aside."""
    aside = aside_of(target)
    if not target.exists():
        if is_index(aside):  # left by a kill between the two moves below
            aside.rename(target)
        else:
            staged.rename(target)
            return
    remove_index(aside)
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        aside.rename(target)
        raise
    remove_index(aside)


def aside_of(target: Path) -> Path:
    """Where the old index lies while the new one is moved in."""
    return target.with_name(f".{target.name}.setrep-old")


def remove_index(folder: Path) -> None:
    """Remove an index that is no longer needed, manifest first: what is half removed is none."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def refuse_to_replace(target: Path) -> None:
    """Refuse a path that holds anything but an index."""
    if not target.exists() or is_index(target):
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise InputError(
        f"{target} exists and is not an index of setrep; nothing was changed. "
        f"Choose another directory or remove that one."
    )


def is_index(folder: Path) -> bool:
    """Say whether a directory was written by this module."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def read_index(directory: Path) -> Contents:
    """Read an index after checking every file against the manifest.

    Raises:
        InputError: there is none, or it is damaged.
    """
    folder = directory.resolve()
    if not folder.exists() and is_index(aside_of(folder)):
        folder = aside_of(folder)
    manifest = read_manifest(folder)
    try:
        return read_contents(folder, manifest)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"Cannot read {error.filename}: {error.strerror}.") from error
    except DAMAGE as error:
        raise InputError(f"The index {folder} is damaged: build it again.") from error


def read_contents(folder: Path, manifest: dict[str, Any]) -> Contents:
    """Read the files of an index."""
    has_encoder, fingerprint = manifest["has_encoder"], manifest["fingerprint"]
    for name in files_of(has_encoder):
        if digest(folder / name) != manifest["sha256"][name]:
            raise InputError(f"{folder / name} is damaged: build the index again.")
    # Copy-on-write, because torch warns of read-only arrays; nothing is ever written to it.
    embeddings = np.lib.format.open_memmap(folder / EMBEDDINGS, mode="c")  # of plain numbers only
    rows = json.loads((folder / COLLECTIONS).read_bytes())
    check_contents(folder, manifest, embeddings, rows)
    if has_encoder and manifest["sha256"][ENCODER_FILES[0]] != fingerprint:
        raise InputError(f"{folder / MANIFEST} names another model than the index holds.")
    set_encoder = SetEncoder.from_pretrained(folder / ENCODER) if has_encoder else None
    return Contents(embeddings, rows, set_encoder, fingerprint)


def check_contents(
    folder: Path,
    manifest: dict[str, Any],
    embeddings: Float[NDArray[np.float32], "collection dim"],
    rows: dict[str, Any],
) -> None:
    """Refuse files that do not fit one another, although their checksums are right."""
    expected = (manifest["num_collections"], manifest["dim"])
    if embeddings.shape != expected or embeddings.dtype != np.float32 or embeddings.size == 0:
        raise InputError(f"{folder / MANIFEST} does not fit {EMBEDDINGS}: build the index again.")
    # False for NaN, too; the least and the largest need no copy of what is mapped.
    with np.errstate(invalid="ignore"):
        is_finite = -LARGEST_VALUE < embeddings.min() <= embeddings.max() < LARGEST_VALUE
    if not is_finite:
        raise InputError(f"{folder / EMBEDDINGS} holds NaN or huge values: build the index again.")
    if not all(isinstance(rows[name], list) for name in COLUMNS):
        raise InputError(f"{folder / COLLECTIONS} holds no lists: build the index again.")
    if not isinstance(manifest["fingerprint"], str | None):
        raise InputError(f"{folder / MANIFEST} has a fingerprint that is no text: build it again.")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest and check that it is of a schema known here."""
    if not folder.exists():
        raise InputError(f"There is no index at {folder}.")
    if not is_index(folder):
        raise InputError(f"{folder} is not an index of setrep, or its {MANIFEST} is damaged.")
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"The index {folder} is of schema {reprlib.repr(manifest.get('schema'))}, but setrep "
            f"{__version__} reads schema {SCHEMA}."
        )
    return manifest


def files_of(has_encoder: bool) -> tuple[str, ...]:
    """Name the files that a manifest gives checksums of."""
    return (EMBEDDINGS, COLLECTIONS, *(ENCODER_FILES if has_encoder else ()))


def force_to_disk(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
