"""Two attention blocks, where what the first finds is what the second asks for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_softmax, segment_sum


class NANAggregator(Aggregator):
    r"""Neural Aggregation Network (Yang et al. 2017, Eqs. 1 to 4).

    $$ r^j = \sum_k a_k^j f_k, \quad a_k^j = \mathrm{softmax}_k(\langle q^j, f_k \rangle), \quad
       q^1 = \tanh(W r^0 + b) $$

    The embedding is $r^1$ and the weights are $a^1$. It starts as the centroid: $q^0$, $W$ and $b$
    are zero.
    """

    formula = "Σ a x, a = softmax(q·x), q from a first such mean"
    is_convex = True
    has_weights = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.query = nn.Parameter(torch.zeros(dim))
        self.refine = nn.Linear(dim, dim)
        nn.init.zeros_(self.refine.weight)
        nn.init.zeros_(self.refine.bias)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the items under the second block's weights."""
        return self.weighted_sums(batch, self.weigh(batch))

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item 1"]:
        """Return the second block's weights."""
        scores = batch.values @ self.query.unsqueeze(1)
        first = segment_sum(batch.values, batch, segment_softmax(scores, batch).squeeze(1))
        queries = torch.tanh(self.refine(first)).index_select(0, batch.index)
        return segment_softmax((batch.values * queries).sum(dim=1, keepdim=True), batch)
