"""Centroid and spread: the mean, and the square root of the covariance in few dimensions."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.checks import check_count
from setrep.collection import CollectionBatch
from setrep.functional import first_order, segment_sum

SMALLEST_VARIANCE = 1e-8  # keeps the root's gradient finite where items do not vary


class CovarianceAggregator(Aggregator):
    r"""Mean, and matrix square root of a projected covariance (Lin and Maji 2017).

    $$ z = \big( \bar{x},\ \mathrm{vech}\, \Sigma^{1/2} \big), \quad
       \Sigma = \frac{1}{|G|} \sum_{x \in G} P (x - \bar{x}) (x - \bar{x})^\top P^\top $$

    $\Sigma$ has `rank` dimensions. Entries off the diagonal count once, times $\sqrt 2$, so the
    squared distance of two embeddings is $|\bar{x} - \bar{y}|^2 +
    |\Sigma_x^{1/2} - \Sigma_y^{1/2}|_F^2$, at least the squared 2-Wasserstein distance of Gaussians
    of these moments with $\epsilon = 10^{-8}$ added to each variance. For eigenvalues are smoothed,
    $\sqrt{\lambda + \epsilon} - \sqrt\epsilon$, so a collection of one item has the root zero.
    There are no second derivatives.

    It starts near the centroid: $P$ is a tenth of a matrix with orthonormal rows.
    """

    formula = "[mean; root of the covariance of P x]"

    def __init__(self, dim: int, *, rank: int = 16) -> None:
        check_count("rank", rank)
        super().__init__(dim, dim + rank * (rank + 1) // 2)
        self.rank = rank
        self.projection = nn.Linear(dim, rank, bias=False)
        nn.init.orthogonal_(self.projection.weight, gain=0.1)

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Join the mean to the upper triangle of the covariance's square root."""
        sizes = batch.sizes.clamp(min=1).unsqueeze(1)
        projected = self.projection(batch.values)
        means = segment_sum(projected, batch) / sizes
        # A collection of few items has eigenvalues zero, whose roots show float32's rounding.
        deviations = (projected - means.index_select(0, batch.index)).double()
        rows, columns = torch.triu_indices(self.rank, self.rank, device=batch.values.device)
        triangles = segment_sum(deviations[:, rows] * deviations[:, columns], batch) / sizes
        covariance = triangles.new_zeros(len(batch), self.rank, self.rank)
        covariance[:, columns, rows] = triangles
        covariance[:, rows, columns] = triangles
        root = smooth_square_root(covariance)[:, rows, columns]
        root = torch.where(rows == columns, root, 2**0.5 * root)
        centroids = segment_sum(batch.values, batch) / sizes
        return torch.cat([centroids, root.to(centroids.dtype)], dim=1)


def smooth_square_root(
    matrices: Float[Tensor, "collection rank rank"],
) -> Float[Tensor, "collection rank rank"]:
    """Return the root of each matrix plus `SMALLEST_VARIANCE`, less the root of that alone."""
    out: Tensor = _SmoothSquareRoot.apply(matrices)
    return out


class _SmoothSquareRoot(torch.autograd.Function):
    """The root, whose gradient solves a Lyapunov equation and holds for equal eigenvalues too."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        # One matrix that is not finite would make the decomposition of all of them fail.
        is_finite = matrices.isfinite().all(dim=2, keepdim=True).all(dim=1, keepdim=True)
        values, vectors = torch.linalg.eigh(torch.where(is_finite, matrices, 0.0))
        roots = (values.clamp(min=0) + SMALLEST_VARIANCE).sqrt()
        ctx.save_for_backward(matrices, roots, vectors)
        out = (vectors * (roots - SMALLEST_VARIANCE**0.5).unsqueeze(1)) @ vectors.mT
        return torch.where(is_finite, out, torch.nan)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor]:
        _, roots, vectors = ctx.saved_tensors
        inner = vectors.mT @ ((grad + grad.mT) / 2) @ vectors
        solved = inner / (roots.unsqueeze(1) + roots.unsqueeze(2))
        return (vectors @ solved @ vectors.mT,)
