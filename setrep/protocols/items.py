"""Item retrieval: do the nearest neighbours of an item share its label?"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from setrep.errors import InputError
from setrep.index.search import top_k
from setrep.metrics import (
    class_means,
    map_at_r,
    recall_at_k,
    true_class_rank,
    weighted_knn_log_votes,
)
from setrep.protocols.results import ItemResult

NEIGHBOURS_AT_ONCE = 2_000_000  # all that is kept of a chunk's neighbours: about 100 MB


@torch.no_grad()
def evaluate_items(
    embeddings: Float[Tensor, "item dim"],
    labels: Int64[Tensor, " item"],
    *,
    knn_k: int = 20,
    knn_temperature: float = 0.1,
    bank: Float[Tensor, "bank dim"] | None = None,
    bank_labels: Int64[Tensor, " bank"] | None = None,
    with_map_at_r: bool = True,
) -> ItemResult:
    """Measure weighted kNN, recall@1 and MAP@R by cosine similarity, from one search.

    Without a bank every item is a query against all others (`held_out_classes`); with one, items
    are queries against it (`train_bank`). Embeddings are L2-normalised here. A query whose label
    has no item in the bank counts as wrong everywhere but in MAP@R, which leaves it out.
    `knn_k` is cut to the size of the bank; the result says which was used. MAP@R searches as deep
    as a class has items; without it `knn_k` neighbours are enough.

    Raises:
        InputError: counts do not fit, or there is nothing to compare with.
    """
    if (bank is None) != (bank_labels is None):
        raise InputError("A bank needs its labels, and labels their bank; give both or none.")
    is_leave_one_out = bank is None
    bank = embeddings if bank is None else bank
    bank_labels = labels if bank_labels is None else bank_labels
    num_bank = len(bank) - is_leave_one_out
    _check(embeddings, labels, bank, bank_labels, num_bank, knn_k)
    knn_k = min(knn_k, num_bank)
    joined = torch.cat([bank_labels, labels]).to(embeddings.device)
    numbers = torch.unique(joined, return_inverse=True)[1]
    rank, first, precision = _measure(
        unit_length(embeddings),
        numbers[len(bank) :],
        None if is_leave_one_out else unit_length(bank),
        numbers[: len(bank)],
        knn_k,
        knn_temperature,
        with_map_at_r,
    )
    is_right = (rank < 1).double()
    return ItemResult(
        num_queries=len(embeddings),
        num_bank=num_bank,
        num_classes=len(torch.unique(labels)),
        knn_k=knn_k,
        knn_temperature=knn_temperature,
        knn_top1=float(is_right.mean()),
        knn_top5=float((rank < 5).double().mean()),
        worst_class_top1=float(class_means(is_right, numbers[len(bank) :]).min()),
        recall_at_1=float(first.mean()),
        map_at_r=None if bool(precision.isnan().all()) else float(precision.nanmean()),
    )


def unit_length(embeddings: Float[Tensor, "n dim"]) -> Float64[Tensor, "n dim"]:
    """L2-normalise in float64: in float32 lengths differ by more than tight clusters do.

    Divides by the largest coordinate first, since squares of tiny or huge ones underflow.
    """
    wide = embeddings.double()
    largest = wide.abs().amax(dim=1, keepdim=True)
    return normalize(wide / largest.masked_fill(largest == 0, 1))


def _measure(
    queries: Tensor,
    labels: Tensor,
    bank: Tensor | None,
    bank_labels: Tensor,
    knn_k: int,
    knn_temperature: float,
    with_map_at_r: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each query's rank of its class by votes, recall@1 and MAP@R or NaN; labels from 0."""
    num_classes = int(max(labels.max(), bank_labels.max())) + 1
    is_self = int(bank is None)
    num_relevant = bank_labels.bincount(minlength=num_classes)[labels] - is_self
    k = max(knn_k, int(num_relevant.max()) if with_map_at_r else 1)
    chunk = max(1, NEIGHBOURS_AT_ONCE // max(k, num_classes))
    ranks, firsts, precisions = [], [], []
    for at in range(0, len(queries), chunk):
        of = slice(at, at + chunk)
        # The order by distance is that by cosine, d^2 = 2 - 2 cos, and has its fine differences.
        score, index = top_k(
            queries[of], queries if bank is None else bank, k + is_self, metric="euclidean"
        )
        similarity = 1 + score / 2
        if bank is None:
            similarity, index = _without_self(similarity, index, at)
        found = bank_labels[index]
        votes = weighted_knn_log_votes(
            similarity[:, :knn_k], found[:, :knn_k], num_classes, knn_temperature
        )
        is_relevant = found == labels[of].unsqueeze(1)
        ranks.append(true_class_rank(votes, labels[of]))
        firsts.append(recall_at_k(is_relevant, 1))
        none = torch.full_like(firsts[-1], torch.nan)
        precisions.append(map_at_r(is_relevant, num_relevant[of]) if with_map_at_r else none)
    return torch.cat(ranks), torch.cat(firsts), torch.cat(precisions)


def _check(
    embeddings: Tensor,
    labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_bank: int,
    knn_k: int,
) -> None:
    """Refuse what cannot be compared; the search checks the rest."""
    if knn_k < 1:
        raise InputError(f"knn_k must be at least 1, not {knn_k}.")
    for values, names in ((embeddings, labels), (bank, bank_labels)):
        if len(values) != len(names):
            raise InputError(f"Each item needs one label; found {len(values)} and {len(names)}.")
    if not len(embeddings) or num_bank < 1:
        raise InputError(
            f"Item retrieval needs a query and an item to compare it with; found "
            f"{len(embeddings)} queries and {num_bank} items. Choose a larger split."
        )


def _without_self(similarity: Tensor, index: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Drop each query from its own neighbours, or the last where equal items crowd it out."""
    queries = torch.arange(start, start + len(index), device=index.device)
    is_self = index == queries.unsqueeze(1)
    is_self[:, -1] |= ~is_self.any(dim=1)
    shape = (len(index), index.shape[1] - 1)
    return similarity[~is_self].view(shape), index[~is_self].view(shape)
