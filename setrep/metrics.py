"""Neighbours to numbers: one value per query, so that means, classes and bootstraps can follow."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from scipy.special import ndtr, stdtrit
from torch import Tensor

from setrep.errors import InputError

__all__ = [
    "bootstrap_over_classes",
    "class_means",
    "map_at_r",
    "recall_at_k",
    "true_class_rank",
    "weighted_knn_log_votes",
]

FEWEST_CLASSES = 5  # of fewer, whatever is drawn says too little about the others


def weighted_knn_log_votes(
    similarity: Float[Tensor, "query k"],
    neighbour_labels: Int64[Tensor, "query k"],
    num_classes: int,
    temperature: float,
) -> Float[Tensor, "query num_classes"]:
    r"""Logarithm of the weighted votes of the k nearest neighbours (Wu et al. 2018).

    $$ v_c = \sum_{i \in N_k,\, y_i = c} \exp(s_i / T) $$

    A class without a neighbour has $-\infty$. Computed by `logsumexp` of each class in float64, so
    that no temperature overflows or loses a vote.
    """
    if not temperature > 0:
        raise InputError(f"The kNN temperature must be positive, not {temperature}.")
    logits = similarity.double() / temperature
    largest = logits.new_full((len(logits), num_classes), -torch.inf)
    largest.scatter_reduce_(1, neighbour_labels, logits, "amax")
    share = (logits - largest.gather(1, neighbour_labels)).exp()
    return largest + torch.zeros_like(largest).scatter_add_(1, neighbour_labels, share).log()


def true_class_rank(
    votes: Float[Tensor, "query num_classes"], labels: Int64[Tensor, " query"]
) -> Int64[Tensor, " query"]:
    """Count the classes ahead of the true one; below n means right in the top n.

    Of equal votes the lower class is ahead. A true class without a vote ranks below any n, so that
    with few neighbours or classes it does not count as right.
    """
    true = votes.gather(1, labels.unsqueeze(1))
    is_lower = torch.arange(votes.shape[1], device=votes.device) < labels.unsqueeze(1)
    rank = ((votes > true) | ((votes == true) & is_lower)).sum(dim=1)
    return rank.masked_fill(true.squeeze(1) == -torch.inf, torch.iinfo(torch.int64).max)


def recall_at_k(is_relevant: Bool[Tensor, "query neighbour"], k: int) -> Float[Tensor, " query"]:
    """1 for a query with a relevant item among its first k neighbours, else 0 (Musgrave 2020)."""
    return is_relevant[:, :k].any(dim=1).double()


def map_at_r(
    is_relevant: Bool[Tensor, "query neighbour"], num_relevant: Int64[Tensor, " query"]
) -> Float[Tensor, " query"]:
    r"""Mean average precision at R (Musgrave et al. 2020).

    $$ \frac{1}{R} \sum_{i=1}^{R} [i \text{ is relevant}] \cdot \text{precision at } i $$

    R is the number of relevant items in the bank; a query without one has NaN, to be left out.

    Raises:
        InputError: there are fewer neighbours than the largest R.
    """
    needed = int(num_relevant.max()) if len(num_relevant) else 0
    if needed > is_relevant.shape[1]:
        raise InputError(
            f"MAP@R needs as many neighbours as relevant items, {needed}; "
            f"found {is_relevant.shape[1]}. Search with a larger k."
        )
    place = torch.arange(1, is_relevant.shape[1] + 1, device=is_relevant.device)
    precision = is_relevant.cumsum(dim=1).double() / place
    counts = is_relevant & (place <= num_relevant.unsqueeze(1))
    total = precision.masked_fill(~counts, 0.0).sum(dim=1)
    return (total / num_relevant).masked_fill(num_relevant == 0, torch.nan)


def class_means(
    values: Float[Tensor, " query"], labels: Int64[Tensor, " query"]
) -> Float[Tensor, " num_classes"]:
    """Mean of each class that has queries; its minimum is the worst class."""
    sums, counts = _class_sums(values, labels)
    return sums / counts


def bootstrap_over_classes(
    values: Float[Tensor, " query"],
    labels: Int64[Tensor, " query"],
    num_resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    r"""95 % interval of the mean over queries when whole classes are drawn anew.

    Classes, and not queries, are what another sample of the data would change: queries of one
    class rise and fall together. Each resample draws as many classes as there are, with
    replacement, and averages all their queries. Queries with NaN are left out. The interval is the
    expanded percentile bootstrap (Hesterberg 2015), which with n classes lies between the quantiles
    $\alpha'$ and $1 - \alpha'$ of the resamples; those at 2.5 and 97.5 % would be too near.

    $$ \alpha' = \Phi(-\sqrt{n / (n - 1)} \; t_{0.975, n - 1}) $$

    Of fewer than five classes there is none.

    Raises:
        InputError: no resample is asked for.
    """
    if num_resamples < 1:
        raise InputError(f"A bootstrap needs at least one resample; asked for {num_resamples}.")
    is_valid = ~values.isnan()
    sums, counts = _class_sums(values[is_valid].cpu(), labels[is_valid].cpu())
    n = len(sums)
    if n < FEWEST_CLASSES:
        return None
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(num_resamples):
        drawn = torch.randint(n, (n,), generator=generator)
        means.append(sums[drawn].sum() / counts[drawn].sum())
    alpha = float(ndtr(-((n / (n - 1)) ** 0.5) * stdtrit(n - 1, 0.975)))
    low, high = torch.stack(means).quantile(torch.tensor([alpha, 1 - alpha], dtype=torch.float64))
    return float(low), float(high)


def _class_sums(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the values of each class."""
    classes, position = torch.unique(labels, return_inverse=True)
    sums = values.new_zeros(len(classes), dtype=torch.float64)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, position, values.double())
    return sums, counts.index_add_(0, position, torch.ones_like(values, dtype=torch.float64))
