"""From what a caller holds (arrays, files, pictures) to the tensor that an encoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from setrep.data.dataset import ItemFormat
from setrep.data.images import read_image
from setrep.errors import InputError

Array = Tensor | NDArray[Any]
Item = Array | str | Path | bytes | Image.Image


def is_item(candidate: object, item_format: ItemFormat) -> bool:
    """Say whether this is one item, and not several."""
    if isinstance(candidate, Tensor | np.ndarray):
        return candidate.ndim == len(item_format.shape)
    return isinstance(candidate, str | Path | bytes | Image.Image)


def read_items(items: Array | Sequence[Item], item_format: ItemFormat) -> Shaped[Tensor, "n ..."]:
    """Read items into one tensor: bytes where all are bytes, else float32.

    Raises:
        InputError: an item is not of the format, not finite, or not a whole image.
    """
    if isinstance(items, Tensor | np.ndarray):
        return read_array(items, items.shape[1:], item_format)
    tensors = [read_item(item, item_format) for item in items]
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [x.float() / 255 if x.dtype == torch.uint8 else x for x in tensors]
    return torch.stack(tensors)


def read_item(item: Item, item_format: ItemFormat) -> Shaped[Tensor, "..."]:
    """Read one item."""
    if isinstance(item, Tensor | np.ndarray):
        return read_array(item, item.shape, item_format)
    if not isinstance(item, str | Path | bytes | Image.Image):
        raise InputError(f"An item must be an array or an image, not {type(item).__name__}.")
    if item_format.kind != "image":
        raise InputError(f"Given an image, but this model takes {describe(item_format)}.")
    return torch.from_numpy(read_image(item, item_format))


def read_array(
    array: Array, shape: Sequence[int], item_format: ItemFormat
) -> Shaped[Tensor, "..."]:
    """Read an array of items of `shape`; bytes of images stay bytes, else float32."""
    given = f"{str(array.dtype).removeprefix('torch.')} items of shape {tuple(shape)}"
    mismatch = f"Given {given}, but this model takes {describe(item_format)}."
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiub":
            raise InputError(mismatch)
        array = torch.from_numpy(np.array(array))  # a copy, since the array may be read-only
    if tuple(shape) != item_format.shape or array.is_complex():
        raise InputError(mismatch)
    if item_format.kind == "image" and not array.is_floating_point():
        if array.dtype != torch.uint8:
            raise InputError(mismatch)
        return array
    array = array.detach().float()
    if not bool(array.isfinite().all()):
        raise InputError("The items hold NaN or infinity.")
    return array


def describe(item_format: ItemFormat) -> str:
    """Say what items are of this format."""
    if item_format.kind == "vector":
        return f"vectors of shape {item_format.shape}"
    return f"image files, or uint8 or floating-point arrays of shape {item_format.shape}"
