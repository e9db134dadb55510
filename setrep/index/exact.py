"""The best pairs by scores measured one by one in float64, which rounding does not reorder."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from setrep.index.bank import Bank
from setrep.index.metric import Metric
from setrep.index.scores import error_bound, move, score_all

Best = tuple[Float64[Tensor, "query k"], Int64[Tensor, "query k"]]

VALUES_AT_ONCE = 2**18  # 2 MB of float64: fits a cache
SCANNED_AT_ONCE = 4_000_000  # scores of a scan; with ties each becomes a pair of 40 bytes


def score_pairs(
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"],
    rows: Int64[Tensor, " pair"],
    items: Int64[Tensor, " pair"],
    metric: Metric,
) -> Float64[Tensor, " pair"]:
    """Score some pairs; a pair scores the same bits in any company."""
    step = max(1, VALUES_AT_ONCE // max(1, queries.shape[1]))
    parts = []
    for of_rows, of_items in zip(torch.split(rows, step), torch.split(items, step), strict=True):
        query, item = queries[of_rows].double(), bank[of_items].double()
        if metric == "inner_product":
            parts.append(_sum_rows(query.mul_(item)))
        else:
            parts.append(_sum_rows(query.sub_(item).square_()).neg_())
    return torch.cat(parts)


def _sum_rows(values: Float64[Tensor, "row n"]) -> Float64[Tensor, " row"]:
    """Add halves until one column is left: unlike in `sum`, only `n` decides the order."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        last = values[:, -1] if values.shape[1] % 2 else None
        values = values[:, :half] + values[:, half : 2 * half]
        if last is not None:
            values[:, 0] += last
    return values.sum(dim=1)


def choose(
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"],
    candidates: Int64[Tensor, "query candidate"],
    k: int,
    metric: Metric,
    *,
    has_gaps: bool = False,
) -> Best:
    """Return the `k` best of each query's candidates, of equal ones the lowest positions.

    With gaps, a candidate -1 is none; it scores -inf and comes last.
    """
    items = candidates.sort(dim=1).values
    rows = torch.arange(len(items), device=items.device).unsqueeze(1).expand_as(items)
    places = items.clamp(min=0) if has_gaps else items
    pairs = rows.reshape(-1), places.reshape(-1)
    scores = score_pairs(queries, bank, *pairs, metric).view(items.shape)
    if has_gaps:
        scores.masked_fill_(items < 0, -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k], items.gather(1, order[:, :k])


def scan(
    queries: Float[Tensor, "query dim"],
    bank: Bank,
    k: int,
) -> Best:
    """Return the `k` best of the whole bank; slower, but no rounding hides one from it."""
    chunk = max(1, SCANNED_AT_ONCE // len(bank))
    parts = [_scan_chunk(some, bank, k) for some in torch.split(queries, chunk)]
    return torch.cat([scores for scores, _ in parts]), torch.cat([items for _, items in parts])


def _scan_chunk(queries: Tensor, bank: Bank, k: int) -> Best:
    """Measure all pairs whose float64 product leaves it open whether they are among the best."""
    metric, values = bank.metric, bank.values
    moved = move(queries, bank.centre, torch.float64)
    step = max(1, SCANNED_AT_ONCE // max(1, values.shape[1]))
    pieces = (move(piece, bank.centre, torch.float64) for piece in torch.split(values, step))
    rough = torch.cat([score_all(moved, piece, metric) for piece in pieces], dim=1)
    kth = rough.topk(k, dim=1).values[:, -1]
    limit = kth - 2 * error_bound(moved, bank.widest, kth, metric, torch.float64)
    rows, items = (rough >= limit.unsqueeze(1)).nonzero(as_tuple=True)
    scores = score_pairs(queries, values, rows, items, metric)
    order = scores.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    counts = rows.bincount(minlength=len(queries))
    places = torch.arange(k, device=rows.device) + (counts.cumsum(dim=0) - counts).unsqueeze(1)
    best = order[places]
    return scores[best], items[best]
