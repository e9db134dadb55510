"""The sum of a collection's items."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_sum


class SumAggregator(Aggregator):
    r"""Sum of the items of each collection, so that its size counts (as in Zaheer et al. 2017).

    $$ f(G) = \sum_{x \in G} x $$
    """

    formula = "Σ x"
    ignores_copies = False
    equivariances = ("rotation", "scaling")

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Add up the items of each collection."""
        return segment_sum(batch.values, batch)
