"""The median of each coordinate."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_quantiles


class MedianAggregator(Aggregator):
    r"""Median of each coordinate; the midpoint of the two in the middle of an even number.

    $$ f(G)_t = \tfrac12 \big(x_{(\lceil n/2 \rceil), t} + x_{(\lfloor n/2 \rfloor + 1), t}\big) $$

    It is not in general in the hull of the items: the median of $e_1, e_2, e_3$ is the zero vector.
    """

    formula = "median of each coordinate"
    equivariances = ("translation", "scaling")

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Take the middle of each coordinate."""
        return segment_quantiles(batch.values, batch, (0.5,)).squeeze(1)
