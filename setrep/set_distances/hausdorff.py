"""Hausdorff distance between two collections."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.functional import segment_max
from setrep.set_distances.nearest import distance_to, mutual_nearest, nearest
from setrep.set_distances.pairs import checked_pairs


def hausdorff(
    x: CollectionBatch, y: CollectionBatch, *, directed: bool = False
) -> Float[Tensor, " pair"]:
    r"""Largest distance to the nearest item of the other collection (Hausdorff 1914).

    $$ d(X, Y) = \max\big( h(X, Y), h(Y, X) \big), \quad
       h(X, Y) = \max_i \min_j \|x_i - y_j\| $$

    With `directed` it is `h(X, Y)` alone.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    if directed:
        return _largest(distance_to(x, y, nearest(x, y)), x)
    x_to_y, y_to_x = mutual_nearest(x, y)
    return torch.maximum(
        _largest(distance_to(x, y, x_to_y), x), _largest(distance_to(y, x, y_to_x), y)
    )


def _largest(
    values: Float[Tensor, " item"], batch: CollectionBatch
) -> Float[Tensor, " collection"]:
    return segment_max(values.unsqueeze(1), batch).squeeze(1)
