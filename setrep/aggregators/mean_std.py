"""The mean and the standard deviation of a collection's items, joined."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import first_order, row_pieces, segment_sum


class MeanStdAggregator(Aggregator):
    r"""Mean and standard deviation of each coordinate (Snyder et al. 2018, statistics pooling).

    $$ f(G) = [\mu; \sigma], \quad \mu = \frac{1}{|G|} \sum_{x \in G} x, \quad
       \sigma_t^2 = \frac{1}{|G|} \sum_{x \in G} (x_t - \mu_t)^2 $$

    Where all items agree, the deviation is 0 and its gradient is 0. There are no second
    derivatives.
    """

    formula = "[mean; standard deviation]"
    equivariances = ("scaling",)

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * dim)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Join the mean and the deviation of each coordinate."""
        return torch.cat(_MeanAndDeviation.apply(batch.values, batch), dim=1)


class _MeanAndDeviation(torch.autograd.Function):
    """The two with their gradient, which needs no more than the items.

    $$ \\partial \\mu / \\partial x = 1 / n, \\quad
       \\partial \\sigma / \\partial x = (x - \\mu) / (n \\sigma) $$
    """

    @staticmethod
    def forward(
        ctx: Any, values: Float[Tensor, "item dim"], batch: CollectionBatch
    ) -> tuple[Float[Tensor, "collection dim"], Float[Tensor, "collection dim"]]:
        size = batch.sizes.clamp(min=1).unsqueeze(1)
        # From the first item, so that items that all agree have a deviation of exactly 0.
        first = values.new_zeros(len(batch), values.shape[1])
        is_some = batch.sizes > 0
        first[is_some] = values[batch.offsets[:-1][is_some]]
        away = torch.empty_like(values)
        for out, items, places in row_pieces(away, values, batch.index):
            torch.sub(items, first.index_select(0, places), out=out)
        shift = segment_sum(away, batch) / size
        for out, places in row_pieces(away, batch.index):
            out.sub_(shift.index_select(0, places)).square_()
        mean, deviation = first + shift, (segment_sum(away, batch) / size).sqrt_()
        ctx.save_for_backward(values, mean, deviation, size, batch.index)
        return mean, deviation

    @staticmethod
    @first_order
    def backward(
        ctx: Any, of_mean: Tensor, of_deviation: Tensor
    ) -> tuple[Float[Tensor, "item dim"], None]:
        values, mean, deviation, size, index = ctx.saved_tensors
        factor = (of_deviation / (size * deviation)).masked_fill_(deviation == 0, 0.0)
        share = of_mean / size
        grad = torch.empty_like(values)
        for out, items, places in row_pieces(grad, values, index):
            torch.sub(items, mean.index_select(0, places), out=out)
            out.mul_(factor.index_select(0, places)).add_(share.index_select(0, places))
        return grad, None
