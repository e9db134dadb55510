"""Exact nearest neighbours, through FAISS where it is installed and torch where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.index.faiss_door import faiss_knn, load_faiss

Metric = Literal["inner_product", "euclidean"]
Backend = Literal["auto", "faiss", "torch"]
Neighbours = tuple[Float[Tensor, "query k"], Int64[Tensor, "query k"]]

SCORES_AT_ONCE = 50_000_000  # 200 MB of float32
LARGEST_VALUE = 1e15  # squares and sums of larger ones overflow float32


@torch.no_grad()
def top_k(
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"],
    k: int,
    *,
    metric: Metric = "inner_product",
    backend: Backend = "auto",
) -> Neighbours:
    """Return the similarity and the bank position of the `k` nearest of each query, exactly.

    Larger similarity comes first, then lower position, also where a tie crosses the k-th place.
    Euclidean similarity is minus the squared distance, never above 0; both sides are first moved
    by the mean of the bank, since rounding grows with the distance from the origin. Computed in
    float32; the two backends agree up to its rounding, which may part or join near-ties.

    `auto` takes FAISS for tensors on the CPU when it imports, else torch on the tensors' device.
    Never call this in a forked worker: FAISS hangs when its parent has used it before the fork.

    Raises:
        InputError: shapes, `k`, values or names do not fit.
    """
    _check(queries, bank, k, metric, backend)
    faiss = None
    if backend == "faiss" or (backend == "auto" and not queries.is_cuda):
        faiss = load_faiss(is_required=backend == "faiss")
    if metric == "euclidean":
        centre = bank.mean(dim=0, dtype=torch.float64)
        queries, bank = _move(queries, centre), _move(bank, centre)
    queries, bank = queries.float().contiguous(), bank.float().contiguous()
    if not len(queries):
        return queries.new_zeros(0, k), queries.new_zeros(0, k, dtype=torch.int64)
    if faiss is None:
        return _search_torch(queries, bank, k, metric)
    return _search_faiss(faiss, queries, bank, k, metric)


def _check(queries: Tensor, bank: Tensor, k: int, metric: str, backend: str) -> None:
    """Refuse what cannot be searched."""
    if metric not in ("inner_product", "euclidean"):
        raise InputError(f"Metric '{metric}' is unknown; use 'inner_product' or 'euclidean'.")
    if backend not in ("auto", "faiss", "torch"):
        raise InputError(f"Backend '{backend}' is unknown; use 'auto', 'faiss' or 'torch'.")
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(
            f"Queries [Q, d] and bank [N, d] must have one d; found shapes "
            f"{tuple(queries.shape)} and {tuple(bank.shape)}. Embed both with one model."
        )
    if queries.device != bank.device:
        raise InputError(
            f"Queries are on {queries.device} and the bank on {bank.device}; move one of them."
        )
    if not 1 <= k <= len(bank):
        raise InputError(
            f"Asked for {k} neighbours in a bank of {len(bank)}; use 1 to {len(bank)}."
        )
    for name, values in (("queries", queries), ("bank", bank)):
        if values.numel() and not float(torch.stack(values.aminmax()).abs().max()) < LARGEST_VALUE:
            raise InputError(
                f"The {name} hold NaN, infinity or values beyond {LARGEST_VALUE:g}. "
                f"Check the model's weights, or scale the embeddings."
            )


def _move(values: Tensor, centre: Tensor) -> Tensor:
    """Subtract `centre` before the cast to float32, which is finest at the origin."""
    wide = values if values.dtype == torch.float64 else values.float()
    return (wide - centre.to(wide.dtype)).float()


def _search_torch(queries: Tensor, bank: Tensor, k: int, metric: Metric) -> Neighbours:
    """Search in chunks of queries, so that the scores at hand stay bounded."""
    chunk = max(1, SCORES_AT_ONCE // len(bank))
    starts = range(0, len(queries), chunk)
    parts = [_search_chunk(queries[at : at + chunk], bank, k, metric) for at in starts]
    return torch.cat([similarity for similarity, _ in parts]), torch.cat([at for _, at in parts])


def _search_chunk(queries: Tensor, bank: Tensor, k: int, metric: Metric) -> Neighbours:
    """Search one chunk; rows where a tie crosses the k-th place are cut by position."""
    scores = _similarity(queries, bank, metric)
    similarity, index = scores.topk(min(k + 1, len(bank)), dim=1)
    if len(bank) > k:
        is_cut = similarity[:, k] == similarity[:, k - 1]
        similarity, index = similarity[:, :k].clone(), index[:, :k].clone()
        for row in is_cut.nonzero().squeeze(1).tolist():
            above = (scores[row] > similarity[row, -1]).nonzero().squeeze(1)
            tied = (scores[row] == similarity[row, -1]).nonzero().squeeze(1)
            index[row] = torch.cat([above, tied[: k - len(above)]])
            similarity[row] = scores[row, index[row]]
    return _order_ties(similarity, index)


def _search_faiss(
    faiss: ModuleType, queries: Tensor, bank: Tensor, k: int, metric: Metric
) -> Neighbours:
    """Search with FAISS; rows where a tie crosses the k-th place go to torch, which orders them."""
    similarity, index = faiss_knn(faiss, queries, bank, min(k + 1, len(bank)), metric)
    if len(bank) == k:
        return _order_ties(similarity, index)
    is_cut = similarity[:, k] == similarity[:, k - 1]
    similarity, index = _order_ties(similarity[:, :k], index[:, :k])
    if bool(is_cut.any()):
        similarity[is_cut], index[is_cut] = _search_torch(queries[is_cut], bank, k, metric)
    return similarity, index


def _similarity(queries: Tensor, bank: Tensor, metric: Metric) -> Tensor:
    """Return every score of a chunk; distances by the Gram form, safe since the bank is centred."""
    with _full_precision(queries.device):
        scores = queries @ bank.T
    if metric == "inner_product":
        return scores
    scores.mul_(2).sub_(queries.square().sum(dim=1, keepdim=True)).sub_(bank.square().sum(dim=1))
    return scores.clamp_(max=0)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Multiply in float32 proper, whatever training has set: no autocast, TF32 or bfloat16."""
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


def _order_ties(similarity: Tensor, index: Tensor) -> Neighbours:
    """Sort by falling similarity, then by rising position; few rows need it."""
    tied = (similarity[:, 1:] >= similarity[:, :-1]).any(dim=1)
    if bool(tied.any()):
        by_index = index[tied].argsort(dim=1)
        values = similarity[tied].gather(1, by_index)
        order = values.argsort(dim=1, descending=True, stable=True)
        similarity, index = similarity.contiguous(), index.contiguous()
        similarity[tied] = values.gather(1, order)
        index[tied] = index[tied].gather(1, by_index).gather(1, order)
    return similarity, index
