"""How often the nearest gallery centroid can be that of a wrong label, before any query is made.

The gallery is fixed: a centroid for each label, or several. A query is the centroid of n items
drawn at random from the pool of its label, which holds no item of the centroid that stands for it.
It is an error if the centroid of another label is as near as that one. Every bound is on the
probability of that draw from that pool, and says nothing about items from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from setrep.bounds.cells import Cells, measure_cells
from setrep.bounds.change_factor import Sizes, change_factor, to_sizes
from setrep.bounds.points import Points, to_numbers, to_points
from setrep.bounds.sampling import bounded_differences, expected_distance, tail_probability
from setrep.bounds.triples import length
from setrep.errors import InputError

PerLabel = Float64[Tensor, "label size"]


def triangle(cells: Cells, n: Sizes, *, with_replacement: bool = False) -> PerLabel:
    r"""Bound the probability of error by a ball inside the Voronoi cell (R1, gallery fixed).

    $$ P(\text{error}) \le P\big(\|c_Q - \mu_k\| \ge \min_l g_l\big) \le
       e^{-2 t^2 / C^2}, \qquad t = \min_l g_l - \sqrt{\mathbb{E} \|c_Q - \mu_k\|^2}, $$
    with $C$ of `change_factor`, and 1 for $t \le 0$. The number of labels does not enter.

    Raises:
        InputError: a size is no whole number of at least 1, or larger than a pool.
    """
    nearest = cells.gap.amin(1)
    bounds = []
    for gap, pool in zip(nearest, cells.moments, strict=True):
        excess = gap - expected_distance(pool, n, with_replacement=with_replacement)
        bounds.append(tail_probability(pool, excess, n, with_replacement=with_replacement))
    return torch.stack(bounds).reshape(len(bounds), -1)


def half_space(cells: Cells, n: Sizes, *, with_replacement: bool = False) -> PerLabel:
    r"""Bound the probability of error by gaps and widths of the distances from planes (R2).

    $$ P(\text{error}) \le \sum_{l \ne k} \exp \Big( - \frac{2 g_l^2}{w_l^2 F} \Big), $$
    with $F = \min \{\kappa(N, n), \kappa(N, N - n)\} / n^2$ of `change_factor`, $1/n$ with
    replacement. At most 1, and 1 where some $g_l \le 0$.

    Raises:
        InputError: as `triangle`.
    """
    is_inside = cells.gap > 0
    ratio = cells.gap / cells.width.masked_fill(~is_inside, 1.0)
    bounds = []
    for inside, squared, pool in zip(is_inside, ratio.square(), cells.pools, strict=True):
        factor = change_factor(len(pool), n, with_replacement=with_replacement).reshape(-1)
        exponents = torch.where(inside.unsqueeze(1), -2 * squared.unsqueeze(1) / factor, 0.0)
        bounds.append(torch.logsumexp(exponents, 0).clamp(max=0).exp())
    return torch.stack(bounds)


def chernoff(cells: Cells, n: Sizes) -> PerLabel:
    r"""Bound the probability of error by exponential moments of the distances from planes (R3).

    $$ P(\text{error}) \le \sum_{l \ne k} \min_{\theta \ge 0}
       \Big( \overline{e^{-\theta y_l}} \Big)^n, $$
    with and without replacement. At most 1.

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    size = to_sizes(0, n, None, with_replacement=True)[0].reshape(-1)
    sums = [torch.logsumexp(row.unsqueeze(-1) * size, 0) for row in cells.log_moment]
    return torch.stack(sums).clamp(max=0).exp()


def triangle_pairs(
    means: Points, query_radius: Points, gallery_radius: Points
) -> Bool[Tensor, "label other"]:
    r"""Return which pairs of labels are told apart by the distance of their means (R1).

    $$ \|\mu_k - \mu_l\| > 2 \varepsilon_Q + \varepsilon_k + \varepsilon_l $$
    where a query of k is within $\varepsilon_Q$ of $\mu_k$, and each centroid of the gallery
    within $\varepsilon$ of the mean of its label. For a gallery that is drawn, too: with each
    radius kept with probability $1 - \delta/(K + 1)$, the nearest of K centroids is right with
    probability $1 - \delta$ if all pairs (k, l) are told apart. A label and itself always are.

    Raises:
        InputError: means are no `[labels, dimensions]`, or radii not one for each label.
    """
    points = to_points(means, "means")
    radii = [to_numbers(query_radius, "query_radius"), to_numbers(gallery_radius, "gallery_radius")]
    if points.ndim != 2 or any(radius.shape != points.shape[:1] for radius in radii):
        raise InputError(
            f"Means must be [labels, dimensions], with one radius for each label; found shapes "
            f"{tuple(points.shape)}, {tuple(radii[0].shape)} and {tuple(radii[1].shape)}."
        )
    apart = length(points.unsqueeze(1) - points)
    needed = (2 * radii[0] + radii[1]).unsqueeze(1) + radii[1]
    is_itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    return (apart > needed) | is_itself


@dataclass(frozen=True, eq=False)
class RetrievalCertificate:
    """Bounds on the probability of error, for each label and size of query.

    `triangle` and `pairs` take all distances of the items of a pool, once they are asked for.
    """

    sizes: Int64[Tensor, " size"]
    half_space: PerLabel
    chernoff: PerLabel
    cells: Cells = field(repr=False)
    with_replacement: bool

    @property
    def bound(self) -> PerLabel:
        """The smaller of `half_space` and `chernoff`."""
        return torch.minimum(self.half_space, self.chernoff)

    @property
    def delta(self) -> Float64[Tensor, " size"]:
        """The largest bound of all labels."""
        return self.bound.amax(0)

    @cached_property
    def triangle(self) -> PerLabel:
        """The bound by a ball inside the Voronoi cell (R1)."""
        return triangle(self.cells, self.sizes, with_replacement=self.with_replacement)

    def pairs(self, level: float = 0.05) -> Bool[Tensor, "size label other"]:
        r"""Return which labels no query of another is mistaken for, but with probability `level`.

        A pair (k, l) is certified if $g_l$ is above the distance from its mean that the centroid
        of a query keeps with probability 1 - level (`bounded_differences`). One draw decides all
        pairs of k, so with all of them certified its error is at most the level.

        Raises:
            InputError: the level is not between 0 and 1.
        """
        kept = [
            bounded_differences(
                pool, self.sizes, delta=level, with_replacement=self.with_replacement
            )
            for pool in self.cells.moments
        ]
        return self.cells.gap > torch.stack(kept, dim=1).unsqueeze(-1)

    def smallest_size(self, delta: float) -> int | None:
        """Return the smallest of the sizes that leaves every label an error of at most delta."""
        found = self.sizes[self.delta <= delta]
        return int(found.min()) if len(found) else None


def certify_retrieval(
    gallery: Points,
    pools: Sequence[Points],
    sizes: Sequence[int],
    *,
    with_replacement: bool = False,
    labels: Sequence[int] | None = None,
    allowance: float = 0.0,
) -> RetrievalCertificate:
    """Bound the error of queries drawn from each pool against a fixed gallery (R1 to R3).

    A gallery may hold several centroids of a label, and centroids of queries may be off by a
    distance `allowance`, see `measure_cells`.

    Raises:
        InputError: as `measure_cells` and `triangle`.
    """
    cells = measure_cells(gallery, pools, labels, allowance=allowance)
    smallest = min(len(pool) for pool in cells.pools)
    n = to_sizes(smallest, sizes, None, with_replacement)[0].long().reshape(-1)
    return RetrievalCertificate(
        sizes=n,
        half_space=half_space(cells, n, with_replacement=with_replacement),
        chernoff=chernoff(cells, n),
        cells=cells,
        with_replacement=with_replacement,
    )
