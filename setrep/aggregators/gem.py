"""The generalised mean, between the mean and the largest."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import first_order, row_pieces, segment_max, segment_sum

# The floor of the authors' code: below it, roots have no gradient.
GEM_FLOOR = 1e-6


class GemAggregator(Aggregator):
    r"""Generalised mean of each coordinate (Radenovic et al. 2019, Eq. 3).

    $$ f(G)_t = \Big( \frac{1}{|G|} \sum_{x \in G} \max(x_t, 10^{-6})^p \Big)^{1/p} $$

    `power` is $p$: 1 gives the mean, and the larger it is the nearer the result is to the largest.
    The items must be positive, as after a ReLU: what is below the floor of 1e-6 counts as 1e-6 and
    has no gradient, so negative coordinates are lost. It is not in the hull of the items, and to
    scale them scales it only where they are above the floor. There are no second derivatives.
    """

    formula = "(mean of x^p)^(1/p)"

    def __init__(self, dim: int, *, power: float = 3.0) -> None:
        super().__init__(dim)
        if not 0 < power < math.inf:
            raise InputError(
                f"A generalised mean takes a positive power, not {power}. "
                f"The aggregator max is what an infinite power gives."
            )
        self.power = power

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the powers of each coordinate, and take the root."""
        out: Tensor = _PowerMean.apply(batch.values, batch, self.power)
        return out


class _PowerMean(torch.autograd.Function):
    """The root of the mean power with its gradient, which needs no more than the items."""

    @staticmethod
    def forward(
        ctx: Any, values: Float[Tensor, "item dim"], batch: CollectionBatch, power: float
    ) -> Float[Tensor, "collection dim"]:
        # Powers of numbers up to 1 do not overflow, and one of them is 1, so their mean is not 0.
        largest = segment_max(values, batch).clamp_(min=GEM_FLOOR)
        powers = torch.empty_like(values)
        for out, items, places in row_pieces(powers, values, batch.index):
            torch.clamp(items, min=GEM_FLOOR, out=out)
            out.div_(largest.index_select(0, places)).pow_(power)
        mean = segment_sum(powers, batch) / batch.sizes.clamp(min=1).unsqueeze(1)
        ctx.power = power
        ctx.save_for_backward(values, largest, mean, batch.sizes, batch.index)
        return largest * mean.pow(1 / power)

    @staticmethod
    @first_order
    def backward(
        ctx: Any, of_out: Float[Tensor, "collection dim"]
    ) -> tuple[Float[Tensor, "item dim"], None, None]:
        values, largest, mean, sizes, index = ctx.saved_tensors
        factor = of_out * mean.pow(1 / ctx.power - 1) / sizes.unsqueeze(1)
        grad = torch.empty_like(values)
        for out, items, places in row_pieces(grad, values, index):
            torch.clamp(items, min=GEM_FLOOR, out=out)
            out.div_(largest.index_select(0, places)).pow_(ctx.power - 1)
            out.mul_(factor.index_select(0, places)).masked_fill_(items < GEM_FLOOR, 0.0)
        return grad, None, None
