"""How deep the pools of labels lie in the Voronoi cells of the centroids of a gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float64, Int64
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
    pools: tuple[Float64[Tensor, "item dim"], ...] = field(repr=False)

    @cached_property
    def moments(self) -> tuple[PoolMoments, ...]:
        """What R1 needs of the pools, found when asked for: it takes all distances of a pool."""
        return tuple(measure_pool(pool) for pool in self.pools)


def measure_cells(
    gallery: Points,
    pools: Sequence[Points],
    labels: Sequence[int] | None = None,
    *,
    allowance: float = 0.0,
) -> Cells:
    """Measure where the pools lie: `gallery` `[labels, dimensions]`, a pool of items for each.

    A gallery may hold several centroids of a label: `labels` then says which pool is of the label
    of each. The first of a label stands for it: a query is right if it is nearer to that one than
    to any of another label, so that the others can only help.

    Twice what rounding may add to a distance from a plane is taken off it. `measure_errors` takes
    off half of that, so that each error that it finds is one for the bounds as well. `allowance` is
    a distance that the centroid of a query may be off by otherwise, and is taken off, too.

    Raises:
        InputError: an input is empty, not finite or not numeric, there are fewer than two labels,
            or the shapes do not fit.
    """
    centres, items, of, unit = to_gallery(gallery, pools, labels)
    itself = row_of_label(of, len(items))
    rows = []
    for label, pool in enumerate(items):
        offsets = pool / unit - centres[itself[label]] / unit
        lost = 2 * rounding(*offsets.shape)
        is_other = (of != label).to(pool.device)
        y = depths(offsets, length(offsets), centres / unit, itself[label], lost)[is_other]
        y = y - allowance / unit
        row = y.new_tensor([torch.inf, 0.0, -torch.inf]).unsqueeze(1).repeat(1, len(centres))
        row[:, is_other] = torch.stack(
            [unit * y.mean(1), unit * (y.amax(1) - y.amin(1)), least_log_moment(y)]
        )
        rows.append(row.cpu())
    gap, width, log_moment = torch.stack(rows, dim=1)
    return Cells(gap, width, log_moment, items)


def depths(
    offsets: Float64[Tensor, "point dim"],
    reach: Float64[Tensor, " point"],
    centres: Float64[Tensor, "label dim"],
    label: int,
    lost: float,
) -> Float64[Tensor, "label point"]:
    r"""Return $y_l$ of points relative to their own centroid, less what rounding may have added.

    That is `lost` times the distance of the centroids and `reach`: the length of an item's offset,
    and of a mean of items the mean of their lengths. So what is taken off a query is the mean of
    what is taken off its items. Towards the centroid of row `label` itself it is inf.
    """
    to_others = centres[label] - centres
    apart = length(to_others).unsqueeze(-1)
    normals = to_others / apart.masked_fill(apart == 0, 1.0)
    y = normals @ offsets.mT + apart / 2 - lost * (reach + apart)
    y[label] = torch.inf
    return y


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


def row_of_label(labels: Int64[Tensor, " row"], num_labels: int) -> list[int]:
    """Return the first row of the gallery of each label."""
    return [int((labels == label).nonzero()[0]) for label in range(num_labels)]


def to_gallery(
    gallery: Points, pools: Sequence[Points], labels: Sequence[int] | None = None
) -> tuple[
    Float64[Tensor, "row dim"],
    tuple[Float64[Tensor, "item dim"], ...],
    Int64[Tensor, " row"],
    float,
]:
    """Check gallery, pools and labels; add a power of two in which squares stay finite."""
    centres = to_points(gallery, "gallery")
    items = tuple(to_points(pool, f"pool {label}") for label, pool in enumerate(pools))
    of = torch.as_tensor(range(len(centres)) if labels is None else labels, dtype=torch.int64)
    if centres.ndim != 2 or len(items) < 2 or of.shape != centres.shape[:1]:
        raise InputError(
            f"A gallery must be [labels, dimensions] with a pool for each of two or more labels; "
            f"found shape {tuple(centres.shape)}, {len(items)} pools and {len(of)} labels."
        )
    if sorted(set(of.tolist())) != list(range(len(items))):
        raise InputError(
            f"Each of {len(items)} pools needs a centroid of its label; found centroids of labels "
            f"{sorted(set(of.tolist()))}."
        )
    for label, pool in enumerate(items):
        if pool.ndim != 2 or pool.shape[1] != centres.shape[1]:
            raise InputError(
                f"Pool {label} must be [items, {centres.shape[1]}], as the gallery; found shape "
                f"{tuple(pool.shape)}."
            )
    unit = power_of_two(torch.stack([x.abs().amax() for x in (centres, *items)]).amax())
    return centres, items, of, float(unit)
