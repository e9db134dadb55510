"""How deep the pools of labels lie in the Voronoi cells of the centroids of a gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.points import Points, power_of_two, rounding, to_points
from setrep.bounds.sampling import PoolMoments, measure_pool
from setrep.bounds.triples import length
from setrep.errors import InputError

PerPair = Float64[Tensor, "label other"]
# Exponents of 2 between which the best theta is sought, in units of one over the largest distance.
THETAS = (-30.0, 60.0)
HALVINGS = 32


@dataclass(frozen=True, eq=False)
class Cells:
    r"""How deep the pools lie in the Voronoi cells of their centroids; see `measure_cells`.

    $y_l(x) = \langle x - \frac{c_k + c_l}{2}, \frac{c_k - c_l}{\|c_k - c_l\|} \rangle$ is how far
    an item of label k is on its side of the plane between two centroids. A label towards itself
    has gap inf, width 0 and log_moment -inf: it is never mistaken for itself.
    """

    gap: PerPair  # the mean of y_l over the pool
    width: PerPair  # the largest less the smallest y_l
    log_moment: PerPair  # the least log of the mean of exp(-theta y_l) over theta >= 0
    moments: tuple[PoolMoments, ...]


def measure_cells(gallery: Points, pools: Sequence[Points]) -> Cells:
    """Measure where the pools lie: `gallery` `[labels, dimensions]`, a pool of items for each.

    What rounding may add to a distance from a plane is taken off it, so that ties stay errors.

    Raises:
        InputError: an input is empty, not finite or not numeric, there are fewer than two labels,
            or the shapes do not fit.
    """
    centres, items, unit = relative_to_gallery(gallery, pools)
    rows = []
    for label, pool in enumerate(items):
        to_others = centres[label] - centres
        apart = length(to_others)
        normals = to_others / apart.masked_fill(apart == 0, 1.0).unsqueeze(-1)
        offsets = pool - centres[label]
        y = normals @ offsets.mT + apart.unsqueeze(-1) / 2
        y = y - rounding(1, pool.shape[-1]) * (length(offsets).amax() + apart.unsqueeze(-1))
        row = torch.stack([unit * y.mean(1), unit * (y.amax(1) - y.amin(1)), least_log_moment(y)])
        row[:, label] = row.new_tensor([torch.inf, 0.0, -torch.inf])
        rows.append(row.cpu())
    gap, width, log_moment = torch.stack(rows, dim=1)
    return Cells(gap, width, log_moment, tuple(measure_pool(pool) for pool in pools))


def least_log_moment(y: Float64[Tensor, "other item"]) -> Float64[Tensor, " other"]:
    r"""Return $\min_{\theta \ge 0} \log \overline{e^{-\theta y}}$, very low if all y are above 0.

    The function is convex, so $\theta$ is found by halving an interval of its logarithm, where
    the slope changes sign. Any $\theta$ gives a bound, so it need not be the best.
    """
    largest = y.abs().amax(1, keepdim=True)
    y = y / largest.masked_fill(largest == 0, 1.0)
    low, high = (torch.full_like(largest, exponent) for exponent in THETAS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_falling = (torch.softmax(-torch.exp2(middle) * y, 1) * y).sum(1, keepdim=True) > 0
        low, high = torch.where(is_falling, middle, low), torch.where(is_falling, high, middle)
    moment = torch.logsumexp(-torch.exp2(low) * y, 1) - math.log(y.shape[1])
    return moment.clamp(max=0)


def relative_to_gallery(
    gallery: Points, pools: Sequence[Points]
) -> tuple[Float64[Tensor, "label dim"], list[Float64[Tensor, "item dim"]], float]:
    """Check gallery and pools; return them relative to the first centroid, and their unit."""
    centres = to_points(gallery, "gallery")
    items = [to_points(pool, f"pool {label}") for label, pool in enumerate(pools)]
    if centres.ndim != 2 or len(centres) < 2 or len(centres) != len(items):
        raise InputError(
            f"A gallery must be [labels, dimensions] with a pool for each of two or more labels; "
            f"found shape {tuple(centres.shape)} and {len(items)} pools."
        )
    for label, pool in enumerate(items):
        if pool.ndim != 2 or pool.shape[1] != centres.shape[1]:
            raise InputError(
                f"Pool {label} must be [items, {centres.shape[1]}], as the gallery; found shape "
                f"{tuple(pool.shape)}."
            )
    unit = power_of_two(torch.stack([x.abs().amax() for x in (centres, *items)]).amax())
    origin = centres[:1] / unit
    return centres / unit - origin, [pool / unit - origin for pool in items], float(unit)
