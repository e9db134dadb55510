"""Another aggregator's embedding, brought to unit length."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch


class NormalizedAggregator(Aggregator):
    r"""Direction of another aggregator's embedding, so that distances compare directions.

    $$ z_G = f(G) / \|f(G)\| $$

    The zero vector stays. It leaves the convex hull of the items.
    """

    formula = "f / |f|"

    def __init__(self, inner: Aggregator) -> None:
        super().__init__(inner.dim, inner.dim_out)
        self.inner = inner
        self.formula = f"f / |f|, f = {inner.formula}"
        self.has_weights = inner.has_weights
        self.ignores_copies = inner.ignores_copies
        self.equivariances = tuple(m for m in inner.equivariances if m == "rotation")

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Divide each embedding by its length."""
        return normalize(self.inner.aggregate(batch), dim=1)

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item head"]:
        """Return the weights of the other aggregator."""
        return self.inner.weigh(batch)
