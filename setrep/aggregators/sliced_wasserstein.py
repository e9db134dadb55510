"""Quantiles of the items' projections onto learned directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import segment_argsort


class SlicedWassersteinAggregator(Aggregator):
    r"""Quantiles along slices, less those of a learned reference (Naderializadeh et al. 2021).

    $$ z_{lm} = \frac{1}{\sqrt{L M}} \Big( M \int_{(m-1)/M}^{m/M}
       F^{-1}_{\theta_l}(t)\, dt - r_{lm} \Big) $$

    $F_{\theta_l}$ is the distribution of $\langle \theta_l, x \rangle$, $|\theta_l| = 1$, over the
    items. The paper reads $F^{-1}$ at the ranks of the reference; its mean over a cell of ranks
    is used here, which is that value where sizes agree. It depends on every item without jumps,
    and not on copies. The distance of two embeddings is at most the sliced 2-Wasserstein distance
    over these slices, and is equal to it where $M$ is a multiple of both sizes.

    The mean over $m$ is the projected centroid, so one quantile is a linear map of the centroid.
    Slices start orthonormal as far as they can, and $r$ at zero.
    """

    formula = "[quantiles of θ·x, for each slice θ]"

    def __init__(self, dim: int, *, num_slices: int = 64, num_quantiles: int = 8) -> None:
        check_count("num_slices", num_slices)
        check_count("num_quantiles", num_quantiles)
        super().__init__(dim, num_slices * num_quantiles)
        self.slices = nn.Parameter(nn.init.orthogonal_(torch.empty(num_slices, dim)))
        self.reference = nn.Parameter(torch.zeros(num_quantiles, num_slices))

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Average the sorted projections over each cell of ranks."""
        projected = batch.with_values(batch.values @ normalize(self.slices, dim=1).T)
        order = segment_argsort(projected.values, batch)
        ordered = projected.with_values(projected.values.gather(0, order))
        cells = self.weighted_sums(ordered, cell_weights(batch, len(self.reference)))
        out: Tensor = (cells - self.reference.flatten()) / self.dim_out**0.5
        return out


def cell_weights(batch: CollectionBatch, num_cells: int) -> Float[Tensor, "item cell"]:
    """Return how much of each cell of ranks each item holds, in order within its collection.

    Item `i` of `n` holds the ranks from `i / n` to `(i + 1) / n`.
    """
    size = batch.sizes[batch.index].unsqueeze(1)
    rank = torch.arange(len(batch.index), device=size.device) - batch.offsets[batch.index]
    cell = torch.arange(num_cells, device=size.device)
    first = rank.unsqueeze(1) * num_cells  # in units of one part in n * num_cells, all whole
    last = torch.minimum(first + num_cells, (cell + 1) * size)
    held = (last - torch.maximum(first, cell * size)).clamp(min=0)
    return held.to(batch.values.dtype) / size
