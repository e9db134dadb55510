"""Set distances between a query and the members of collections: re-ranking, and what it can skip.

The distance of two centroids is no larger than the Wasserstein distance of their collections (of
order 1, and so of any higher order). So collections whose centroid is farther than the k-th best
transport found need not be measured, and the answer is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from setrep.collection import CollectionBatch
from setrep.errors import InputError, nearest
from setrep.index.engine import Engine, Found
from setrep.index.records import Name, Records
from setrep.retrieval.columns import label_or_id
from setrep.retrieval.results import ItemMatch
from setrep.set_distances import SET_DISTANCES, SetDistance
from setrep.set_distances.nearest import nearest as nearest_items

T = TypeVar("T")
AT_ONCE = 16  # collections measured before the bound is asked again
WEIGHT_AT_ONCE = 100_000  # items copied to be matched
MOST_LOOKED_AT = 4096  # collections, in search of one of another label
ROUNDING = 1e-5  # that float32 centroids may be off, in units of their items


def find_distance(name: str) -> SetDistance:
    """Return a set distance by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SET_DISTANCES:
        known = list(SET_DISTANCES)
        raise InputError(
            f"Unknown set distance '{name}'.{nearest(name, known)} Choose from: {', '.join(known)}."
        )
    return SET_DISTANCES[name]


def measure(query: CollectionBatch, records: Records, distance: SetDistance) -> list[float]:
    """Score collections against one query by a set distance; larger is better."""
    if not len(records):
        return []
    batch, scores = members_of(records), []
    for some in in_chunks(range(len(batch)), (batch.sizes + len(query.values)).tolist()):
        values = distance.function(query.select([0] * len(some)), batch.select(some))
        scores += (values if distance.is_similarity else -values).tolist()
    return scores


def members_of(records: Records) -> CollectionBatch:
    """Return the members of collections.

    Raises:
        InputError: a collection has none.
    """
    sizes = np.diff(records.offsets)
    if len(sizes) and sizes.min() == 0:
        name = records.ids[int(sizes.argmin())]
        raise InputError(
            f"Collection {name!r} has no members to compare: it was added as a vector. "
            f"Query without re-ranking."
        )
    return CollectionBatch(torch.from_numpy(records.members), torch.from_numpy(records.offsets))


def rank(scores: dict[Name, float]) -> Found:
    """Return all, the best first; of equal scores the one that was measured first."""
    return sorted(scores.items(), key=lambda pair: -pair[1])


def rerank_candidates(
    engine: Engine, query: CollectionBatch, candidates: Found, distance: SetDistance
) -> Found:
    """Return the candidates by a set distance, the best first."""
    names = [name for name, _ in candidates]
    scores = measure(query, engine.fetch(names), distance)
    return rank(dict(zip(names, scores, strict=True)))


def nearest_by_transport(
    engine: Engine,
    query: CollectionBatch,
    ascending: Callable[[int], Found],
    distance: SetDistance,
    k: int,
) -> Found:
    """Return those measured by a transport distance, the best first.

    The first `k` are the nearest of the index, and the first of them with another label than the
    first of all is the nearest of those, if there is one among the next `MOST_LOOKED_AT`.
    `ascending(count)` returns so many collections by rising distance of the centroids.
    """
    scores: dict[Name, float] = {}
    kinds: dict[Name, tuple[bool, Name]] = {}
    scale = float(torch.linalg.vector_norm(query.values, dim=1).max())
    looked_at = 0  # beyond the k nearest

    def take(some: Found) -> None:
        records = engine.fetch([name for name, _ in some])
        scores.update(zip(records.ids, measure(query, records, distance), strict=True))
        kinds.update(zip(records.ids, map(label_or_id, records.ids, records.payloads), strict=True))

    for some in in_parts(ascending, k):
        kth = -rank(scores)[k - 1][1] if len(scores) >= k else math.inf
        near = [pair for pair in some if may_be_nearer(pair[1], kth, scale)]
        take(near)
        rest = some[len(near) :]  # too far to be among the k, as is all that follows
        if not rest:
            continue
        best, *others = rank(scores)
        other = next((-score for name, score in others if kinds[name] != kinds[best[0]]), math.inf)
        rest = [pair for pair in rest if may_be_nearer(pair[1], other, scale)]
        looked_at += len(some)
        if not rest or (other == math.inf and looked_at >= MOST_LOOKED_AT):
            break
        told = engine.fetch([name for name, _ in rest], with_members=False)
        new = map(label_or_id, told.ids, told.payloads)
        take([pair for pair, kind in zip(rest, new, strict=True) if kind != kinds[best[0]]])
    return rank(scores)


def may_be_nearer(score: float, kth: float, scale: float) -> bool:
    """Say whether a collection of this centroid score may be at `kth` or nearer.

    `scale` is the length of the longest item of the query.
    """
    distance = math.sqrt(max(0.0, -score))
    return distance - ROUNDING * (2 * scale + distance) <= kth


def in_parts(ascending: Callable[[int], Found], k: int) -> Iterator[Found]:
    """Return ever more collections by rising distance of the centroids, some at a time."""
    done, wanted = 0, max(4 * k, 4 * AT_ONCE)
    while True:
        found = ascending(wanted)
        for start in range(done, len(found), AT_ONCE):
            yield found[start : start + AT_ONCE]
        if len(found) < wanted:
            return
        done, wanted = len(found), 4 * wanted


def match_items(
    queries: CollectionBatch, records: Records, rows: Sequence[Sequence[int]]
) -> list[list[tuple[ItemMatch, ...]]]:
    """Return for each query, and each of its rows of records, the member nearest to each item.

    A collection without members has none.
    """
    sizes = np.diff(records.offsets)
    found: list[list[tuple[ItemMatch, ...]]] = [[()] * len(of) for of in rows]
    pairs = [(i, j, row) for i, of in enumerate(rows) for j, row in enumerate(of) if sizes[row]]
    batch = CollectionBatch(
        torch.from_numpy(records.members), torch.from_numpy(records.offsets), allow_empty=True
    )
    sizes_of_queries = queries.sizes.tolist()
    for some in in_chunks(pairs, [sizes_of_queries[i] + int(sizes[row]) for i, _, row in pairs]):
        x, y = queries.select([i for i, _, _ in some]), batch.select([row for _, _, row in some])
        for (i, j, _), matched in zip(some, match_pairs(x, y), strict=True):
            found[i][j] = matched
    return found


def match_pairs(x: CollectionBatch, y: CollectionBatch) -> Iterator[tuple[ItemMatch, ...]]:
    """Return for each collection of x which of y's, of the same place, is nearest to each item."""
    where = nearest_items(x, y)
    similarity = -(x.values.double() - y.values.double()[where]).square().sum(1).float()
    members = (where - y.offsets[:-1][x.index]).tolist()
    scores, ends = (similarity + 0.0).tolist(), x.offsets.tolist()
    for start, end in pairwise(ends):
        matched = zip(members[start:end], scores[start:end], strict=True)
        yield tuple(ItemMatch(item, *pair) for item, pair in enumerate(matched))


def in_chunks(things: Sequence[T], weights: Sequence[int]) -> Iterator[list[T]]:
    """Return things in parts of `WEIGHT_AT_ONCE`, or of one that is more."""
    some: list[T] = []
    total = 0
    for thing, weight in zip(things, weights, strict=True):
        if some and total + weight > WEIGHT_AT_ONCE:
            yield some
            some, total = [], 0
        some.append(thing)
        total += weight
    if some:
        yield some
