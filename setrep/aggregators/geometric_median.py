"""The point of least total distance to a collection's items."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import first_order, segment_sum

_AT_A_TIME = 2**20  # numbers whose steps are held at a time


class GeometricMedianAggregator(Aggregator):
    r"""Geometric median by the smoothed Weiszfeld iteration (Pillutla et al. 2022, Alg. 2).

    $$ \min_z \sum_{x \in G} \|z - x\|: \quad
       z^{(t+1)} = \sum_{x \in G} w_x^{(t)} x, \quad
       w_x^{(t)} \propto \frac{1}{\max(\nu \sigma, \|z^{(t)} - x\|)} $$

    It starts at the centroid and makes `num_iterations` steps. `smoothing` is $\nu$, the guard
    where a step hits an item; it is relative to the root mean square distance $\sigma$ of the
    items to their centroid, so the result scales with the items
    (in float32 while they are between 1e-12 and 1e12). The result is the weighted mean
    under the weights of the last step, converged or not, and its gradient is that of the steps
    taken. The steps are computed again in the backward pass, some collections at a time, so they
    hold little memory. There are no second derivatives.
    """

    formula = "argmin over z of Σ |z - x|"
    is_convex = True
    has_weights = True
    equivariances = ("translation", "rotation", "scaling")

    def __init__(self, dim: int, *, num_iterations: int = 10, smoothing: float = 1e-3) -> None:
        super().__init__(dim)
        check_count("num_iterations", num_iterations)
        if not 0 < smoothing <= 1:
            raise InputError(
                f"A geometric median takes smoothing from 0 (left out) to 1, not {smoothing}."
            )
        self.num_iterations = num_iterations
        self.smoothing = smoothing

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the items under the weights of the last step."""
        return segment_sum(batch.values, batch, self.weigh(batch).squeeze(1))

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item 1"]:
        """Return the weights of the last step."""
        pieces = _pieces(batch)
        values = torch.split(batch.values, [len(piece.values) for piece in pieces])
        weights = [
            _Recomputed.apply(part, piece, self._last_weights)
            for part, piece in zip(values, pieces, strict=True)
        ]
        return torch.cat([batch.values.new_zeros(0), *weights]).unsqueeze(1)

    def _last_weights(
        self, values: Float[Tensor, "item dim"], batch: CollectionBatch
    ) -> Float[Tensor, " item"]:
        centre = segment_sum(values, batch) / batch.sizes.clamp(min=1).unsqueeze(1)
        away = values - centre.index_select(0, batch.index)
        square = segment_sum(away.square().sum(dim=1), batch)
        # Above zero, so that items that are all one point count alike; 1e-15 is its square root.
        floor = (self.smoothing**2 * square / batch.sizes).clamp(min=1e-30).sqrt()
        floor = floor.index_select(0, batch.index)
        weights = _inverse_distances(values, batch, centre, floor)
        for _ in range(self.num_iterations - 1):
            centre = segment_sum(values, batch, weights)
            weights = _inverse_distances(values, batch, centre, floor)
        return weights


class _Recomputed(torch.autograd.Function):
    """A function of items that is computed again for its gradient, so nothing between is kept."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, batch: CollectionBatch, function: Callable[..., Tensor]
    ) -> Tensor:
        ctx.batch, ctx.function = batch, function
        ctx.save_for_backward(values)
        return function(values, batch)

    @staticmethod
    @first_order
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor, None, None]:
        values = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            # A scalar, as torch imports sympy (2 seconds) to check the shape of given gradients.
            product = (ctx.function(values, ctx.batch) * of_out).sum()
        return torch.autograd.grad(product, values)[0], None, None


def _inverse_distances(
    values: Float[Tensor, "item dim"],
    batch: CollectionBatch,
    centres: Float[Tensor, "collection dim"],
    floor: Float[Tensor, " item"],
) -> Float[Tensor, " item"]:
    """Return one over the distance of each item to its centre, of sum one in each collection."""
    distance = torch.linalg.vector_norm(values - centres.index_select(0, batch.index), dim=1)
    inverse = torch.maximum(distance, floor).reciprocal()
    return inverse / segment_sum(inverse, batch).index_select(0, batch.index)


def _pieces(batch: CollectionBatch) -> list[CollectionBatch]:
    """Part a batch between collections, into pieces of about as many numbers as are held."""
    rows = max(1, _AT_A_TIME // batch.values.shape[1])
    _, counts = torch.unique_consecutive(batch.offsets[:-1] // rows, return_counts=True)
    ends = [0, *counts.cumsum(0).tolist()]
    starts = batch.offsets[ends].tolist()
    values = batch.values.detach()
    return [
        CollectionBatch(values[a:b], batch.offsets[first : last + 1] - a, batch.allow_empty)
        for (first, last), (a, b) in zip(pairwise(ends), pairwise(starts), strict=True)
    ]
