"""Checkpoints as one safetensors file, written so that a kill leaves the old one or the new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from setrep.errors import InputError
from setrep.files import write_atomically

FILE = "checkpoint/last.safetensors"
# What reading a truncated or tampered checkpoint raises.
DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, RecursionError)


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
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            state: dict[str, Any] = _decode(json.loads(file.metadata()["state"]), tensors)
        return state | {"step": int(state["step"])}
    except DAMAGE as error:
        raise InputError(
            f"The checkpoint {path} is damaged or missing ({type(error).__name__}). "
            f"Delete it, and --resume starts again from step 0."
        ) from error


def checkpoint_step(directory: Path) -> int:
    """Return the step that a run would continue from, 0 where there is no checkpoint yet."""
    return int(load_checkpoint(directory)["step"]) if (directory / FILE).is_file() else 0


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
