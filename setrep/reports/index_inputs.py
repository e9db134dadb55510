"""What commands are given beside images: metadata, held-out items, filters, a device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from setrep.errors import InputError
from setrep.index.records import Name
from setrep.reports.folders import Folder, read_folders


def read_pools(directory: str | Path, *, labelled: bool) -> dict[Name, list[Path]]:
    """Find held-out items of each collection, or of each label when labelled."""
    found: dict[Name, list[Path]] = {}
    for folder in read_folders(directory, labelled=labelled):
        files = [Path(directory) / file for file in folder.files]
        found.setdefault(folder.label or folder.id, []).extend(files)
    return found


def read_metadata(
    metadata: Mapping[str, dict[str, Any]] | None, folders: Sequence[Folder]
) -> Mapping[str, dict[str, Any]]:
    """Refuse metadata of collections that are not there."""
    known = {folder.id for folder in folders}
    for name in metadata or {}:
        if name not in known:
            raise InputError(f"There are metadata of '{name}', but no collection of that name.")
    return metadata or {}


def full_stamp(folder: Folder, metadata: Mapping[str, dict[str, Any]]) -> str:
    """Return what changes when anything that is kept of a collection does."""
    return json.dumps([folder.stamp, folder.label, metadata.get(folder.id)], sort_keys=True)


def has_same_files(stamp: str, folder: Folder) -> bool:
    """Say whether a collection of this stamp differs in what is told of it alone."""
    try:
        read = json.loads(stamp)
    except (ValueError, RecursionError):
        return False
    return isinstance(read, list) and len(read) > 0 and read[0] == folder.stamp


def read_filters(filters: Sequence[str]) -> dict[str, list[Any]] | None:
    """Read `name=value`, `name=value,value`, whose values that are JSON also stand for that.

    Or `name=[...]`, a list in JSON, whose values are what they are and may hold commas.

    Raises:
        InputError: one has another form.
    """
    found: dict[str, list[Any]] = {}
    for text in filters:
        name, equals, values = text.partition("=")
        if not equals or not name or name in found:
            raise InputError(
                f"--filter takes NAME=VALUE or NAME=VALUE,VALUE, each name once; found '{text}'."
            )
        if values.startswith("["):
            found[name] = read_list(text, values)
        else:
            found[name] = [either for value in values.split(",") for either in readings(value)]
    return found or None


def read_list(text: str, values: str) -> list[Any]:
    """Read a list in JSON.

    Raises:
        InputError: it is none.
    """
    try:
        return list(json.loads(values))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'--filter NAME=[...] takes a list in JSON, as in label=["a,b","[c]"], where each '
            f"text has its quotes; found '{text}'."
        ) from error


def readings(value: str) -> list[Any]:
    """Return what a value may mean: text, and a number, true, false or null."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return [value]
    return [value] if isinstance(read, str | list | dict) else [value, read]


def device_of(name: str | None) -> torch.device:
    """Return the named device; of auto a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device is auto, cpu or cuda, not '{name}'.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, but torch finds no GPU here. Use cpu.")
    return torch.device(name)
