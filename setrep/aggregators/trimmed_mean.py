"""The mean of each coordinate without its extremes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import segment_argsort, segment_sum


class TrimmedMeanAggregator(Aggregator):
    r"""Mean of each coordinate without its lowest and highest share (Stigler 1973).

    $$ f(G)_t = \frac{1}{1 - 2\alpha} \int_\alpha^{1 - \alpha} Q_t(u) \, du
              = \sum_{r=1}^{n} \frac{|[r - 1, r] \cap [\alpha n, (1 - \alpha) n]|}
                                    {(1 - 2\alpha) n} \, x_{(r), t} $$

    $Q_t$ is the quantile function of coordinate $t$ and `trim` is $\alpha$: an item that is cut in
    part counts in part, so a collection with every item doubled has the same embedding. Each
    coordinate drops items of its own, so the result is not in general in the hull of the items:
    of $e_1, e_2, e_3$, trimmed by a third, the zero vector remains.
    """

    formula = "mean of each coordinate without its ends"
    equivariances = ("translation", "scaling")

    def __init__(self, dim: int, *, trim: float = 0.1) -> None:
        super().__init__(dim)
        if not 0 <= trim < 0.5:
            raise InputError(
                f"A trimmed mean cuts a share from 0 to below 0.5 from each end, not {trim}. "
                f"The aggregator median is what would remain at 0.5."
            )
        self.trim = trim

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average what is left of each coordinate."""
        in_order = batch.values.gather(0, segment_argsort(batch.values, batch))
        return segment_sum(in_order, batch, self._share_of_ranks(batch))

    def _share_of_ranks(self, batch: CollectionBatch) -> Float[Tensor, " item"]:
        """Return how much of the rank that each row holds is left, of sum one."""
        rank = torch.arange(len(batch.values), device=batch.offsets.device)
        rank = (rank - batch.offsets[batch.index]).double()
        size = batch.sizes[batch.index].double()
        low, high = size * self.trim, size * (1 - self.trim)
        left = (rank + 1).minimum(high) - rank.maximum(low)
        return left.clamp(min=0) / (high - low)
