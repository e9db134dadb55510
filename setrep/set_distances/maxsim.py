"""Late interaction: how well each item of a query is matched in a document."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.functional import segment_sum
from setrep.set_distances.nearest import nearest
from setrep.set_distances.pairs import checked_pairs


def maxsim(x: CollectionBatch, y: CollectionBatch, *, mean: bool = False) -> Float[Tensor, " pair"]:
    r"""Sum over the items of the query `x` of the largest inner product with an item of `y`.

    Late interaction (Khattab and Zaharia 2020). It is a similarity: larger is closer.

    $$ s(X, Y) = \sum_i \max_j \langle x_i, y_j \rangle $$

    With `mean` it is divided by the number of items of `x`, which makes scores of queries of
    different sizes comparable and orders the documents of one query alike. The paper's items have
    length 1; nothing is normalised here.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`.
    """
    x, y = checked_pairs(x, y)
    best = nearest(x, y, compare=minus_inner_product)
    similarity = (x.values * y.values.index_select(0, best)).sum(dim=1, keepdim=True)
    total = segment_sum(similarity, x).squeeze(1)
    return total / x.sizes if mean else total


def minus_inner_product(
    x: Float[Tensor, "row n dim"], y: Float[Tensor, "row m dim"]
) -> Float[Tensor, "row n m"]:
    """Return inner products with the sign changed, so that the least is the best."""
    with torch.autocast(x.device.type, enabled=False):
        return -(x @ y.mT)
