"""Pooling by multihead attention of learned seeds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.attention_block import MultiheadAttentionBlock, small_layer
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import segment_softmax


class PMAAggregator(Aggregator):
    r"""Learned seeds attend to the items (Lee et al. 2019, Eq. 11).

    $$ \mathrm{PMA}_k(Z) = \mathrm{MAB}(S, \mathrm{rFF}(Z)), \quad
       \mathrm{rFF}(Z) = Z + \mathrm{ReLU}(Z W + b) $$

    The `num_seeds` results are joined, to `num_seeds * dim` dimensions. Its weights are those of
    the attention, heads of the first seed first. No item is padded: a seed's query is multiplied
    into $W^K$, and $W^V$ is applied to the weighted means.

    Each seed starts near the layer-normalised centroid: seeds, $W$ and the block's own layer are
    small, $W^V$ and $W^O$ are the identity. The paper leaves the row-wise layer open; with
    $Z$ added to it, it can start near the identity.
    """

    formula = "attention of learned seeds to the items"
    has_weights = True

    def __init__(self, dim: int, *, num_seeds: int = 1, num_heads: int = 1) -> None:
        check_count("num_seeds", num_seeds)
        super().__init__(dim, num_seeds * dim)
        self.feedforward = small_layer(dim)
        self.block = MultiheadAttentionBlock(dim, num_heads)
        self.seeds = nn.Parameter(torch.randn(num_seeds, dim) * 0.05 / dim**0.5)
        nn.init.eye_(self.block.value.weight)
        nn.init.eye_(self.block.output.weight)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Attend from each seed to the items, and join what they found."""
        rows = self._feed_forward(batch)
        means = self.weighted_sums(rows, self._attend(rows))
        means = means.reshape(len(batch), len(self.seeds), self.block.num_heads, self.dim)
        heads = torch.einsum("bshd,hwd->bshw", means, self._by_head(self.block.value)).flatten(2)
        return self.block.finish(self.seeds, heads).flatten(1)

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item seed*head"]:
        """Return how much each head of each seed attends to each item."""
        return self._attend(self._feed_forward(batch))

    def _feed_forward(self, batch: CollectionBatch) -> CollectionBatch:
        return batch.with_values(batch.values + self.feedforward(batch.values).relu())

    def _attend(self, rows: CollectionBatch) -> Float[Tensor, "item seed*head"]:
        queries = self.block.query(self.seeds)
        queries = queries.reshape(len(self.seeds), self.block.num_heads, -1)
        directions = torch.einsum("shw,hwd->shd", queries, self._by_head(self.block.key))
        scale = queries.shape[2] ** -0.5
        return segment_softmax(rows.values @ (directions * scale).flatten(0, 1).T, rows)

    def _by_head(self, layer: nn.Linear) -> Float[Tensor, "head width dim"]:
        return layer.weight.reshape(self.block.num_heads, -1, self.dim)
