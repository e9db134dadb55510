"""The mean direction of a collection's items."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.functional import segment_sum

# A mean of unit vectors that is shorter than this many rounding errors has no direction.
RESULTANT_FLOOR = 10


class DirectionalMeanAggregator(Aggregator):
    r"""Mean direction of the items (Mardia & Jupp 2000, Ch. 9).

    $$ f(G) = \frac{\bar u}{\|\bar u\|}, \quad
       \bar u = \frac{1}{|G|} \sum_{x \in G} \frac{x}{\|x\|} $$

    It maximises the mean cosine to the items. An item that is zero has no direction and adds
    nothing. Where the items cancel out ($\|\bar u\|$ is below ten rounding errors) the result is
    the zero vector, with gradient zero. The lengths of the items do not matter, so to scale them
    changes nothing (in float32 while they are longer than 1e-18).
    """

    formula = "u / |u|, u = mean of x / |x|"
    equivariances = ("rotation",)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim"]:
        """Average the directions of the items, and bring the mean to unit length."""
        mean = segment_sum(batch.values, batch, _one_over_length(batch.values))
        mean = mean / batch.sizes.clamp(min=1).unsqueeze(1)
        floor = RESULTANT_FLOOR * torch.finfo(mean.dtype).eps
        return mean * _one_over_length(mean, floor).unsqueeze(1)


def _one_over_length(x: Float[Tensor, "row dim"], floor: float = 0.0) -> Float[Tensor, " row"]:
    """Return one over the length of each row; zero where the row is no longer than `floor`."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1)
    return length.masked_fill(length <= floor, torch.inf).reciprocal()
