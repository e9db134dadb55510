"""Residuals to learned clusters, with ghost clusters for items that should not count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import segment_softmax, segment_sum


class NetVLADAggregator(Aggregator):
    r"""Sums of residuals to soft clusters (Arandjelovic et al. 2016, Eq. 4).

    $$ V_k = \sum_i \bar{a}_k(x_i) (x_i - c_k), \quad
       \bar{a}_k(x) = \frac{e^{w_k^\top x + b_k}}{\sum_{k'=1}^{K+G} e^{w_{k'}^\top x + b_{k'}}} $$

    Each $V_k$ is brought to unit length, and so are all of them joined, `num_clusters * dim`
    dimensions. The $G$ ghost clusters take a share of each item and are then left out
    (GhostVLAD, Zhong et al. 2018); `num_ghosts=0` is NetVLAD. An item's weight is the share that
    the ghosts leave it, over the sum of these shares in its collection.

    It starts near copies of the centroid's direction, one for each cluster: $c_k$ and $b_k$ are
    zero and $w_k$ are small.
    """

    formula = "[normalised Σ a_k(x) (x - c_k), for each k]"
    has_weights = True

    def __init__(self, dim: int, *, num_clusters: int = 8, num_ghosts: int = 1) -> None:
        check_count("num_clusters", num_clusters)
        check_count("num_ghosts", num_ghosts, at_least=0)
        super().__init__(dim, num_clusters * dim)
        self.assignment = nn.Linear(dim, num_clusters + num_ghosts)
        self.centers = nn.Parameter(torch.zeros(num_clusters, dim))
        nn.init.normal_(self.assignment.weight, std=0.1 / dim**0.5)
        nn.init.zeros_(self.assignment.bias)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Sum the residuals to each cluster and normalise them."""
        shares = self.assignment(batch.values).softmax(dim=1)[:, : len(self.centers)]
        sums = self.weighted_sums(batch, shares).reshape(len(batch), *self.centers.shape)
        residuals = sums - segment_sum(shares, batch).unsqueeze(2) * self.centers
        return normalize(normalize(residuals, dim=2).flatten(1), dim=1)

    def weigh(self, batch: CollectionBatch) -> Float[Tensor, "item 1"]:
        """Return the shares that the ghosts leave, which sum to one over each collection."""
        scores = self.assignment(batch.values)
        kept = scores[:, : len(self.centers)].logsumexp(1, keepdim=True)
        return segment_softmax(kept - scores.logsumexp(1, keepdim=True), batch)
