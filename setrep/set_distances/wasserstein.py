"""Wasserstein distance between two collections, exact."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.set_distances.pairs import checked_pairs
from setrep.set_distances.transport import check_order, root, transport_plan


def wasserstein(
    x: CollectionBatch, y: CollectionBatch, *, order: int = 1
) -> Float[Tensor, " pair"]:
    r"""Least cost of moving one collection onto the other (Villani 2009, Def. 6.1).

    $$ W_p(X, Y) = \Big( \min_{\pi} \sum_{ij} \pi_{ij} \|x_i - y_j\|^p \Big)^{1/p}, \quad
       \sum_j \pi_{ij} = \frac{1}{n}, \; \sum_i \pi_{ij} = \frac{1}{m}, \; \pi_{ij} \ge 0 $$

    Each collection is a uniform distribution, and `order` is $p$, 1 or 2. The gradient is that of
    the cost under the optimal plan, held fixed (envelope theorem). `transport_plan` returns the
    plan. Pairs are solved one by one on the CPU.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`, or the order is
            neither 1 nor 2.
    """
    check_order(order)
    x, y = checked_pairs(x, y)
    cost = transport_plan(x, y, order=order).cost(x, y, order=order)
    return root(cost, order).to(x.values.dtype)
