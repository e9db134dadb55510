"""What `setrep index` is given beside the collections: metadata, held-out items, a device."""

from __future__ import annotations

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
