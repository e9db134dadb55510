r"""Lower bounds on distances between collections of different labels.

In the notation of the upper bounds, with $D_i = \max_j d(x_i, x_j)$ over the anchor's own
collection, $D'_k$ likewise in $W$, and the two-sided margin $m$ of `inter_class_margin`, or any
number at least that. One-sided margins never suffice: three copies of 0 in $A$ and a triangle
about 0 in $W$ have a negative one, and one centroid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import LowerBound
from setrep.bounds.margins import Margin, given_or, inter_class_margin
from setrep.bounds.points import rounding
from setrep.bounds.triples import Triples
from setrep.errors import InputError

LARGEST_SQUARED = 1e150  # beyond it squares leave float64


def lb1(triples: Triples, margin: Margin = None) -> LowerBound:
    r"""Lower bound on the distance of centroids, for any sign of the margin (T8).

    $$ \|c_1 - c_3\|^2 \ge \overline{(\max(D_i, D'_k) - m)_+^2} - V_1 - V_3 $$

    Of a negative number it is 0, which says nothing.
    """
    pairs = torch.maximum(reach_a(triples).unsqueeze(-1), reach_w(triples).unsqueeze(-2))
    unit = triples.unit
    m = given_or(triples, margin, inter_class_margin)
    far = (pairs - m[..., None, None]).clamp(min=0) / unit[..., None, None]
    v1, v3 = triples.spread_a / unit, triples.spread_w / unit
    squared = far.square().mean((-2, -1)) - v1.square() - v3.square()
    return LowerBound(triples.distance_other, root(triples, squared), triples.scale)


def lb0(triples: Triples, margin: Margin = None) -> LowerBound:
    r"""Lower bound from margin and reaches alone (T8), never above `lb1`.

    $$ \|c_1 - c_3\|^2 \ge
       \tfrac12 \overline{(D_i - m)_+^2 - (1 - \tfrac{1}{n_1}) D_i^2}
       + \tfrac12 \overline{(D'_k - m)_+^2 - (1 - \tfrac{1}{n_3}) D_k'^2} $$

    With $m = -\gamma < 0$ it is at least $\sqrt{\gamma^2 + \gamma (\bar D + \bar D')}$.
    """
    m = given_or(triples, margin, inter_class_margin)
    unit = triples.unit
    squared = torch.zeros_like(m)
    for reach in (reach_a(triples), reach_w(triples)):
        far = (reach - m.unsqueeze(-1)).clamp(min=0) / unit.unsqueeze(-1)
        own = (1 - 1 / reach.shape[-1]) * (reach / unit.unsqueeze(-1)).square()
        squared = squared + (far.square() - own).mean(-1) / 2
    return LowerBound(triples.distance_other, root(triples, squared), triples.scale)


def margin_hull(triples: Triples, margin: Margin = None) -> LowerBound:
    r"""Lower bound for every pair of points of the two convex hulls, so for centroids (T9).

    $$ \operatorname{dist}(\operatorname{conv} A, \operatorname{conv} W) \ge
       \sqrt{\gamma^2 + \gamma (\min_i D_i + \min_k D'_k)} \ge \gamma, \quad m = -\gamma < 0 $$

    With a margin of 0 or more it is 0, which says nothing. The value is the distance of centroids;
    `hull_distance` gives that of the hulls.
    """
    gamma = (-given_or(triples, margin, inter_class_margin)).clamp(min=0) / triples.unit
    reach = (reach_a(triples).amin(-1) + reach_w(triples).amin(-1)) / triples.unit
    bound = triples.unit * (gamma.square() + gamma * reach).sqrt()
    return LowerBound(triples.distance_other, bound, triples.scale)


def score_gap(triples: Triples) -> LowerBound:
    r"""Lower bound on the gap between variance-corrected scores of a query A (T11), in squares.

    $$ (\|c_1 - c_3\|^2 + V_3) - (\|c_1 - c_2\|^2 + V_2)
       \ge \overline{\delta_i^2 - \max_j d(x_i, z_j)^2} $$

    Above 0 the collection of its own label wins by that score; plain distances of centroids may
    still rank the other first, unless the bound is above $V_3 - V_2$.

    Raises:
        InputError: distances are so large that their squares leave float64.
    """
    if bool((triples.scale > LARGEST_SQUARED).any()):
        raise InputError(
            f"Distances beyond {LARGEST_SQUARED:.0e} have no squares in float64; "
            f"found {float(triples.scale.max()):.3g}. Divide all points by one number."
        )
    unit = triples.unit
    value = mean_square(triples.a_w, unit) - mean_square(triples.a_b, unit)
    squares = (triples.nearest_other / unit.unsqueeze(-1)).square()
    bound = (squares - (triples.a_b.amax(-1) / unit.unsqueeze(-1)).square()).mean(-1)
    square = unit.square()
    return LowerBound(square * value, square * bound, triples.scale.square())


def reach_a(triples: Triples) -> Float64[Tensor, "*triple n1"]:
    """Return $D_i$, the largest distance of each item of A within A."""
    return triples.a_a.amax(-1)


def reach_w(triples: Triples) -> Float64[Tensor, "*triple n3"]:
    """Return $D'_k$, the largest distance of each item of W within W."""
    return triples.w_w.amax(-1)


def mean_square(
    x: Float64[Tensor, "*triple n m"], unit: Float64[Tensor, "*triple"]
) -> Float64[Tensor, "*triple"]:
    """Return the mean square of distances in units of `unit`."""
    return (x / unit[..., None, None]).square().mean((-2, -1))


def root(triples: Triples, squared: Float64[Tensor, "*triple"]) -> Float64[Tensor, "*triple"]:
    """Return the root of a lower bound on a square, less what rounding may have added."""
    items = triples.a.shape[-2] + triples.w.shape[-2]
    reach = torch.maximum(triples.scale, triples.w_w.amax((-2, -1)))
    reach = torch.maximum(reach, triples.a_a.amax((-2, -1))) / triples.unit
    error = rounding(items, triples.a.shape[-1]) * reach.square()
    return triples.unit * (squared - error).clamp(min=0).sqrt()
