"""Distance between the means of two collections."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.functional import segment_sum
from setrep.set_distances.pairs import checked_pairs


def centroid(x: CollectionBatch, y: CollectionBatch) -> Float[Tensor, " pair"]:
    r"""Euclidean distance between the means of two collections (Karimov 2024).

    $$ d(X, Y) = \Big\| \frac{1}{n} \sum_i x_i - \frac{1}{m} \sum_j y_j \Big\| $$

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    x, y = from_first_item(x, y)
    x_mean, y_mean = (segment_sum(c.values, c) / c.sizes.unsqueeze(1) for c in (x, y))
    distance: Tensor = torch.linalg.vector_norm(x_mean - y_mean, dim=1)
    return distance


def from_first_item(
    x: CollectionBatch, y: CollectionBatch
) -> tuple[CollectionBatch, CollectionBatch]:
    """Move both collections of each pair so that the first item of `x` becomes the origin.

    Sums of items far from the origin lose the digits in which the items differ; differences of
    items that are near each other lose none. Distances and their gradients stay.
    """
    origins = x.values.detach()[x.offsets[:-1]]
    x_moved, y_moved = (c.with_values(c.values - origins[c.index]) for c in (x, y))
    return x_moved, y_moved
