"""Sliced Wasserstein distance between two collections."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.set_distances import pairs
from setrep.set_distances.centroid import from_first_item
from setrep.set_distances.pairs import checked_pairs, like_sizes, padded_positions, recomputed
from setrep.set_distances.transport import TransportPlan, check_order, root


def sliced_wasserstein(
    x: CollectionBatch, y: CollectionBatch, *, order: int = 1, num_slices: int = 64, seed: int = 0
) -> Float[Tensor, " pair"]:
    r"""Mean Wasserstein distance of projections onto random lines (Bonneel et al. 2015).

    $$ \mathrm{SW}_p(X, Y) = \Big( \frac{1}{S} \sum_{s=1}^{S}
       W_p^p\big( \langle u_s, X \rangle, \langle u_s, Y \rangle \big) \Big)^{1/p} $$

    `order` is $p$, 1 or 2. The same seed gives the same lines, those of `directions`. On a line
    the best plan keeps the order of the items, so each term is exact for sizes that differ, too.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`, the order is neither
            1 nor 2, or there is no slice.
    """
    check_order(order)
    if num_slices < 1:
        raise InputError(f"The sliced distance needs at least one slice, not {num_slices}.")
    x, y = from_first_item(*checked_pairs(x, y))
    lines = directions(x.values.shape[1], num_slices, seed).to(x.values)
    plan = monotone_plan(x, y)
    parts = torch.split(lines, max(1, pairs.MAX_ELEMENTS // max(1, len(plan.mass))), dim=1)
    total = x.values.new_zeros(len(x))
    for part in parts:
        total = total + recomputed(partial(_cost, part, plan, order), x, y, len(parts) > 1)
    return root(total / num_slices, order)


def directions(dim: int, num_slices: int, seed: int) -> Float64[Tensor, "dim slice"]:
    """Draw unit vectors uniformly from the sphere, one in each column."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(num_slices, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1).T


def monotone_plan(x: CollectionBatch, y: CollectionBatch) -> TransportPlan:
    """Return the plan that keeps the order, for collections that are sorted along a line.

    Item i of n covers the stretch from im to (i + 1)m of a whole of nm, item j of m that from jn
    to (j + 1)n; what two stretches share is moved. Whole numbers make it exact.
    """
    n, m = x.sizes[x.index], y.sizes[x.index]
    i = torch.arange(len(n), device=n.device) - x.offsets[x.index]
    first, last = i * m // n, ((i + 1) * m - 1) // n
    counts = last - first + 1
    items = torch.arange(len(n), device=n.device).repeat_interleave(counts)
    i, n, m, pair = i[items], n[items], m[items], x.index[items]
    j = (
        first[items]
        + torch.arange(len(items), device=n.device)
        - (counts.cumsum(0) - counts)[items]
    )
    shared = torch.minimum((i + 1) * m, (j + 1) * n) - torch.maximum(i * m, j * n)
    return TransportPlan(pair, items, y.offsets[pair] + j, shared.double() / (n * m))


def _cost(
    lines: Float[Tensor, "dim slice"],
    plan: TransportPlan,
    order: int,
    x: CollectionBatch,
    y: CollectionBatch,
) -> Float[Tensor, " pair"]:
    """Add up the cost of the plan over some lines."""
    with torch.autocast(lines.device.type, enabled=False):
        on_lines = [c.values @ lines for c in (x, y)]
    x_line, y_line = (
        line.gather(0, sorted_positions(line.detach(), c))
        for line, c in zip(on_lines, (x, y), strict=True)
    )
    moved = x_line.index_select(0, plan.x_items) - y_line.index_select(0, plan.y_items)
    cost = plan.mass.to(moved.dtype) * (moved.abs() if order == 1 else moved.square()).sum(dim=1)
    return cost.new_zeros(len(x)).index_add(0, plan.pair, cost)


def sorted_positions(
    values: Float[Tensor, "item slice"], batch: CollectionBatch
) -> Int64[Tensor, "item slice"]:
    """Return where the items of each collection are, in rising order of each slice."""
    order = torch.empty_like(values, dtype=torch.int64)
    for group in like_sizes(batch.sizes):
        sizes = batch.sizes[group]
        positions = padded_positions(batch.offsets[group], sizes)
        is_item = torch.arange(positions.shape[1], device=sizes.device) < sizes.unsqueeze(1)
        # NaN comes last, and padding after the NaN of items.
        padded = values[positions].masked_fill(~is_item.unsqueeze(2), torch.nan)
        ranked = padded.argsort(dim=1, stable=True)
        placed = positions.unsqueeze(2).expand_as(ranked).gather(1, ranked)
        order[positions[is_item]] = placed[is_item]
    return order
