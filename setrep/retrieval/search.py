"""How a query is answered: the nearest embeddings, re-ranked or not, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index.engine import Engine, Found
from setrep.index.records import Name, Payload, Records, Where
from setrep.retrieval.certificate import IndexCertificate
from setrep.retrieval.columns import label_of, label_or_id, metadata_of, sources_in
from setrep.retrieval.rerank import (
    MOST_LOOKED_AT,
    find_distance,
    match_items,
    nearest_by_transport,
    rerank_candidates,
)
from setrep.retrieval.results import ItemMatch, Match, Result

Vectors = Float[NDArray[np.float32], "query dim"]
FOUND_AT_ONCE = 1_000_000
OF_A_PART = "it is of the whole index, not of a part of it"
TRANSPORTS = ("wasserstein",)  # no smaller than the distance of centroids


@dataclass(frozen=True)
class Question:
    """What is asked of an index, of all queries alike but for what they leave out."""

    k: int
    where: Where | None
    exclude: Sequence[frozenset[Name]]
    rerank: str | None = None
    num_candidates: int = 100
    with_items: bool = True


@dataclass(frozen=True)
class Answer:
    """The best of one query, and how far the first is ahead."""

    found: Found
    margin: float | None
    num_measured: int | None
    is_exact: bool


def answer(
    engine: Engine,
    vectors: Vectors,
    members: CollectionBatch | None,
    question: Question,
    *,
    is_mean: bool,
) -> list[Result]:
    """Answer queries; `is_mean` says whether the index holds centroids, untouched."""
    if question.rerank is None:
        answers = nearest(engine, vectors, question)
    else:
        if members is None:
            raise InputError("A vector has no items to re-rank by: query with a collection.")
        answers = [
            reranked(engine, vectors[[i]], members.select([i]), of_queries(question, [i]), is_mean)
            for i in range(len(vectors))
        ]
    sizes = [None] * len(vectors) if members is None else members.sizes.tolist()
    names = list(dict.fromkeys(name for of in answers for name, _ in of.found))
    records = engine.fetch(names, with_members=question.with_items)
    results = [
        Result((), size, of.margin, None, "", of.num_measured, of.is_exact)
        for of, size in zip(answers, sizes, strict=True)
    ]
    matches = describe(records, answers, members, question)
    return [replace(result, matches=of) for result, of in zip(results, matches, strict=True)]


def of_queries(question: Question, places: Sequence[int]) -> Question:
    """Return the question of some of the queries."""
    return replace(question, exclude=[question.exclude[place] for place in places])


def nearest(engine: Engine, vectors: Vectors, question: Question) -> list[Answer]:
    """Return the nearest of each query, having looked on for one of another label."""
    found = without(engine, vectors, question.k + 1, question)
    payloads = look_up(engine, found)
    leads = [margin(of, payloads) for of in found]
    is_sure, wanted = is_exact(engine, question), question.k + 1
    open_ones = [i for i, lead in enumerate(leads) if lead is None and len(found[i]) >= wanted]
    while open_ones and wanted < MOST_LOOKED_AT:
        wanted = min(16 * wanted, MOST_LOOKED_AT)
        still_open = []
        for some in batched(open_ones, max(1, FOUND_AT_ONCE // wanted)):
            more = without(engine, vectors[some], wanted, of_queries(question, some))
            payloads = look_up(engine, more)
            for i, of in zip(some, more, strict=True):
                leads[i] = margin(of, payloads)
                if leads[i] is None and len(of) >= wanted:
                    still_open.append(i)
        open_ones = still_open
    return [
        Answer(of[: question.k], lead, None, is_sure) for of, lead in zip(found, leads, strict=True)
    ]


def batched(rows: list[int], size: int) -> Iterator[list[int]]:
    """Return rows in parts."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def is_exact(engine: Engine, question: Question) -> bool:
    """Say whether a search finds the nearest, as one with a filter always does."""
    return engine.is_exact or question.where is not None


def without(engine: Engine, vectors: Vectors, count: int, question: Question) -> list[Found]:
    """Return the `count` nearest of each query but for what it leaves out."""
    rows_of: dict[int, list[int]] = {}  # by how many are fetched, so that none weighs on another
    for row, gone in enumerate(question.exclude):
        rows_of.setdefault(count + len(gone), []).append(row)
    nearest: list[Found] = [[]] * len(vectors)
    for wanted, rows in rows_of.items():
        found = engine.search(vectors[rows], wanted, where=question.where)
        for row, of in zip(rows, found, strict=True):
            nearest[row] = [pair for pair in of if pair[0] not in question.exclude[row]][:count]
    return nearest


def reranked(
    engine: Engine, vector: Vectors, query: CollectionBatch, question: Question, is_mean: bool
) -> Answer:
    """Return the best of one query by a set distance."""
    assert question.rerank is not None
    distance = find_distance(question.rerank)

    def ascending(count: int) -> Found:
        return without(engine, vector, count, question)[0]

    if question.rerank in TRANSPORTS and is_mean:
        found = nearest_by_transport(engine, query, ascending, distance, question.k)
        is_all = True
    else:
        wanted = max(question.k, question.num_candidates)
        candidates = ascending(wanted + 1)
        found = rerank_candidates(engine, query, candidates[:wanted], distance)
        is_all = len(candidates) <= wanted
    lead = margin(found, look_up(engine, [found]))
    is_known = is_all and is_exact(engine, question)
    return Answer(found[: question.k], lead, len(found), is_known)


def look_up(engine: Engine, found: Sequence[Found]) -> dict[Name, Payload]:
    """Return what is told of the collections that were found."""
    names = list(dict.fromkeys(name for of in found for name, _ in of))
    records = engine.fetch(names, with_members=False)
    return dict(zip(records.ids, records.payloads, strict=True))


def margin(found: Found, payloads: dict[Name, Payload]) -> float | None:
    """Return how far the first is ahead of the best of another label, or none if there is none."""
    kinds = [label_or_id(name, payloads[name]) for name, _ in found]
    for kind, (_, score) in zip(kinds, found, strict=True):
        if kind != kinds[0]:
            return found[0][1] - score
    return None


def describe(
    records: Records,
    answers: Sequence[Answer],
    members: CollectionBatch | None,
    question: Question,
) -> list[tuple[Match, ...]]:
    """Return the matches of each query."""
    row_of = {name: row for row, name in enumerate(records.ids)}
    rows = [[row_of[name] for name, _ in of.found] for of in answers]
    sizes = np.diff(records.offsets).tolist()  # 0 where members were not fetched
    if members is None or not question.with_items:
        items: list[list[tuple[ItemMatch, ...]]] = [[()] * len(of) for of in rows]
    else:
        items = match_items(members, records, rows)
    return [
        tuple(
            Match(
                name,
                score,
                label_of(records.payloads[row]),
                metadata_of(records.payloads[row]),
                matched,
                sources_in(records.payloads[row], sizes[row] or None),
            )
            for (name, score), row, matched in zip(of.found, of_rows, of_items, strict=False)
        )
        for of, of_rows, of_items in zip(answers, rows, items, strict=True)
    ]


def certified(
    results: Sequence[Result],
    certificate: IndexCertificate | str,
    why_not: str | None,
    exclude: Sequence[frozenset[Name]],
) -> list[Result]:
    """Add to each result what the certificate of the index says of its size of query."""
    found = []
    for result, left_out in zip(results, exclude, strict=True):
        reason = why_not or (OF_A_PART if left_out else None)
        if reason is not None or isinstance(certificate, str):
            found.append(replace(result, delta_note=reason or str(certificate)))
            continue
        delta = None if result.num_items is None else certificate.delta(result.num_items)
        note = certificate.explain(result.num_items)
        found.append(replace(result, delta=delta, delta_note=note))
    return found
