"""Items attend to one another, then seeds to the items."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.attention_block import MultiheadAttentionBlock
from setrep.aggregators.checks import check_count
from setrep.aggregators.pma import PMAAggregator
from setrep.collection import CollectionBatch

CHUNK_SCORES = 2**22  # attention scores and coordinates held at a time, with their padding


class SelfAttentionBlock(nn.Module):
    r"""Each item attends to all items of its collection (Lee et al. 2019, Eq. 8).

    $$ \mathrm{SAB}(X) = \mathrm{MAB}(X, X) $$
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.block = MultiheadAttentionBlock(dim, num_heads)

    def forward(
        self,
        x: Float[Tensor, "collection item dim"],
        mask: Bool[Tensor, "collection item"] | None,
    ) -> Float[Tensor, "collection item dim"]:
        """Return the items after attention; what padding becomes does not matter."""
        out: Tensor = self.block(x, x, mask)
        return out


class InducedSelfAttentionBlock(nn.Module):
    r"""Items attend to a few learned points that attend to them (Lee et al. 2019, Eqs. 9 and 10).

    $$ \mathrm{ISAB}(X) = \mathrm{MAB}(X, \mathrm{MAB}(I, X)) $$
    """

    def __init__(self, dim: int, num_heads: int, num_inducing: int) -> None:
        super().__init__()
        self.points = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_inducing, dim)))
        self.gather = MultiheadAttentionBlock(dim, num_heads)
        self.spread = MultiheadAttentionBlock(dim, num_heads)
        nn.init.eye_(self.gather.output.weight)  # at zero, the points would tell nothing of items

    def forward(
        self,
        x: Float[Tensor, "collection item dim"],
        mask: Bool[Tensor, "collection item"] | None,
    ) -> Float[Tensor, "collection item dim"]:
        """Return the items after attention; what padding becomes does not matter."""
        points = self.points.expand(len(x), -1, -1)
        out: Tensor = self.spread(x, self.gather(points, x, mask))
        return out


class SetTransformerAggregator(Aggregator):
    r"""Self-attention among the items, then pooling by seeds (Lee et al. 2019, section 3.2).

    $$ z = \mathrm{PMA}_k(\mathrm{SAB}(\cdots \mathrm{SAB}(X))) $$

    There are `num_blocks` blocks: SAB, whose cost grows with the square of a collection's size, or
    ISAB with `num_inducing` points where that is above 0. Collections of like size are padded
    together, a bounded number at a time. It starts near the layer-normalised mean of the
    layer-normalised items.
    """

    formula = "pma of self-attention among the items"

    def __init__(
        self,
        dim: int,
        *,
        num_blocks: int = 2,
        num_inducing: int = 0,
        num_heads: int = 1,
        num_seeds: int = 1,
    ) -> None:
        check_count("num_blocks", num_blocks)
        check_count("num_inducing", num_inducing, at_least=0)
        check_count("num_seeds", num_seeds)
        super().__init__(dim, num_seeds * dim)
        self.num_inducing = num_inducing
        self.num_heads = num_heads
        self.blocks = nn.ModuleList(
            InducedSelfAttentionBlock(dim, num_heads, num_inducing)
            if num_inducing
            else SelfAttentionBlock(dim, num_heads)
            for _ in range(num_blocks)
        )
        self.pool = PMAAggregator(dim, num_seeds=num_seeds, num_heads=num_heads)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Encode the items of like-sized collections together, and pool those of each."""
        order = batch.sizes.argsort(stable=True)
        order = order[(batch.sizes == 0).sum() :]  # the empty ones come first
        by_size = batch.select(order)
        encoded = [self._encode(chunk) for chunk in self._chunks(by_size)]
        rows = torch.cat(encoded) if encoded else by_size.values
        pooled = self.pool.aggregate(by_size.with_values(rows))
        return pooled.new_zeros(len(batch), self.dim_out).index_copy(0, order, pooled)

    def _encode(self, chunk: CollectionBatch) -> Float[Tensor, "item dim"]:
        is_even = int(chunk.sizes[0]) == int(chunk.sizes[-1])
        x, mask = chunk.to_padded()
        for block in self.blocks:
            x = block(x, None if is_even else mask)
        return x.flatten(0, 1) if is_even else x[mask]

    def _chunks(self, by_size: CollectionBatch) -> Iterator[CollectionBatch]:
        """Part collections in order of size, each part small once it is padded."""
        bounds = [0]
        for position, size in enumerate(by_size.sizes.tolist()):
            per_item = self.dim + self.num_heads * (self.num_inducing or size)
            if (position + 1 - bounds[-1]) * size * per_item > CHUNK_SCORES:
                bounds.append(position)
        bounds = [*bounds, len(by_size)]
        starts = by_size.offsets[bounds]
        parts = torch.split(by_size.values, starts.diff().tolist())
        for values, first, last in zip(parts, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                offsets = by_size.offsets[first : last + 1]
                yield CollectionBatch(values, offsets - offsets[0])
