"""Quantiles of each coordinate, joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import Interpolation, segment_quantiles


class QuantilesAggregator(Aggregator):
    r"""Quantiles of each coordinate, one block of `dim` for each (Hyndman & Fan 1996, Def. 2).

    $$ f(G)_{p, t} =
       \tfrac12 \big(x_{(\lceil np \rceil), t} + x_{(\lfloor np \rfloor + 1), t}\big) $$

    With `interpolation="linear"` they lie between items, as in Definition 7 and in `numpy.quantile`
    when nothing is said; then a collection with every item doubled has other quantiles. No block
    is in general in the hull of the items.
    """

    formula = "[q_p of each coordinate, for each p]"
    equivariances = ("translation", "scaling")

    def __init__(
        self,
        dim: int,
        *,
        quantiles: Sequence[float] = (0.25, 0.5, 0.75),
        interpolation: Interpolation = "averaged",
    ) -> None:
        super().__init__(dim, len(quantiles) * dim)
        if not quantiles or not all(0 <= p <= 1 for p in quantiles):
            raise InputError(
                f"Quantiles are one or more numbers from 0 to 1, not {list(quantiles)}."
            )
        if interpolation not in get_args(Interpolation):
            raise InputError(
                f"Quantiles are interpolated 'averaged' or 'linear', not '{interpolation}'."
            )
        self.quantiles = tuple(quantiles)
        self.interpolation = interpolation
        self.ignores_copies = interpolation == "averaged"

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Take the quantiles of each coordinate."""
        found = segment_quantiles(batch.values, batch, self.quantiles, self.interpolation)
        return found.flatten(1)
