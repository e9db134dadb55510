"""From an image file to a small uint8 array, the same way for training items and for queries."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from setrep.errors import InputError
from setrep.item_format import ItemFormat

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # PIL knows others that run programs
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
MAX_PIXELS = 80_000_000  # below PIL's own limit, so that ours is the one that is met
NOT_AN_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


def read_image(
    source: str | Path | bytes | Image.Image, item_format: ItemFormat
) -> UInt8[np.ndarray, "channels size size"]:
    """Decode an image, cut its centre square, and scale that to the size of `item_format`.

    Transparent parts become white, 16-bit greys lose their lower byte, and of several frames the
    first counts.

    Raises:
        InputError: the file is missing, truncated, no image, or has more than `MAX_PIXELS` pixels.
    """
    image = source if isinstance(source, Image.Image) else _open(source)
    try:
        # What PIL warns of ends in an error below, or does no harm.
        with warnings.catch_warnings(action="ignore"):
            flat = _flatten(image, "L" if item_format.channels == 1 else "RGB")
    except InputError as error:
        raise InputError(f"{_named(source)}{error}") from error
    except NOT_AN_IMAGE as error:
        raise InputError(
            f"{_named(source)}not a whole image ({' '.join(str(error).split())})."
        ) from error
    return to_item(flat, item_format)


def to_item(image: Image.Image, item_format: ItemFormat) -> NDArray[np.uint8]:
    """Scale a picture of mode L or RGB to an item."""
    # BOX averages all the ink that falls on a pixel, so thin strokes keep their weight.
    is_smaller = item_format.size < min(image.size)
    method = Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR
    side = (item_format.size, item_format.size)
    if image.size != side:
        image = ImageOps.fit(image, side, method)
    pixels = np.array(image, dtype=np.uint8)  # a copy: torch wants what it can write to
    if item_format.is_inverted:
        pixels = 255 - pixels
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return cast("NDArray[np.uint8]", np.ascontiguousarray(planes))


def to_items(
    pixels: UInt8[np.ndarray, "item 3 height width"], item_format: ItemFormat
) -> UInt8[np.ndarray, "item 3 size size"]:
    """Scale arrays of pixels as pictures are."""
    items = np.empty((len(pixels), *item_format.shape), dtype=np.uint8)
    for row, planes in enumerate(pixels):
        image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        items[row] = to_item(image, item_format)
    return items


def is_grey(content: bytes) -> bool:
    """Say whether an image file has no colour, from its header; a broken file does not count."""
    try:
        return _open(content).mode in GREY_MODES
    except InputError:
        return True


def _open(source: str | Path | bytes) -> Image.Image:
    content = source if isinstance(source, bytes) else _content(source)
    too_large = f"{_named(source)}an image may have at most {MAX_PIXELS} pixels"
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"{too_large}.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{_named(source)}not an image file.") from error
    except NOT_AN_IMAGE as error:
        raise InputError(
            f"{_named(source)}not a whole image ({' '.join(str(error).split())})."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{too_large}; this one has {image.width} x {image.height}.")
    return image


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error


def _named(source: object) -> str:
    return f"{source}: " if isinstance(source, str | Path) else ""


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Turn any mode into L or RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError("images of floating-point numbers are not read; store them as vectors.")
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
