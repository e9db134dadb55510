"""What a query finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from setrep.index.records import Name


@dataclass(frozen=True)
class ItemMatch:
    """An item of the query, and the member of a found collection that is nearest to it."""

    query_item: int
    member: int
    similarity: float  # minus the squared Euclidean distance of their embeddings


@dataclass(frozen=True)
class Match:
    """A collection that was found.

    Attributes:
        id: its id.
        score: larger is better: minus the squared Euclidean distance of the embeddings, or minus
            the set distance it was re-ranked by (the similarity itself, of a similarity).
        label: its label, or none.
        metadata: what was given with it.
        items: which member is nearest to each item of the query; empty if no members are kept.
        sources: the names of its members, in order; empty if none were given.
    """

    id: Name
    score: float
    label: Name | None = None
    metadata: dict[str, Any] | None = None
    items: tuple[ItemMatch, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result(Sequence[Match]):
    """What one query found, best first, and how far to trust it.

    Attributes:
        matches: the collections.
        num_items: how many items the query had; none if it was a vector.
        margin: the score of the first match less that of the best collection of another label
            (of another id, for collections without a label); none where there is no other among
            the 4,096 nearest. Re-ranked, it is of those that were measured.
        delta: a bound on the probability that a random draw of so many items, from the pool of
            any label of the index, is nearest to a collection of another label; see
            `IndexCertificate`. Not the probability that this answer is wrong.
        delta_note: what delta says, or why there is none.
        num_measured: how many collections were measured by a set distance; none if not asked for.
        is_exact: no collection was left unmeasured that may be nearer.
    """

    matches: tuple[Match, ...]
    num_items: int | None = None
    margin: float | None = None
    delta: float | None = None
    delta_note: str = ""
    num_measured: int | None = None
    is_exact: bool = True

    def __len__(self) -> int:
        return len(self.matches)

    @overload
    def __getitem__(self, place: int) -> Match: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Match]: ...
    def __getitem__(self, place: int | slice) -> Match | Sequence[Match]:
        return self.matches[place]

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)
