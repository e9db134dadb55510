"""The mean of a collection's items."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_sum


class CentroidAggregator(Aggregator):
    r"""Mean of the items of each collection (Karimov 2024).

    $$ f(G) = \frac{1}{|G|} \sum_{x \in G} f(x) $$
    """

    formula = "mean of x"
    is_convex = True
    has_weights = True
    equivariances = ("translation", "rotation", "scaling")

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the items of each collection."""
        return segment_sum(batch.values, batch) / batch.sizes.clamp(min=1).unsqueeze(-1)

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item 1"]:
        """Return one over the size of each item's collection."""
        return batch.sizes.to(batch.values.dtype).reciprocal()[batch.index].unsqueeze(1)
