"""The nearest points of two convex hulls, for many pairs of hulls at a time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from setrep.bounds.triples import length

Items = Float64[Tensor, "pair n dim"]
Weights = Float64[Tensor, "pair n"]
Vector = Float64[Tensor, "pair dim"]
Chosen = Bool[Tensor, "pair n"]
# Relative to the longest vector, anything shorter is taken for rounding.
ROUNDING = 1e-14
# Items are added that are at least this far behind the face, relative to the one furthest behind.
AT_ONCE = 0.5
STEPS_PER_ITEM = 5
TINY = torch.finfo(torch.float64).tiny


def nearest_points(points: Items, num_first: int) -> tuple[Weights, Vector]:
    r"""Return weights of the nearest points and the vector to the first hull from the second.

    The first hull is that of the first `num_first` items, the second that of the others, and

    $$ \min_{\lambda, \mu} \Big\| \sum_i \lambda_i x_i - \sum_k \mu_k w_k \Big\| $$

    is solved by active sets (Wolfe 1976), on two simplices at once: go to the nearest points of
    the affine hulls of the active items. Where that leaves a hull, stop at its border and drop the
    items without weight; where it does not, add items that are behind the face. The distance falls
    from face to face, so none comes back. Weights sum to 1 but for rounding. Nothing here is a
    bound: the caller measures what rounding, or too few steps, left undone.
    """
    num_items = points.shape[1]
    is_first = torch.arange(num_items) < num_first
    signed = torch.where(is_first, 1.0, -1.0).to(points).unsqueeze(-1) * points
    weights = nearest_items(points, num_first)
    active = weights > 0
    vector = torch.zeros_like(points[:, 0])
    left = torch.arange(len(points))
    for _ in range(STEPS_PER_ITEM * (num_items + 1)):
        if len(left) == 0:
            break
        x, before, items = signed[left], weights[left], active[left]
        base = heaviest(before, is_first)
        target, normal = to_face(x, before, items, base)
        after, kept = towards(before, target, items)
        is_reached = (kept == items).all(-1, keepdim=True)
        added = behind(x, normal, base, items) & is_reached
        weights[left], active[left], vector[left] = after, kept | added, normal
        left = left[~is_reached.squeeze(-1) | added.any(-1)]
    return weights, vector


def nearest_items(points: Items, num_first: int) -> Weights:
    """Return weights of the two items, one of each hull, that are nearest to each other."""
    apart = torch.cdist(points[:, :num_first], points[:, num_first:])
    place = apart.flatten(1).argmin(-1)
    num_second = apart.shape[-1]
    chosen = torch.stack([place // num_second, num_first + place % num_second], dim=-1)
    return torch.zeros_like(points[..., 0]).scatter(-1, chosen, 1.0)


def heaviest(weights: Weights, is_first: Bool[Tensor, " n"]) -> Int64[Tensor, "pair n"]:
    """Return for each item the heaviest one on its side."""
    of_first = weights.masked_fill(~is_first, -1.0).argmax(-1, keepdim=True)
    of_second = weights.masked_fill(is_first, -1.0).argmax(-1, keepdim=True)
    return torch.where(is_first, of_first, of_second)


def to_face(
    signed: Items, weights: Weights, active: Chosen, base: Int64[Tensor, "pair n"]
) -> tuple[Weights, Vector]:
    """Return weights of the nearest points of the affine hulls, and the vector between them."""
    edges = signed - signed.gather(1, base.unsqueeze(-1).expand_as(signed))
    lengths = length(edges)
    is_edge = active & (lengths > 0)
    lengths = lengths.masked_fill(~is_edge, 1.0)
    edges = is_edge.unsqueeze(-1) * edges / lengths.unsqueeze(-1)
    vector = torch.einsum("bn,bnd->bd", weights, signed)
    change = torch.zeros_like(weights)
    # The second round makes a vector far shorter than the edges orthogonal to them, too.
    for _ in range(2):
        step = torch.linalg.lstsq(edges.mT, -vector.unsqueeze(-1), driver="gelsy").solution
        vector = vector + (edges.mT @ step).squeeze(-1)
        change = change + step.squeeze(-1)
    change = change.masked_fill(~is_edge, 0.0) / lengths
    given_by_base = torch.zeros_like(change).scatter_add(1, base, change)
    return weights + change - given_by_base, vector


def towards(weights: Weights, target: Weights, active: Chosen) -> tuple[Weights, Chosen]:
    """Go towards the target until a weight is 0; return the weights and which items remain."""
    is_leaving = (target <= 0) & active
    share = weights / (weights - target).clamp(min=TINY)
    share = share.masked_fill(~is_leaving, 1.0)
    least = share.amin(-1, keepdim=True)
    kept = active & ~(is_leaving & (share <= least))
    return torch.lerp(weights, target, least).clamp(min=0) * kept, kept


def behind(signed: Items, normal: Vector, base: Int64[Tensor, "pair n"], active: Chosen) -> Chosen:
    """Return the items that are most behind the face, if any is."""
    along = torch.einsum("bnd,bd->bn", signed, normal)
    depth = (along.gather(1, base) - along).masked_fill(active, 0.0)
    rounding = ROUNDING * length(signed).amax(-1, keepdim=True)
    size = length(normal).unsqueeze(-1)
    least = torch.maximum(AT_ONCE * depth.amax(-1, keepdim=True), rounding * size)
    return (depth >= least) & (size > rounding)
