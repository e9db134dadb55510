"""The pickles CIFAR comes in, read without running any code they name."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAMAGED = (  # what the standard reader raises on bytes that are no such pickle
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def read_pickle(content: bytes) -> dict[str, Any]:
    """Read a dict of lists, numbers, strings, bytes and arrays of uint8.

    Raises:
        ValueError: it is damaged, or names anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of damaged escapes in text
            _check_sizes(content)
            found = _Reader(io.BytesIO(content), encoding="bytes").load()
    except DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds no dict but a {type(found).__name__}")
    return {
        text(key): value.values if isinstance(value, _Array) else value
        for key, value in found.items()
    }


def _check_sizes(content: bytes) -> None:
    """Refuse numbers that would make the standard reader ask for memory it never fills."""
    for code, argument, _ in pickletools.genops(content):  # stops at a string that is cut short
        if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError(f"it numbers an object {argument}, more than it has bytes")


def text(value: Any) -> str:
    """Return what Python 2 wrote as bytes and Python 3 as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise ValueError(f"it holds a {type(value).__name__} where a name is expected")


class _Dtype:
    """Stand in for `numpy.dtype`, so that numpy is never handed a state that someone made up."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Pass over byte order and alignment, which a byte does not have."""


class _Array:
    """Stand in for `numpy.ndarray` and for the function that makes an empty one."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or text(dtype.code) != "u1":
            raise ValueError("it holds an array that is not of uint8")
        if not isinstance(content, bytes) or math.prod(shape) != len(content):
            raise ValueError(f"it holds an array of shape {shape} without the bytes for it")
        flat = np.frombuffer(content, dtype=np.uint8)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


class _Reader(pickle.Unpickler):
    """Know the three names that a pickled array needs, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in, or refuse the name."""
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) == ("numpy", "ndarray") or (module in MODULES and name == "_reconstruct"):
            return _Array
        raise pickle.UnpicklingError(f"it names {module}.{name}, which images do not need")
