"""The two files of a model: `model.safetensors` with the weights, `model.json` with the rest."""

from __future__ import annotations

import hashlib
import json
import reprlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from setrep import __version__
from setrep.errors import InputError
from setrep.files import replace_files

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
SCHEMA = 1


def serialise(state: dict[str, Tensor], settings: dict[str, Any]) -> bytes:
    """Return the file of weights; `settings` go into its header, so its hash covers them, too."""
    # Copies, because safetensors refuses tensors that share memory or are channels-last.
    copies = {
        name: x.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, x in state.items()
    }
    # One key only: safetensors writes several in any order.
    header = {"setrep": json.dumps(settings, sort_keys=True)}
    return bytes(save(copies, metadata=header))


def write_model(
    folder: Path, weights: bytes, settings: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Write both files, each replaced as a whole.

    Raises:
        InputError: the directory cannot be written, or `extra` is not JSON.
    """
    description = {
        "schema": SCHEMA,
        "setrep_version": __version__,
        **settings,
        **extra,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    try:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The metadata of a model must be JSON: {error}.") from error
    replace_files(folder, {WEIGHTS: weights, DESCRIPTION: text.encode()})


def read_description(folder: Path) -> dict[str, Any]:
    """Read `model.json`.

    Raises:
        InputError: it is missing, damaged or of a schema that is not known here.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder} holds no trained model: {DESCRIPTION} cannot be read ({error.strerror})."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON. Save the model again.") from error
    schema = description.get("schema") if isinstance(description, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} is of schema {reprlib.repr(schema)}, "
            f"but setrep {__version__} reads schema {SCHEMA}."
        )
    return dict(description)


def read_weights(folder: Path, description: dict[str, Any]) -> dict[str, Tensor]:
    """Read `model.safetensors`.

    Raises:
        InputError: it is missing, damaged, or not the file that `description` was written with.
    """
    path = folder / WEIGHTS
    try:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if found != description.get("sha256"):
        raise InputError(
            f"{path} is damaged or of another model than {DESCRIPTION}: "
            f"its SHA-256 begins with {found[:12]}. Save the model again."
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            settings = json.loads((file.metadata() or {}).get("setrep", "{}"))
        is_same = all(description.get(name) == value for name, value in settings.items())
    except (OSError, SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file of setrep.") from error
    if not settings or not is_same:
        raise InputError(f"{folder / DESCRIPTION} was changed: {WEIGHTS} has other settings.")
    return state
