"""The largest of each coordinate."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_max


class MaxAggregator(Aggregator):
    r"""Largest of each coordinate over the items of each collection.

    $$ f(G)_t = \max_{x \in G} x_t $$

    Items that share the largest share its gradient equally. It is not in the hull of the items.
    """

    formula = "max of each coordinate"
    equivariances = ("translation", "scaling")

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Take the largest of each coordinate."""
        return segment_max(batch.values, batch)
