"""Energy distance between two collections."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.set_distances import pairs
from setrep.set_distances.nearest import block_distance
from setrep.set_distances.pairs import Block, checked_pairs, pair_blocks, recomputed, take


def energy(x: CollectionBatch, y: CollectionBatch) -> Float[Tensor, " pair"]:
    r"""Energy distance of the uniform distributions on two collections (Székely and Rizzo 2013).

    $$ d(X, Y) = \frac{2}{nm} \sum_{ij} \|x_i - y_j\| - \frac{1}{n^2} \sum_{ij} \|x_i - x_j\|
                 - \frac{1}{m^2} \sum_{ij} \|y_i - y_j\| $$

    The V-statistic: items are compared with themselves, too. It is not negative, and its square
    root, which is not taken here, is a metric on the distributions.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    between, within_x, within_y = (mean_distance(a, b) for a, b in ((x, y), (x, x), (y, y)))
    return (2 * between - within_x - within_y).clamp(min=0)  # rounding may leave it below


def mean_distance(x: CollectionBatch, y: CollectionBatch) -> Float[Tensor, " pair"]:
    """Average the distances between the items of each pair of collections."""
    total = x.values.new_zeros(len(x))
    is_large = int((x.sizes * y.sizes).sum()) > pairs.MAX_ELEMENTS
    for block in pair_blocks(x, y):
        sums = recomputed(partial(_sums, block), x, y, is_large)
        total = total.index_add(0, block.pair, sums)
    return total / x.sizes / y.sizes


def _sums(block: Block, x: CollectionBatch, y: CollectionBatch) -> Float[Tensor, " row"]:
    distance = block_distance(take(x.values, block.x), take(y.values, block.y))
    columns = torch.arange(distance.shape[2], device=distance.device)
    rows = torch.arange(distance.shape[1], device=distance.device)
    distance = distance.masked_fill((columns >= block.y_sizes.unsqueeze(1)).unsqueeze(1), 0.0)
    sums = distance.sum(dim=2).masked_fill(rows >= block.x_sizes.unsqueeze(1), 0.0)
    return sums.sum(dim=1)
