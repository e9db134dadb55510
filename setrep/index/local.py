"""Engines of this process: exact and approximate search, through FAISS where it is installed."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.engine import Engine, Found
from setrep.index.filters import Columns
from setrep.index.kinds import KINDS, Kind, SearchKind, check_kind, kind_for
from setrep.index.metric import Metric
from setrep.index.records import Name, Payload, Records, Where, check, gather, join

if TYPE_CHECKING:  # writing an index imports no torch
    from setrep.index.approximate import Approximate
    from setrep.index.bank import Bank
    from setrep.index.mixed import Mixed

Rows = tuple[int, ...]


class LocalEngine(Engine):
    """Keeps collections in parts that never change, and the rows of each that are deleted.

    By a kind other than flat, the first part has an approximate index; all others are searched
    exactly, and so is everything where the index finds too few.
    """

    kinds = KINDS

    def __init__(
        self,
        dim: int,
        member_dim: int,
        metric: Metric,
        parts: Sequence[Records] = (),
        deleted: Sequence[Rows] = (),
    ) -> None:
        self.dim, self.member_dim, self.metric = dim, member_dim, metric
        self._parts, self._deleted = list(parts), list(deleted)

    @abstractmethod
    def _change(self, deleted: list[Rows], records: Records | None) -> None:
        """Delete these rows of each part and add a part, if there is one: both or neither."""

    @abstractmethod
    def _index_by(self, whole: Records | None, index: Approximate | None) -> None:
        """Hold one part, which an index is of; or the parts that there are, and no index."""

    @property
    @abstractmethod
    def _index(self) -> Approximate | None:
        """The index of the first part, where there is one."""

    def add(self, records: Records) -> None:
        """Keep more collections, all of them or on an error none."""
        check(records, self.dim, self.member_dim)
        for name in records.ids:
            if name in self._places:
                raise InputError(f"The id {name!r} is in the index already.")
        if len(records):
            self._change(self._deleted, records)

    def delete(self, ids: Sequence[Name]) -> None:
        """Forget collections, all of them or on an error none."""
        if ids:
            self._change(self._without(ids), None)

    def replace(self, records: Records) -> None:
        """Keep collections in place of those of the same ids, all of them or on an error none."""
        check(records, self.dim, self.member_dim)
        if len(records):
            self._change(self._without(records.ids), records)

    def search(
        self,
        queries: Float[NDArray[np.float32], "query dim"],
        k: int,
        *,
        where: Where | None = None,
    ) -> list[Found]:
        """Return the `k` nearest collections of each query, best first."""
        self.check_queries(queries, k)
        names, rows = (
            self._names,
            None if where is None else self._columns.rows(where, len(self._names)),
        )
        if rows is not None:
            names = [names[row] for row in rows.tolist()]
        if not names:
            return [[] for _ in queries]
        import torch

        from setrep.index.search import top_k

        asked, k = torch.from_numpy(np.ascontiguousarray(queries)), min(k, len(names))
        mixed = self._mixed if rows is None else None
        if mixed is not None:
            scores, places = mixed.search(asked, k)
        else:
            bank = self._bank if rows is None else self._bank.take(torch.from_numpy(rows))
            scores, places = top_k(asked, bank, k, metric=self.metric)
        return [
            [(names[place], score) for place, score in zip(row, of_row, strict=True)]
            for row, of_row in zip(places.tolist(), scores.tolist(), strict=True)
        ]

    def set_kind(
        self,
        kind: Kind | Literal["auto"],
        *,
        target_recall: float = 0.95,
        parameters: Mapping[str, int] | None = None,
    ) -> SearchKind:
        """Search by another kind of index; one that is not flat joins all parts into one."""
        check_kind(kind, target_recall, parameters)
        wanted = kind_for(self.count()) if kind == "auto" else kind
        if wanted == "flat":
            self._index_by(None, None)
            return self.kind
        from setrep.index.tuning import build

        is_whole = len(self._parts) == 1 and bool(self._live[0].all())
        whole = self._parts[0] if is_whole else join([self._nothing, *self.iterate()])
        index = build(whole.vectors, self.metric, wanted, target_recall, parameters)
        self._index_by(whole, index)
        return self.kind

    def fetch(self, ids: Sequence[Name], *, with_members: bool = True) -> Records:
        """Return collections by their ids, in the order asked for."""
        places = [self._place_of(name) for name in ids]
        return gather(self._parts or [self._nothing], places, with_members=with_members)

    def iterate(self, batch_size: int = 1000, *, with_members: bool = True) -> Iterator[Records]:
        """Return all collections, in the order that they were added."""
        for part, live in zip(self._parts, self._live, strict=True):
            rows = np.flatnonzero(live).tolist()
            for start in range(0, len(rows), batch_size):
                yield part.take(rows[start : start + batch_size], with_members=with_members)

    def ids(self) -> list[Name]:
        """Return all ids, in the order that they were added."""
        return list(self._places)

    def count(self) -> int:
        """Return how many collections there are."""
        return len(self._places)

    def _hold(self, parts: Sequence[Records], deleted: Sequence[Rows]) -> None:
        """Hold other parts from now on."""
        old, before, places = self._parts, self._deleted, self.__dict__.get("_places")
        self._parts, self._deleted = list(parts), list(deleted)
        for name in ("_live", "_places", "_names", "_bank", "_mixed", "_columns"):
            self.__dict__.pop(name, None)
        is_grown = len(old) <= len(parts) and all(map(operator.is_, old, parts))
        if places is None or not is_grown or any(self._deleted[len(old) :]):
            return
        # Many small changes take no more than they change.
        for part, were, are in zip(old, before, self._deleted, strict=False):
            for row in set(are) - set(were) if are is not were else ():
                del places[part.ids[row]]
        for number, part in enumerate(self._parts[len(old) :], len(old)):
            places |= {name: (number, row) for row, name in enumerate(part.ids)}
        self._places = places

    @cached_property
    def _live(self) -> list[Bool[NDArray[np.bool_], " collection"]]:
        """Which rows of each part are not deleted."""
        found = [np.ones(len(part), dtype=np.bool_) for part in self._parts]
        for live, deleted in zip(found, self._deleted, strict=True):
            live[list(deleted)] = False
        return found

    @cached_property
    def _places(self) -> dict[Name, tuple[int, int]]:
        """Part and row of each id, in the order that they were added."""
        found = {
            part.ids[row]: (number, row)
            for number, (part, live) in enumerate(zip(self._parts, self._live, strict=True))
            for row in np.flatnonzero(live).tolist()
        }
        if len(found) != sum(map(np.count_nonzero, self._live)):
            raise InputError("The index holds an id twice: it is damaged, build it again.")
        return found

    @cached_property
    def _names(self) -> list[Name]:
        """Ids in the order that they were added."""
        return list(self._places)

    @cached_property
    def _bank(self) -> Bank:
        """Embeddings in the order that they were added."""
        import torch

        from setrep.index.bank import Bank

        return Bank.of(torch.from_numpy(self._vectors(0)), self.metric)

    @cached_property
    def _mixed(self) -> Mixed | None:
        """The indexed part and the rest, where there is an indexed part."""
        index = self._index
        if index is None:
            return None
        import torch

        from setrep.index.bank import Bank
        from setrep.index.mixed import Mixed

        vectors, rest = self._parts[0].vectors, torch.from_numpy(self._vectors(1))
        return Mixed(
            index,
            torch.from_numpy(vectors),
            self._live[0],
            Bank.of(rest, self.metric) if len(rest) else None,
            lambda: self._bank,
            self.metric,
        )

    def _vectors(self, first: int) -> Float[NDArray[np.float32], "collection dim"]:
        """Return the embeddings of the parts from the first on; one whole part is not copied."""
        parts, live = self._parts[first:], self._live[first:]
        if len(parts) == 1 and bool(live[0].all()):
            return parts[0].vectors
        kept = [part.vectors[rows] for part, rows in zip(parts, live, strict=True)]
        return np.concatenate([self._nothing.vectors, *kept])

    @cached_property
    def _columns(self) -> Columns:
        """Fields of payloads, for filters."""
        return Columns(self._payloads)

    def _payloads(self) -> Iterator[Payload]:
        return (self._parts[number].payloads[row] for number, row in self._places.values())

    @cached_property
    def _nothing(self) -> Records:
        """No collections."""
        vectors = np.zeros((0, self.dim), np.float32)
        members = np.zeros((0, self.member_dim), np.float32)
        return Records((), vectors, members, np.zeros(1, np.int64), ())

    def _without(self, ids: Sequence[Name]) -> list[Rows]:
        """Return the deleted rows of each part, and those of these ids."""
        gone = [set(rows) for rows in self._deleted]
        for name in ids:
            number, row = self._place_of(name)
            gone[number].add(row)
        return [tuple(sorted(rows)) for rows in gone]

    def _place_of(self, name: Name) -> tuple[int, int]:
        try:
            return self._places[name]
        except KeyError:
            raise InputError(f"There is no collection {name!r} in the index.") from None
