r"""The distance of two convex hulls, between two numbers that anyone can recompute.

Every embedding in the convex hull of its items, such as a weighted mean, keeps at least this
distance between two labels, whatever its weights (T10). Weights prove an upper bound on it, a
direction proves a lower one; how they were found does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.nearest_points import nearest_points
from setrep.bounds.points import EPSILON, Points, power_of_two, to_numbers, to_points, to_weights
from setrep.bounds.triples import length
from setrep.errors import InputError

Distance = Float64[Tensor, "*pair"]
Items = Float64[Tensor, "*pair n dim"]
NORM_TOLERANCE = 1e-6  # sums of weights and lengths of directions kept in float32 are off by less
NUMBERS_AT_ONCE = 2**22  # of the points of all pairs that are solved together


@dataclass(frozen=True, eq=False)
class HullCertificate:
    """Bounds on the distance of two convex hulls, and what proves them.

    `direction` is a unit vector from W to A, or zero where none proves a distance above 0. Weights
    are those of the points found nearest to each other.
    """

    lower: Distance
    upper: Distance
    direction: Float64[Tensor, "*pair dim"]
    weights_a: Float64[Tensor, "*pair n1"]
    weights_w: Float64[Tensor, "*pair n3"]

    @property
    def gap(self) -> Distance:
        """How far apart the two bounds are."""
        return self.upper - self.lower

    def check(self, a: Points, w: Points) -> HullCertificate:
        """Return the certificate with the bounds that the points prove; see `hull_bounds`.

        Raises:
            InputError: weights or direction are none, or `lower` or `upper` claims more than is
                proved, beyond what the order of a sum may change.
        """
        lower, upper = hull_bounds(a, w, self.weights_a, self.weights_w, self.direction)
        if not self.lower.shape == self.upper.shape == lower.shape:
            raise InputError(
                f"A certificate of {tuple(self.lower.shape)} lower and {tuple(self.upper.shape)} "
                f"upper bounds for {tuple(lower.shape)} pairs."
            )
        order = rounding_of_order(a, w)
        is_proved = (self.lower <= lower + order) & (self.upper >= upper - order)
        if not bool(is_proved.all()):  # false for NaN, too
            raise InputError(
                f"{int((~is_proved).sum())} of {is_proved.numel()} pairs claim a distance between "
                f"bounds that their weights and direction do not prove. Recompute them."
            )
        return replace(self, lower=lower, upper=upper)


def hull_distance(a: Points, w: Points) -> HullCertificate:
    r"""Bound the distance of the convex hulls of two collections from both sides (T10).

    $$ \max_{\|u\| = 1} \big( \min_i \langle u, x_i \rangle - \max_k \langle u, w_k \rangle \big)_+
       = \min_{\lambda, \mu} \Big\| \sum_i \lambda_i x_i - \sum_k \mu_k w_k \Big\| $$

    `a` `[.., n1, d]`, `w` `[.., n3, d]`; leading axes, the same in both, number the pairs. Pairs
    are solved in the span of their items, so the cost hardly grows with `d`. Both bounds hold
    however well that went; `gap` is how well.

    Raises:
        InputError: an input is empty, not finite, not numeric, or the shapes do not fit.
    """
    a, w = fitting_pairs(a, w)
    pairs = a.shape[:-2]
    flat_a, flat_w = a.reshape(-1, *a.shape[-2:]), w.reshape(-1, *w.shape[-2:])
    at_once = max(1, NUMBERS_AT_ONCE // (flat_a[0].numel() + flat_w[0].numel()))
    parts = [
        solve(x.cpu(), y.cpu())
        for x, y in zip(torch.split(flat_a, at_once), torch.split(flat_w, at_once), strict=True)
    ]
    joined = (torch.cat(tensors).to(a) for tensors in zip(*parts, strict=True))
    lower, upper, direction, weights_a, weights_w = (
        x.reshape((*pairs, *x.shape[1:])) for x in joined
    )
    return HullCertificate(lower, upper, direction, weights_a, weights_w)


def hull_bounds(
    a: Points, w: Points, weights_a: Points, weights_w: Points, direction: Points
) -> tuple[Distance, Distance]:
    r"""Return what any weights and direction prove of the distance of two hulls (T10).

    $$ \min_i \langle u, x_i \rangle - \max_k \langle u, w_k \rangle \le
       \operatorname{dist}(\operatorname{conv} A, \operatorname{conv} W) \le
       \Big\| \sum_i \lambda_i x_i - \sum_k \mu_k w_k \Big\| $$

    The lower bound is at least 0, and 0 for a direction of zero. Both are rounded outwards, so
    they hold for the numbers given, in exact arithmetic: with $R$ the largest distance from the
    first item of A, the left side is lowered by $(d + 4) \epsilon R$ and the right side raised by
    $(n_1 + n_3 + 4) \epsilon R$, and each by $(d + 4) \epsilon$ of itself.

    Raises:
        InputError: the points are as `hull_distance` refuses them, weights are not convex or a
            direction is neither of unit length nor zero.
    """
    a, w = fitting_pairs(a, w)
    share_a = to_weights(weights_a, a, "weights_a", NORM_TOLERANCE)
    share_w = to_weights(weights_w, w, "weights_w", NORM_TOLERANCE)
    u, size = unit_direction(direction, a)
    x, y, unit, reach = relative(a, w)
    lost = (a.shape[-1] + 4) * EPSILON
    apart = mean_of(share_a, x) - mean_of(share_w, y)
    items_lost = (x.shape[-2] + y.shape[-2] + 4) * EPSILON
    upper = length(apart) * (1 + lost) + items_lost * reach
    along_a, along_w = (torch.einsum("...nd,...d->...n", points, u) for points in (x, y))
    lower = along_a.amin(-1) - along_w.amax(-1) - lost * reach * size
    lower = (lower / size.masked_fill(size == 0, 1.0) * (1 - lost)).clamp(min=0)
    # Units are powers of two, so that only numbers too small for float64 are rounded here.
    lower = torch.nextafter(unit * lower, torch.zeros_like(lower))
    upper = torch.nextafter(unit * upper, torch.full_like(upper, torch.inf))
    return lower, upper.masked_fill(reach == 0, 0.0)


def solve(
    a: Float64[Tensor, "pair n1 dim"], w: Float64[Tensor, "pair n3 dim"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the fields of the certificates of pairs solved together."""
    x, y, _, _ = relative(a, w)
    basis, coordinates = torch.linalg.qr(torch.cat([x, y], dim=1).mT)
    weights, vector = nearest_points(coordinates.mT.contiguous(), a.shape[1])
    sides = weights[:, : a.shape[1]], weights[:, a.shape[1] :]
    weights_a, weights_w = (side / side.sum(-1, keepdim=True) for side in sides)
    direction = torch.einsum("bdk,bk->bd", basis, vector)
    size = length(direction).unsqueeze(-1)
    direction = direction / size.masked_fill(size == 0, 1.0)
    lower, upper = hull_bounds(a, w, weights_a, weights_w, direction)
    return lower, upper, direction * (lower > 0).unsqueeze(-1), weights_a, weights_w


def relative(a: Items, w: Items) -> tuple[Items, Items, Distance, Distance]:
    """Return points relative to the first of A, their unit, a power of two, and their reach.

    Coordinates are below 1 and, but for all points in one, some are at least 1/2. Each is right to
    a rounding of itself, whatever the offset.
    """
    origin = a[..., :1, :]
    x, y = a - origin, w - origin
    unit = power_of_two(torch.maximum(x.abs().amax((-2, -1)), y.abs().amax((-2, -1))))
    x, y = x / unit[..., None, None], y / unit[..., None, None]
    return x, y, unit, torch.maximum(length(x).amax(-1), length(y).amax(-1))


def rounding_of_order(a: Points, w: Points) -> Distance:
    """Return how far two computations of the bounds may be apart."""
    a, w = fitting_pairs(a, w)
    _, _, unit, reach = relative(a, w)
    return 4 * (a.shape[-1] + a.shape[-2] + w.shape[-2] + 4) * EPSILON * reach * unit


def mean_of(share: Float64[Tensor, "*pair n"], points: Items) -> Float64[Tensor, "*pair dim"]:
    """Return weighted means."""
    return torch.einsum("...n,...nd->...d", share, points)


def fitting_pairs(a: Points, w: Points) -> tuple[Items, Items]:
    """Check points of pairs of collections."""
    x, y = to_points(a, "a"), to_points(w, "w")
    if (*x.shape[:-2], x.shape[-1]) != (*y.shape[:-2], y.shape[-1]):
        raise InputError(
            f"a and w must agree in all but the number of items; found {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    return x, y


def unit_direction(
    direction: Points, points: Items
) -> tuple[Float64[Tensor, "*pair dim"], Distance]:
    """Check directions, and return them with their lengths."""
    found = to_numbers(direction, "direction")
    if found.shape != (*points.shape[:-2], points.shape[-1]):
        raise InputError(
            f"direction must be of shape {(*points.shape[:-2], points.shape[-1])}, one for each "
            f"pair; found {tuple(found.shape)}."
        )
    size = length(found)
    is_fit = ((size - 1).abs() <= NORM_TOLERANCE) | (found == 0).all(-1)
    if not bool(is_fit.all()):
        raise InputError(
            f"direction must be of length 1, or zero; found lengths from {float(size.min()):.9g} "
            f"to {float(size.max()):.9g}."
        )
    return found, size
