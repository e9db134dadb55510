"""Deep Sets: a network over the mean of the items' features."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import segment_sum


class DeepSetsAggregator(Aggregator):
    r"""Network of the mean of the items' features (Zaheer et al. 2017, Theorem 2).

    $$ z = A \bar{x} + \rho\Big(\frac{1}{|G|} \sum_{x \in G} \phi(x)\Big), \quad
       \phi(x) = \mathrm{ReLU}(W x + b) $$

    A mean, where the theorem has a sum, so that copies change nothing. $\rho$ has one hidden layer;
    a linear layer at the end of $\phi$ would add nothing to it. The linear term is Deep Sets with
    the items among their own features; with it, and the last layer of $\rho$ at zero, it starts as
    the centroid where `dim_out` is `dim`, and as a linear map of it elsewhere.
    """

    formula = "A mean(x) + rho(mean of phi(x))"

    def __init__(self, dim: int, *, hidden_dim: int = 256, dim_out: int | None = None) -> None:
        check_count("hidden_dim", hidden_dim)
        if dim_out is not None:
            check_count("dim_out", dim_out)
        super().__init__(dim, dim_out)
        self.phi = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(inplace=True))
        last = nn.Linear(hidden_dim, self.dim_out)
        self.rho = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), last)
        self.linear = nn.Linear(dim, self.dim_out, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        if self.dim_out == dim:
            nn.init.eye_(self.linear.weight)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Average items and features, and map both."""
        sizes = batch.sizes.clamp(min=1).unsqueeze(1)
        centroids = segment_sum(batch.values, batch) / sizes
        features = segment_sum(self.phi(batch.values), batch) / sizes
        out: Tensor = self.linear(centroids) + self.rho(features)
        return out
