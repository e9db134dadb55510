"""The nearest item of the other collection, for each item of pairs of collections."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.functional import segment_sum
from setrep.set_distances.pairs import pair_blocks, take

Compare = Callable[[Tensor, Tensor], Tensor]


def block_distance(
    x: Float[Tensor, "row n dim"], y: Float[Tensor, "row m dim"]
) -> Float[Tensor, "row n m"]:
    """Return Euclidean distances from direct differences, as `pairwise_distance` does."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def nearest(
    x: CollectionBatch, y: CollectionBatch, compare: Compare = block_distance
) -> Int64[Tensor, " x_item"]:
    """Return for each item of `x` where in `y.values` the item of least `compare` is.

    Of equal ones it is the first. Only the search is blockwise: what is then computed of each item
    and its nearest one takes memory in proportion to the items, gradients included.
    """
    found = torch.empty_like(x.index)
    for block in pair_blocks(x, y):
        compared = compare(take(x.values, block.x), take(y.values, block.y))
        found[block.x] = block.y.gather(1, compared.min(dim=2).indices)
    return found


@torch.no_grad()
def mutual_nearest(
    x: CollectionBatch, y: CollectionBatch
) -> tuple[Int64[Tensor, " x_item"], Int64[Tensor, " y_item"]]:
    """Return `nearest(x, y)` and `nearest(y, x)`, computing each distance once."""
    x_to_y = torch.empty_like(x.index)
    y_to_x = x.offsets[y.index]  # what an item at infinite distance from all keeps
    least = x.values.new_full((len(y.values),), torch.inf)
    for block in pair_blocks(x, y):
        distance = block_distance(take(x.values, block.x), take(y.values, block.y))
        x_to_y[block.x] = block.y.gather(1, distance.min(dim=2).indices)
        # A pair in several pieces comes by several times; the least distance stays.
        found, where = distance.min(dim=1)
        before = least[block.y]
        is_kept = before <= found
        least[block.y] = torch.where(is_kept, before, found)
        y_to_x[block.y] = torch.where(is_kept, y_to_x[block.y], block.x.gather(1, where))
    return x_to_y, y_to_x


def distance_to(
    x: CollectionBatch, y: CollectionBatch, positions: Int64[Tensor, " x_item"]
) -> Float[Tensor, " x_item"]:
    """Return each item's distance to the item of `y` at its position; gradient 0 at distance 0."""
    difference = x.values - y.values.index_select(0, positions)
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance


def mean_over_items(
    values: Float[Tensor, " item"], batch: CollectionBatch
) -> Float[Tensor, " collection"]:
    """Average one number for each item over each collection."""
    return segment_sum(values.unsqueeze(1), batch).squeeze(1) / batch.sizes
