"""Chamfer distance between two collections."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.set_distances.nearest import distance_to, mean_over_items, mutual_nearest, nearest
from setrep.set_distances.pairs import checked_pairs


def chamfer(
    x: CollectionBatch, y: CollectionBatch, *, squared: bool = False, directed: bool = False
) -> Float[Tensor, " pair"]:
    r"""Mean distance to the nearest item of the other collection, added over both directions.

    $$ d(X, Y) = \mathrm{Ch}(X \to Y) + \mathrm{Ch}(Y \to X), \quad
       \mathrm{Ch}(X \to Y) = \frac{1}{n} \sum_i \min_j \|x_i - y_j\| $$

    With `directed` it is the first term alone; with `squared` distances are squared. Fan et al.
    2017 sum squared distances where here the mean is taken, so that sizes do not
    count. Of equally near items the first gets the gradient.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    if directed:
        distances = [distance_to(x, y, nearest(x, y))]
    else:
        x_to_y, y_to_x = mutual_nearest(x, y)
        distances = [distance_to(x, y, x_to_y), distance_to(y, x, y_to_x)]
    if squared:
        distances = [distance.square() for distance in distances]
    total = mean_over_items(distances[0], x)
    return total if directed else total + mean_over_items(distances[1], y)
