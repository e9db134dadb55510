"""Attention pooling: a small network says how much each item counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import segment_softmax


class AttentionAggregator(Aggregator):
    r"""Weighted mean under learned weights (Ilse et al. 2018, Eqs. 7 to 9).

    $$ z = \sum_k a_k h_k, \quad
       a_k = \mathrm{softmax}_k\big(w^\top (\tanh(V h_k) \odot \mathrm{sigm}(U h_k))\big) $$

    Without `gated` the sigmoid factor is left out. Each head has a `w` of its own, and their
    weighted means are joined, so several heads give `num_heads * dim` dimensions; all share `V`
    and `U`. One head starts as the centroid: `w` is zero. Several start near it, each at a small
    random `w`: heads that start alike, under a loss that treats them alike, stay alike.
    """

    formula = "Σ a x, a = softmax(w·(tanh(V x) * sigm(U x)))"
    has_weights = True

    def __init__(
        self, dim: int, *, hidden_dim: int = 128, gated: bool = True, num_heads: int = 1
    ) -> None:
        check_count("hidden_dim", hidden_dim)
        check_count("num_heads", num_heads)
        super().__init__(dim, num_heads * dim)
        self.is_convex = num_heads == 1
        self.content = nn.Linear(dim, hidden_dim)
        self.gate = nn.Linear(dim, hidden_dim) if gated else None
        self.score = nn.Linear(hidden_dim, num_heads, bias=False)  # softmax drops a bias
        nn.init.normal_(self.score.weight, std=0.0 if num_heads == 1 else 0.1 / hidden_dim**0.5)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Average the items under each head's weights."""
        return self.weighted_sums(batch, self.weigh(batch))

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item head"]:
        """Return the softmax of the scores over each collection."""
        hidden = torch.tanh(self.content(batch.values))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(batch.values))
        return segment_softmax(self.score(hidden), batch)
