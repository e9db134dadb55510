"""What `setrep embed` calls: embeddings of collections of image files, in a file."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save as to_safetensors

from setrep.errors import InputError
from setrep.files import refuse_unwritable, write_atomically
from setrep.index import places
from setrep.index.records import Records, join
from setrep.reports.folders import Folder, read_folders, refusing_files
from setrep.reports.index_inputs import device_of
from setrep.reports.indexing import building, synchronise
from setrep.set_encoder import SetEncoder

Level = Literal["collections", "items", "both"]
LEVELS: tuple[Level, ...] = ("collections", "items", "both")


@refusing_files()
def embed_folder(
    run: str | Path,
    directory: str | Path,
    output: str | Path,
    *,
    labelled: bool = False,
    level: Level = "both",
    device: str | None = None,
) -> Records:
    """Embed `directory/<collection>/*` and write the embeddings to `.npz`, safetensors or Parquet.

    Interrupted, it goes on from what was embedded. See docs/retrieval.md for what the files hold.

    Raises:
        InputError: the directory holds no collections, a file is not an image, or the output is
            of another kind or cannot be written.
    """
    target = Path(output)
    write = writer_of(target, level)
    folders = read_folders(directory, labelled=labelled)
    if target.suffix == ".parquet":
        refuse_names(folders)
    set_encoder = SetEncoder.from_pretrained(run).to(device_of(device))
    refuse_unwritable(target.parent)
    root = Path(directory).resolve()
    built = places.building(target.resolve())
    with building(built, set_encoder, root) as index:
        synchronise(index, root, folders, {})
        records = join(list(index.engine.iterate()))
    order = {name: row for row, name in enumerate(records.ids)}
    records = records.take([order[folder.id] for folder in folders])
    write_atomically(target, write(arrays_of(records, level), set_encoder.fingerprint))
    places.discard(built)
    return records


def writer_of(target: Path, level: Level) -> Any:
    """Return what writes a file of this suffix.

    Raises:
        InputError: the suffix is not known, or Parquet is not installed or asked for two tables.
    """
    if level not in LEVELS:
        raise InputError(f"--level is {', '.join(LEVELS)}, not '{level}'.")
    known = {".npz": to_npz, ".safetensors": safetensors_of, ".parquet": to_parquet}
    if target.suffix not in known:
        raise InputError(f"{target} has no suffix that says what to write: use {', '.join(known)}.")
    if target.suffix == ".parquet":
        if level == "both":
            raise InputError(
                "A Parquet file is one table: choose --level collections or --level items."
            )
        load_parquet()
    return known[target.suffix]


def refuse_names(folders: Sequence[Folder]) -> None:
    """Refuse names that a Parquet file cannot hold, before work is done for it.

    Raises:
        InputError: one is not UTF-8.
    """
    for name in (file for folder in folders for file in folder.files):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"The name of {name} is not UTF-8, which Parquet asks for: rename it, or write "
                f".npz or .safetensors."
            ) from error


def arrays_of(records: Records, level: Level) -> dict[str, np.ndarray]:
    """Return the columns to write: numbers as they are, names as text."""
    sources = [payload["sources"] for payload in records.payloads]
    labels = [payload["label"] or "" for payload in records.payloads]
    sizes = np.diff(records.offsets)
    of_collections = {
        "ids": np.array(records.ids, dtype=np.str_),
        "labels": np.array(labels, dtype=np.str_),
        "sizes": sizes,
        "embeddings": records.vectors,
    }
    names = [name for of in sources for name in of]
    of_items = {
        "item_sources": np.array(names, dtype=np.str_),
        "item_collections": np.repeat(np.array(records.ids, dtype=np.str_), sizes),
        "item_labels": np.repeat(np.array(labels, dtype=np.str_), sizes),
        "item_embeddings": np.asarray(records.members),
    }
    if level == "both":
        return of_collections | of_items
    return of_collections if level == "collections" else of_items


def to_npz(arrays: dict[str, np.ndarray], fingerprint: str) -> bytes:
    """Write arrays without objects."""
    file = io.BytesIO()
    named: dict[str, Any] = {**arrays, "fingerprint": np.array(fingerprint)}
    np.savez(file, **named)
    return file.getvalue()


def safetensors_of(arrays: dict[str, np.ndarray], fingerprint: str) -> bytes:
    """Write numbers as tensors, and text as JSON in the header."""
    numbers = {
        name: np.ascontiguousarray(array)
        for name, array in arrays.items()
        if array.dtype.kind != "U"
    }
    texts = {name: array.tolist() for name, array in arrays.items() if array.dtype.kind == "U"}
    header = {"setrep": json.dumps(texts | {"fingerprint": fingerprint})}
    return bytes(to_safetensors(numbers, metadata=header))


def to_parquet(arrays: dict[str, np.ndarray], fingerprint: str) -> bytes:
    """Write one table, a row for each collection or item, embeddings as lists."""
    arrow, parquet = load_parquet()
    columns = {
        name: arrow.array(array.tolist() if array.ndim == 1 else list(array))
        for name, array in arrays.items()
    }
    table = arrow.table(columns).replace_schema_metadata({"setrep.fingerprint": fingerprint})
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def load_parquet() -> tuple[Any, Any]:
    """Import pyarrow.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow: pip install 'setrep[parquet]', or write .npz or .safetensors."
        ) from error
