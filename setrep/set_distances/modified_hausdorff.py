"""Modified Hausdorff distance between two collections."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.set_distances.nearest import distance_to, mean_over_items, mutual_nearest
from setrep.set_distances.pairs import checked_pairs


def modified_hausdorff(x: CollectionBatch, y: CollectionBatch) -> Float[Tensor, " pair"]:
    r"""Larger of the two mean nearest-neighbour distances (Dubuisson and Jain 1994, d22).

    $$ d(X, Y) = \max\Big( \frac{1}{n} \sum_i \min_j \|x_i - y_j\|,\;
                 \frac{1}{m} \sum_j \min_i \|x_i - y_j\| \Big) $$

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    x_to_y, y_to_x = mutual_nearest(x, y)
    return torch.maximum(
        mean_over_items(distance_to(x, y, x_to_y), x), mean_over_items(distance_to(y, x, y_to_x), y)
    )
