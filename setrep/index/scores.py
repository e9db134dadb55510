"""Scores of all pairs by one matrix product, and how far rounding may have moved them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from setrep.index.metric import Metric


def centre_of(
    bank: Float[Tensor, "item dim"], norms: Float[Tensor, " item"]
) -> Float64[Tensor, " dim"] | None:
    """Return what both sides of a distance are moved by, or none where that would gain little.

    The bound of rounding grows with the square of lengths, which a move to the mean halves at least
    where the mean is longer than the spread about it.
    """
    mean = bank.mean(dim=0, dtype=torch.float64)
    is_far = 2 * mean.square().sum() > norms.double().square().mean()
    return mean if bool(is_far) else None


def move(
    values: Float[Tensor, "row dim"], centre: Float64[Tensor, " dim"] | None, dtype: torch.dtype
) -> Float[Tensor, "row dim"]:
    """Subtract `centre` before the cast to `dtype`, which is finest at the origin."""
    if centre is None:
        return values.to(dtype).contiguous()
    wide = values.to(torch.promote_types(values.dtype, dtype))
    return (wide - centre.to(wide.dtype)).to(dtype).contiguous()


def score_all(
    queries: Float[Tensor, "query dim"], bank: Float[Tensor, "item dim"], metric: Metric
) -> Float[Tensor, "query item"]:
    r"""Score every pair, distances by the Gram form, which cancels where both sides are long.

    $$ -\|x - y\|^2 = 2 x^\top y - \|x\|^2 - \|y\|^2 $$
    """
    with _full_precision(queries.device):
        scores = queries @ bank.T
    if metric == "inner_product":
        return scores
    scores.mul_(2).sub_(queries.square().sum(dim=1, keepdim=True)).sub_(bank.square().sum(dim=1))
    return scores.clamp_(max=0)


def error_bound(
    queries: Float[Tensor, "query dim"],
    widest: Float64[Tensor, ""] | None,
    kth: Float64[Tensor, " query"],
    metric: Metric,
    dtype: torch.dtype,
) -> Float64[Tensor, " query"]:
    r"""Bound the rounding of `score_all` in `dtype`, in any order of summation (Higham 2002, 3.1).

    $$ |\hat{s} - s| \le c\, u\, \|x\| \|y\| \quad \text{or} \quad c\, u\, (\|x\| + \|y\|)^2,
    \qquad c = d + 16 $$

    An item nearer than the k-th has $\|y\| < \|x\| + \|x - y_k\|$, so that no outlier of the bank
    widens the bound of distances. Queries are moved already; `widest` is the largest norm of the
    bank, which inner products ask for.
    """
    dim = queries.shape[1]
    length = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64)
    if metric == "inner_product":
        assert widest is not None
        reach = length * widest
    else:
        reach = (2 * length + kth.neg().clamp(min=0).sqrt()).square()
    finest = torch.finfo(dtype)
    # eps is twice u; 2 % more covers terms of u squared, `tiny` what falls below the exponents.
    bound: Tensor = (0.51 * dim + 8) * finest.eps * reach + 8 * (dim + 1) * finest.tiny
    return bound


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Multiply in the tensors' own precision, whatever training has set: no autocast, no TF32."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
