"""How far centroids of randomly drawn collections are from the mean of their pool, and apart.

Every statement is about drawing items from the pool that was measured, each as likely as any
other. None says anything about items from elsewhere, such as those the pool itself was drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.change_factor import PerSize, Sizes, change_factor, to_sizes
from setrep.bounds.points import Points, distances, power_of_two, to_points
from setrep.bounds.triples import length
from setrep.errors import InputError

DISTANCES_AT_ONCE = 2**22


@dataclass(frozen=True)
class PoolMoments:
    r"""What is to be known of a pool of $N$ items, with mean $\mu$; see `measure_pool`."""

    num_items: int
    spread: float  # sigma, the root mean squared distance from the mean
    diameter: float  # D, the largest distance of two items
    radius: float  # b, the largest distance from the mean
    largest_variance: float  # the largest eigenvalue of the covariance


def measure_pool(points: Points) -> PoolMoments:
    """Measure a pool `[items, dimensions]`, in time that grows with the square of its items.

    Raises:
        InputError: the pool is empty, not finite, not numeric, or of another shape.
    """
    x = to_points(points, "points")
    if x.ndim != 2:
        raise InputError(f"A pool must be [items, dimensions]; found shape {tuple(x.shape)}.")
    unit = power_of_two(x.abs().amax())
    x = x / unit
    x = x - x[:1]  # first, so that equal items are at the mean exactly
    x = x - x.mean(0)
    lengths = length(x)
    products = x @ x.mT if len(x) < x.shape[1] else x.mT @ x
    variance = torch.linalg.eigvalsh(products)[-1].clamp(min=0) / len(x)
    return PoolMoments(
        num_items=len(x),
        spread=float(unit * lengths.square().mean().sqrt()),
        diameter=float(unit * diameter(x)),
        radius=float(unit * lengths.amax()),
        largest_variance=float(unit * unit * variance),
    )


def diameter(x: Float64[Tensor, "item dim"]) -> Float64[Tensor, ""]:
    """Return the largest distance of two points, a block of distances at a time."""
    rows = max(1, DISTANCES_AT_ONCE // len(x))
    starts = range(0, len(x), rows)
    return torch.stack([distances(x[i : i + rows], x[i:]).amax() for i in starts]).amax()


def expected_squared_distance(
    pool: PoolMoments, n: Sizes, other: Sizes | None = None, *, with_replacement: bool = False
) -> PerSize:
    r"""Return the mean squared distance of a centroid to the mean, or of two centroids, exactly.

    Of one collection of $n$ items, without replacement (F3) and with (F1):
    $$ \mathbb{E} \|c - \mu\|^2 = \frac{\sigma^2}{n} \frac{N - n}{N - 1}, \qquad
       \mathbb{E} \|c - \mu\|^2 = \frac{\sigma^2}{n} $$
    and of two, disjoint of $n$ and `other` items (F3), or independent (F2):
    $$ \mathbb{E} \|c_1 - c_2\|^2 =
       \frac{N \sigma^2}{N - 1} \Big( \frac{1}{n_1} + \frac{1}{n_2} \Big), \qquad
       \mathbb{E} \|c_1 - c_2\|^2 = \sigma^2 \Big( \frac{1}{n_1} + \frac{1}{n_2} \Big) $$

    Raises:
        InputError: a size is no whole number of at least 1, or asks for more than the pool has.
    """
    return expected_distance(pool, n, other, with_replacement=with_replacement).square()


def expected_distance(
    pool: PoolMoments, n: Sizes, other: Sizes | None = None, *, with_replacement: bool = False
) -> PerSize:
    r"""Bound the mean distance by the root of the mean square (F1 to F3, Jensen's inequality).

    $$ \mathbb{E} \|c - \mu\| \le \sqrt{\mathbb{E} \|c - \mu\|^2} $$

    Raises:
        InputError: as `expected_squared_distance`.
    """
    first, second = to_sizes(pool.num_items, n, other, with_replacement)
    others = max(pool.num_items - 1, 1)
    if with_replacement:
        share = 1 / first if second is None else 1 / first + 1 / second
    elif second is None:
        share = (pool.num_items - first) / (first * others)
    else:
        share = (1 / first + 1 / second) * pool.num_items / others
    return pool.spread * share.sqrt()


def bounded_differences(
    pool: PoolMoments,
    n: Sizes,
    other: Sizes | None = None,
    *,
    delta: float,
    with_replacement: bool = False,
) -> PerSize:
    r"""Return a distance kept with probability $1 - \delta$, from bounded differences (F1, F2, F4).

    $$ \|c - \mu\| \le \sqrt{\mathbb{E} \|c - \mu\|^2} + C \sqrt{\tfrac12 \log \tfrac1\delta} $$
    and likewise $\|c_1 - c_2\|$, with $C$ of `change_factor`: with replacement McDiarmid's
    inequality, without it the same method along one draw.

    Raises:
        InputError: delta is not between 0 and 1, or as `expected_squared_distance`.
    """
    squared = change_factor(pool.num_items, n, other, with_replacement=with_replacement)
    expected = expected_distance(pool, n, other, with_replacement=with_replacement)
    return expected + pool.diameter * (squared * (log_inverse(delta) / 2)).sqrt()


def tail_probability(
    pool: PoolMoments,
    excess: float | PerSize,
    n: Sizes,
    other: Sizes | None = None,
    *,
    with_replacement: bool = False,
) -> PerSize:
    r"""Bound the probability that a distance exceeds its mean by `excess` or more (F1, F2, F4).

    $$ P(f \ge \mathbb{E} f + t) \le e^{-2 t^2 / C^2}, \qquad f = \|c - \mu\| \text{ or }
       \|c_1 - c_2\|, $$
    with $C$ of `change_factor`; 1 for $t \le 0$. `expected_distance` may stand for
    $\mathbb{E} f$, as it is no smaller.

    Raises:
        InputError: as `expected_squared_distance`.
    """
    squared = change_factor(pool.num_items, n, other, with_replacement=with_replacement)
    t = torch.as_tensor(excess, dtype=torch.float64)
    exponent = -2 * (t / pool.diameter).square() / squared
    return torch.where(t > 0, exponent, 0.0).exp()


def pinelis(pool: PoolMoments, n: Sizes, *, delta: float) -> PerSize:
    r"""Return a distance to the mean kept with probability $1 - \delta$ (F1, Pinelis 1994).

    $$ \|c - \mu\| \le b \sqrt{\frac{2 \log (2/\delta)}{n}} $$
    with and without replacement.

    Raises:
        InputError: delta is not between 0 and 1, or a size is no whole number of at least 1.
    """
    size, _ = to_sizes(pool.num_items, n, None, True)
    return pool.radius * (2 * (math.log(2) + log_inverse(delta)) / size).sqrt()


def bernstein(pool: PoolMoments, n: Sizes, *, delta: float) -> PerSize:
    r"""Return a distance to the mean kept with probability $1 - \delta$ (F1, Bernstein's form).

    $$ \|c - \mu\| \le \frac{b x}{3 n} + \sqrt{\Big( \frac{b x}{3 n} \Big)^2 +
       \frac{2 \sigma^2 x}{n}}, \qquad x = \log \frac2\delta, $$
    with and without replacement.

    Raises:
        InputError: as `pinelis`.
    """
    size, _ = to_sizes(pool.num_items, n, None, True)
    x = (math.log(2) + log_inverse(delta)) / size
    linear = pool.radius * x / 3
    return linear + torch.hypot(linear, pool.spread * (2 * x).sqrt())


def bousquet(pool: PoolMoments, n: Sizes, *, delta: float) -> PerSize:
    r"""Return a distance to the mean kept with probability $1 - \delta$ (F1, Bousquet 2002).

    $$ \|c - \mu\| \le \frac{\sigma}{\sqrt n} + \sqrt{\frac{2 x}{n} \Big( \lambda_{\max}(\Sigma) +
       \frac{2 b \sigma}{\sqrt n} \Big)} + \frac{b x}{3 n}, \qquad x = \log \frac1\delta, $$
    with and without replacement.

    Raises:
        InputError: as `pinelis`.
    """
    size, _ = to_sizes(pool.num_items, n, None, True)
    x = log_inverse(delta) / size
    weak = pool.largest_variance + 2 * pool.radius * pool.spread / size.sqrt()
    return pool.spread / size.sqrt() + (2 * x * weak).sqrt() + pool.radius * x / 3


def log_inverse(delta: float) -> float:
    """Return log(1/delta) of a probability that is neither 0 nor 1."""
    if not 0 < delta < 1:
        raise InputError(f"delta must be a probability between 0 and 1, not {delta}.")
    return -math.log(delta)
