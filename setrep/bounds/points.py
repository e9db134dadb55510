"""Points as the bounds take them: checked, in float64, with distances from direct differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from setrep.errors import InputError

LARGEST = 1e300  # beyond it distances leave float64
EPSILON = torch.finfo(torch.float64).eps

Points = Tensor | NDArray[Any] | Sequence[Any]


def to_numbers(x: Points, name: str) -> Float64[Tensor, "*shape"]:
    """Check numbers of any shape and return them in float64, without their graph.

    Raises:
        InputError: they are no array of real numbers, or are not finite.
    """
    if not isinstance(x, Tensor):
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise InputError(f"{name} must be an array of points: {error}") from error
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must hold real numbers, not {array.dtype}.")
        x = torch.from_numpy(np.array(array, dtype=np.float64))
    if x.is_complex():
        raise InputError(f"{name} must hold real numbers, not {x.dtype}.")
    x = x.detach().double()
    if not bool((x.abs() < LARGEST).all()):  # false for NaN, too
        raise InputError(f"{name} holds NaN, infinity or a number beyond {LARGEST:.0e}.")
    return x


def to_points(x: Points, name: str) -> Float64[Tensor, "*triple n dim"]:
    """Check points `[.., items, dimensions]` and return them in float64, without their graph.

    Raises:
        InputError: they are no array of numbers, hold no item, or are not finite.
    """
    points = to_numbers(x, name)
    if points.ndim < 2 or points.numel() == 0:
        raise InputError(
            f"{name} must be of shape [.., items, dimensions] and hold at least one item; "
            f"found shape {tuple(points.shape)}."
        )
    return points


def to_weights(
    weights: Points, points: Float64[Tensor, "*triple n dim"], name: str, tolerance: float
) -> Float64[Tensor, "*triple n"]:
    """Check convex weights of the items, and bring their sums to 1 in float64.

    Raises:
        InputError: there is not one for each item, one is negative, or a sum is off by more.
    """
    found = to_numbers(weights, name)
    if found.shape != points.shape[:-1]:
        raise InputError(
            f"{name} must be of shape {tuple(points.shape[:-1])}, one for each item; "
            f"found {tuple(found.shape)}."
        )
    total = found.sum(-1, keepdim=True)
    if bool((found < 0).any()) or bool(((total - 1).abs() > tolerance).any()):
        raise InputError(
            f"{name} must be at least 0 and sum to 1 over each collection; found a least of "
            f"{float(found.min()):.3g} and sums from {float(total.min()):.9g} to "
            f"{float(total.max()):.9g}."
        )
    return found / total


def finite(x: float, name: str, least: float = -math.inf) -> float:
    """Check one number and return it.

    Raises:
        InputError: it is not finite, or below the least that it may be.
    """
    if not (abs(x) < LARGEST and x >= least):
        what = "finite" if least == -math.inf else f"finite and at least {least:g}"
        raise InputError(f"{name} must be {what}, not {x}.")
    return x


def distances(
    x: Float64[Tensor, "*triple n dim"], y: Float64[Tensor, "*triple m dim"]
) -> Float64[Tensor, "*triple n m"]:
    """Return Euclidean distances from direct differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def power_of_two(x: Float64[Tensor, "*triple"]) -> Float64[Tensor, "*triple"]:
    """Return a power of two as large as each number; to divide by one rounds nothing."""
    return torch.exp2(torch.frexp(x).exponent.double())


def rounding(num_items: int, dim: int) -> float:
    """Return how many parts of a sum of squares of distances may be lost in float64."""
    return 10 * (num_items + dim) * EPSILON
