"""The mean of a collection's items."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from setrep.collection import CollectionBatch
from setrep.functional import segment_sum


class CentroidAggregator(nn.Module):
    r"""Mean of the items of each collection (Karimov 2024).

    $$ f(G) = \frac{1}{|G|} \sum_{x \in G} f(x) $$

    An empty collection, where a batch allows one, gets the zero vector.
    """

    is_convex = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim_out = dim

    def forward(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the items of each collection."""
        sizes = batch.sizes.clamp(min=1).unsqueeze(-1)
        return segment_sum(batch.values, batch) / sizes
