"""What an approximate index finds of the nearest, and how little search is enough for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from setrep.index.approximate import Approximate, Vectors, build_index
from setrep.index.bank import Bank
from setrep.index.exact import choose
from setrep.index.kinds import Kind
from setrep.index.metric import Metric
from setrep.index.search import top_k_wide

RECALL_AT = 10
MOST_QUERIES = 1000
WIDEST, MOST_FETCHED = 4096, 64  # efSearch, and candidates of PQ for each neighbour


@dataclass(frozen=True, eq=False)
class Exam:
    """Vectors of the index as queries, and the score that their 10 nearest others have."""

    bank: Bank
    rows: Int64[Tensor, " query"]
    least: Float64[Tensor, " query"]
    count: int  # of neighbours, 10 or all there are

    @classmethod
    def of(cls, bank: Bank, rows: Int64[Tensor, " query"]) -> Exam:
        """Find the nearest others of each query exactly."""
        count = min(RECALL_AT, len(bank) - 1)
        queries = bank.values[rows]
        scores, items = top_k_wide(queries, bank, count + 1, bank.metric)
        others = _without(scores, items, rows)[:, :count]
        return cls(bank, rows, others[:, -1], count)

    def recall(self, index: Approximate) -> float:
        """Return the share of the nearest others that are found; of equal ones any may be."""
        queries = self.bank.values[self.rows]
        candidates = index.propose(queries, min(index.fetched(self.count) + 1, len(self.bank)))
        num_candidates = candidates.shape[1]
        found = choose(
            queries, self.bank.values, candidates, num_candidates, self.bank.metric, has_gaps=True
        )
        others = _without(*found, self.rows)[:, : self.count]
        return float((others >= self.least.unsqueeze(1)).double().mean())


def _without(
    scores: Float[Tensor, "query k"], items: Int64[Tensor, "query k"], rows: Int64[Tensor, " query"]
) -> Float[Tensor, "query k"]:
    """Return scores without that of the query itself, which becomes the last."""
    is_self = items == rows.unsqueeze(1)
    left = scores.masked_fill(is_self, -torch.inf)
    return left.sort(dim=1, descending=True).values


def build(
    vectors: Vectors,
    metric: Metric,
    kind: Kind,
    target_recall: float,
    parameters: Mapping[str, int] | None = None,
) -> Approximate:
    """Build an index and measure it; without `parameters`, search as little as reaches the recall.

    Queries that choose the parameters are not those that measure.

    Raises:
        InputError: there are too few vectors, or FAISS is missing.
    """
    index = build_index(vectors, metric, kind, parameters)
    bank = Bank.of(torch.from_numpy(vectors), metric)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(vectors)))
    num_measured = min(MOST_QUERIES, (len(vectors) + 1) // 2)
    if parameters is None:
        rows = order[num_measured : num_measured + MOST_QUERIES]
        index = _tuned(index, Exam.of(bank, rows), target_recall)
    recall = Exam.of(bank, order[:num_measured]).recall(index)
    return Approximate(index.index, replace(index.found, recall_at_10=round(recall, 4)))


def _tuned(index: Approximate, exam: Exam, target_recall: float) -> Approximate:
    """Return the index with the least search that reaches the recall, or with the most there is."""
    if index.found.kind == "hnsw":
        return _first(index, exam, target_recall, "efSearch", ladder(16, WIDEST))
    if index.found.kind == "pq":
        index = index.with_parameters(overfetch=MOST_FETCHED)
    index = _first(index, exam, target_recall, "nprobe", ladder(1, index.found.parameters["nlist"]))
    if index.found.kind == "pq":
        index = _first(index, exam, target_recall, "overfetch", ladder(1, MOST_FETCHED))
    return index


def _first(
    index: Approximate, exam: Exam, target_recall: float, name: str, steps: Iterator[int]
) -> Approximate:
    """Return the index with the first value of a parameter that reaches the recall, or the last."""
    tried = index
    for value in steps:
        tried = index.with_parameters(**{name: value})
        if exam.recall(tried) >= target_recall:
            break
    return tried


def ladder(least: int, most: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 8, 12 and so on times the least, up to the most."""
    step = least
    while step < most:
        yield step
        if step * 3 // 2 > step and step * 3 // 2 < most and step > 1:
            yield step * 3 // 2
        step *= 2
    yield most
