"""How much one item at a time may change a distance of centroids, with and without replacement."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from setrep.errors import InputError

Sizes = int | Sequence[int] | Int64[Tensor, "*size"]
PerSize = Float64[Tensor, "*size"]


def change_factor(
    num_items: int,
    n: Sizes,
    other: Sizes | None = None,
    *,
    with_replacement: bool = False,
    closed_form: bool = False,
) -> PerSize:
    r"""Return $C^2 / D^2$, which says how much one item at a time may change a distance (F1 to F4).

    With replacement it is $1/n$, for two collections $1/n_1 + 1/n_2$. Without, the items of
    all groups but one, the collections and the rest of the pool, are revealed group by group: with
    $w = 1/n_1, -1/n_2, 0$ the share of an item of a group in $c_1 - c_2$, and $M$ items left,
    $$ \frac{C^2}{D^2} = \sum_{\text{revealed } g} \Big(\sum_{h \text{ after } g} n_h |w_g - w_h|
       \Big)^2 \sum_{i=1}^{n_g} \frac{1}{(M_g - i)^2}, $$
    the least over their orders, and at most 1. For one collection it is
    $\min \{\kappa(N, n), \kappa(N, N - n)\} / n^2$. The closed form, no smaller, has
    $\frac{n_g}{(M_g - n_g - 1/2)(M_g - 1/2)}$ for the last sum.

    Raises:
        InputError: as `expected_squared_distance`.
    """
    first, second = to_sizes(num_items, n, other, with_replacement)
    if with_replacement:
        return 1 / first if second is None else 1 / first + 1 / second
    groups = [(first, 1 / first), (num_items - first, torch.zeros_like(first))]
    if second is not None:
        rest = num_items - first - second
        groups = [(first, 1 / first), (second, -1 / second), (rest, torch.zeros_like(rest))]
    factors = [squared_steps(order, closed_form) for order in itertools.permutations(groups)]
    return torch.stack(factors).amin(0).clamp(max=1)


def squared_steps(groups: Sequence[tuple[PerSize, PerSize]], closed_form: bool) -> PerSize:
    """Sum the squared ranges of the steps that reveal groups of given sizes and shares in order."""
    left = torch.stack([size for size, _ in groups]).sum(0)
    total = torch.zeros_like(left)
    for i, (size, share) in enumerate(groups[:-1], start=1):
        changes = [rest * (share - its_share).abs() for rest, its_share in groups[i:]]
        # Where no item is left, nothing changes: any other divisor will do.
        after = (left - size).clamp(min=1)
        left = left.clamp(min=1)
        if closed_form:
            inverse_squares = size / ((after - 0.5) * (left - 0.5))
        else:
            inverse_squares = tail_of_inverse_squares(after) - tail_of_inverse_squares(left)
        total = total + torch.stack(changes).sum(0).square() * inverse_squares
        left = left - size
    return total


def tail_of_inverse_squares(first: PerSize) -> PerSize:
    r"""Return $\sum_{k \ge \text{first}} 1 / k^2$."""
    value: Tensor = torch.special.zeta(torch.full_like(first, 2.0), first)
    return value


def to_sizes(
    num_items: int, n: Sizes, other: Sizes | None, with_replacement: bool
) -> tuple[PerSize, PerSize | None]:
    """Check sizes of one or two collections, and return them in float64."""
    asked = [check_size(n, "n")] + ([] if other is None else [check_size(other, "other")])
    try:
        sizes = np.broadcast_arrays(*asked)
    except ValueError as error:
        raise InputError(f"n and other must be sizes of one shape: {error}") from error
    largest = int(np.sum(sizes, axis=0).max())
    if not with_replacement and largest > num_items:
        raise InputError(
            f"{largest} items were to be drawn without replacement from a pool of {num_items}. "
            f"Ask for fewer, or draw with replacement."
        )
    first, *second = (torch.from_numpy(size.astype(np.float64)) for size in sizes)
    return first, second[0] if second else None


def check_size(n: Sizes, name: str) -> Int64[np.ndarray, "*size"]:
    """Check sizes of collections."""
    array = np.asarray(n)
    if array.dtype.kind not in "iu" or array.size == 0 or array.min() < 1:
        raise InputError(f"{name} must be whole numbers of items, at least 1; found {n}.")
    return array
