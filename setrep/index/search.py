"""Exact nearest neighbours, through FAISS where it is installed and torch where it is not."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.index.bank import Bank, check_values
from setrep.index.exact import Best, choose, scan
from setrep.index.faiss_door import faiss_knn, load_faiss
from setrep.index.metric import Metric
from setrep.index.scores import error_bound, move, score_all

Backend = Literal["auto", "faiss", "torch"]
Neighbours = tuple[Float[Tensor, "query k"], Int64[Tensor, "query k"]]

SCORES_AT_ONCE = 50_000_000  # 200 MB of float32
SPARE = 4  # fetched beyond k: without them the k-th is seldom far enough from the rest


@torch.no_grad()
def top_k(
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"] | Bank,
    k: int,
    *,
    metric: Metric = "inner_product",
    backend: Backend = "auto",
) -> Neighbours:
    """Return the similarity and the bank position of the `k` nearest of each query, exactly.

    Larger similarity comes first, then lower position, also where a tie crosses the k-th place.
    Euclidean similarity is minus the squared distance. A row is the same bits whatever the backend
    and the other queries: float32 products only propose items, whose scores are then measured in
    float64, distances by direct differences; where the float32 error bound leaves open whether one
    was missed, the whole bank is scanned. The order is that of float64, in which alone ties count;
    the similarities are rounded to float32 last, which may make neighbours look equal.

    Tight clusters far apart take the scan, which costs up to about as much again; so do items
    equal beyond the k-th place, at a float64 measurement of each.

    A `Bank` of the same metric saves what is done to the bank alone, for those who search it again.

    `auto` takes FAISS for tensors on the CPU when it imports, else torch on the tensors' device.
    Never call this in a forked worker: FAISS hangs when its parent has used it before the fork.

    Raises:
        InputError: shapes, `k`, values or names do not fit.
    """
    scores, index = top_k_wide(queries, bank, k, metric, backend)
    return scores.float() + 0, index  # -0 becomes 0


@torch.no_grad()
def top_k_wide(
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"] | Bank,
    k: int,
    metric: Metric,
    backend: Backend = "auto",
) -> Best:
    """Return what `top_k` does, the scores as they were measured."""
    _check(queries, bank, k, metric, backend)
    prepared = bank if isinstance(bank, Bank) else Bank.of(bank, metric)
    faiss = None
    if backend == "faiss" or (backend == "auto" and not queries.is_cuda):
        faiss = load_faiss(is_required=backend == "faiss")
    if not len(queries):
        empty = torch.zeros(0, k, dtype=torch.float64, device=queries.device)
        return empty, empty.long()
    moved = move(queries.detach(), prepared.centre, torch.float32)
    num_fetched = min(k + SPARE, len(bank))
    if faiss is None:
        rough, candidates = _search_torch(moved, prepared.near, num_fetched, metric)
    else:
        rough, candidates = faiss_knn(faiss, moved, prepared.near, num_fetched, metric)
    scores, index = choose(queries, prepared.values, candidates, k, metric)
    if num_fetched < len(bank):
        bound = error_bound(moved, prepared.widest, scores[:, -1], metric, torch.float32)
        is_open = scores[:, -1] <= rough[:, -1] + bound
        if bool(is_open.any()):
            scores[is_open], index[is_open] = scan(queries[is_open], prepared, k)
    return scores, index


def _check(queries: Tensor, given: Tensor | Bank, k: int, metric: str, backend: str) -> None:
    """Refuse what cannot be searched."""
    bank = given.values if isinstance(given, Bank) else given
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
    if isinstance(given, Bank) and given.metric != metric:
        raise InputError(f"The bank was prepared for '{given.metric}', not '{metric}'.")
    check_values("queries", queries)


def _search_torch(queries: Tensor, bank: Tensor, k: int, metric: Metric) -> Neighbours:
    """Search in chunks of queries, so that the scores at hand stay bounded."""
    chunk = max(1, SCORES_AT_ONCE // len(bank))
    parts = [score_all(some, bank, metric).topk(k, dim=1) for some in torch.split(queries, chunk)]
    return torch.cat([scores for scores, _ in parts]), torch.cat([index for _, index in parts])
