"""What every aggregator is: item embeddings of collections in, one embedding of each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import at_least_float32, segment_sum

Map = Literal["translation", "rotation", "scaling"]


class Aggregator(nn.Module, ABC):
    """Embed collections by a function of their items that ignores the items' order.

    Half-precision items are taken as float32. An empty collection, where a batch allows one, gets
    the zero vector, whatever the aggregator.

    Attributes:
        formula: what is computed, in one line of plain text.
        dim: dimensions of an item's embedding.
        dim_out: dimensions of a collection's embedding.
        is_convex: each embedding lies in the convex hull of its items, so the hull bounds apply.
        has_weights: `return_weights=True` tells how much each item counted.
        ignores_copies: a collection with every item doubled has the same embedding.
        equivariances: maps of the items that map the embedding alike: translation by one vector,
            rotation (any orthogonal map), scaling by a positive number; of joined embeddings, each
            block of `dim`.
    """

    formula: str
    is_convex: bool = False
    has_weights: bool = False
    ignores_copies: bool = True
    equivariances: tuple[Map, ...] = ()

    def __init__(self, dim: int, dim_out: int | None = None) -> None:
        super().__init__()
        check_count("dim", dim)
        self.dim = dim
        self.dim_out = dim if dim_out is None else dim_out

    @overload
    def forward(
        self, batch: CollectionBatch, *, return_weights: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def forward(
        self, batch: CollectionBatch, *, return_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, batch: CollectionBatch, *, return_weights: bool = False
    ) -> (
        Float[Tensor, "collection dim_out"]
        | tuple[Float[Tensor, "collection dim_out"], Float[Tensor, "item head"]]
    ):
        """Embed each collection.

        With `return_weights`, return as well the weight of each item in its collection, from 0 to
        1 and of sum 1 over each collection, one column for each head.

        Raises:
            InputError: items are not vectors of `dim`, or weights are asked of an aggregator that
                has none.
        """
        values = batch.values
        if values.ndim != 2 or values.shape[1] != self.dim or not values.is_floating_point():
            raise InputError(
                f"{type(self).__name__} takes items of shape (n, {self.dim}), "
                f"not {values.dtype} items of shape {tuple(values.shape)}."
            )
        if return_weights and not self.has_weights:
            raise InputError(f"{type(self).__name__} gives its items no weights.")
        values = at_least_float32(values)
        weights = next(self.parameters(), values)
        if weights.dtype != values.dtype:
            raise InputError(
                f"{type(self).__name__} has weights of {weights.dtype} for items that are taken as "
                f"{values.dtype}: convert one, as by .to({values.dtype})."
            )
        batch = batch.with_values(values)
        out = self.aggregate(batch)
        if batch.allow_empty:
            out = out.masked_fill((batch.sizes == 0).unsqueeze(1), 0.0)
        return (out, self.weigh(batch)) if return_weights else out

    @abstractmethod
    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Embed each collection; what an empty one gets does not matter."""

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item head"]:
        """Return the weight of each item, where the aggregator has weights."""
        raise NotImplementedError

    def weighted_sums(
        self, batch: CollectionBatch, weights: Float[Tensor, "item head"]
    ) -> Float[Tensor, "collection head_dim"]:
        """Sum the items under each head's weights, and join the heads."""
        sums = [segment_sum(batch.values, batch, head) for head in weights.unbind(dim=1)]
        return torch.cat(sums, dim=1)
