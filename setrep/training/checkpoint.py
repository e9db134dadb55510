"""Checkpoints as one safetensors file, written so that a kill leaves the old one or the new."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from setrep.errors import InputError

FILE = "checkpoint/last.safetensors"


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Write nested state (dicts, lists, plain values, tensors) in place of the last checkpoint.

    Raises:
        InputError: the directory cannot be written; the earlier checkpoint is untouched.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_encode(state, tensors))
    write_atomically(directory / FILE, save(tensors, metadata={"state": skeleton}))


def load_checkpoint(directory: Path) -> dict[str, Any]:
    """Read the last checkpoint, on the CPU.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        raise InputError(
            f"Nothing to resume: {directory} has no {FILE}. Train without --resume first."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            skeleton = json.loads(file.metadata()["state"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The checkpoint {path} is damaged ({error}); delete it.") from error
    state: dict[str, Any] = _decode(skeleton, tensors)
    return state


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside `path`, force it to disk, and move it into place.

    Raises:
        InputError: the directory cannot be written or the disk is full; `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"Cannot write {path}: {error.strerror}. What was there before is unchanged; "
            f"free some space or choose another --output-dir."
        ) from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn state into JSON, with tensors put aside; dicts become pairs, for their integer keys."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_encode(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A checkpoint cannot hold a {type(value).__name__}.")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _decode(item, tensors) for key, item in value["dict"]}
    return value
