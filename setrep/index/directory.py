"""The embedded engine: a directory, searched exactly through FAISS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index import segments as files
from setrep.index.engine import Engine, Found
from setrep.index.records import Name, Records, Where, check, join, matches
from setrep.index.scores import Metric
from setrep.index.search import top_k
from setrep.index.segments import Manifest, SegmentEntry

T = TypeVar("T")
MOST_DELETED = 0.5  # of a segment, before it is written anew
MOST_SEGMENTS = 32  # before they are written as one


class DirectoryEngine(Engine):
    """Keeps collections in a directory; its arrays are mapped, not loaded.

    Any number of processes may read. One may write at a time; readers keep what they opened.
    """

    is_exact = True

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.dim, self.member_dim = manifest.dim, manifest.member_dim
        self.metric: Metric = "euclidean" if manifest.metric == "euclidean" else "inner_product"
        self._parts = [self._read(entry) for entry in manifest.segments]
        self._lock: BinaryIO | None = None

    @classmethod
    def create(
        cls, folder: str | Path, dim: int, member_dim: int, metric: Metric = "euclidean"
    ) -> DirectoryEngine:
        """Begin an empty index in a directory that is empty or not there.

        Raises:
            InputError: the directory holds something, or cannot be written.
        """
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if any(place.iterdir()):
                raise InputError(f"{place} is not empty; an index begins in an empty directory.")
            files.write_manifest(place, Manifest(dim, member_dim, metric))
        except OSError as error:
            raise InputError(f"Cannot write to {place}: {error.strerror}.") from error
        return cls.open(place)

    @classmethod
    def open(cls, folder: str | Path) -> DirectoryEngine:
        """Open an index.

        Raises:
            InputError: there is none, or it is damaged.
        """
        place = Path(folder)
        for _ in range(10):
            manifest = files.read_manifest(place)
            try:
                return cls(place, manifest)
            except InputError:
                # A writer may have replaced the manifest and removed what the old one named.
                if files.read_manifest(place) == manifest:
                    raise
        raise InputError(f"The index {place} changes faster than it can be opened.")

    def _read(self, entry: SegmentEntry) -> Records:
        return files.read_segment(self.folder, entry, self.dim, self.member_dim)

    def add(self, records: Records) -> None:
        """Keep more collections, all of them or on an error none."""
        check(records, self.dim, self.member_dim)
        for name in records.ids:
            if name in self._places:
                raise InputError(f"The id {name!r} is in the index already.")
        if not len(records):
            return
        self._begin()
        entry = self._written(lambda: files.write_segment(self.folder, records))
        self._commit([*self.manifest.segments, entry], [*self._parts, self._read(entry)])

    def delete(self, ids: Sequence[Name]) -> None:
        """Forget collections, all of them or on an error none."""
        gone: dict[int, set[int]] = {}
        for name in ids:
            number, row = self._place_of(name)
            gone.setdefault(number, set()).add(row)
        if not gone:
            return
        self._begin()
        entries = list(self.manifest.segments)
        for number, rows in gone.items():
            entry = entries[number]
            deleted = tuple(sorted({*entry.deleted, *rows}))
            entries[number] = SegmentEntry(entry.name, entry.sha256, deleted)
        self._commit(entries, self._parts)

    def search(
        self,
        queries: Float[NDArray[np.float32], "query dim"],
        k: int,
        *,
        where: Where | None = None,
    ) -> list[Found]:
        """Return the `k` nearest collections of each query, best first."""
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(
                f"The index takes queries of dimension {self.dim}; found shape {queries.shape}."
            )
        names, bank = self._bank
        if where is not None:
            chosen = [i for i, name in enumerate(names) if matches(self._payload(name), where)]
            names, bank = [names[i] for i in chosen], bank[chosen]
        if not names:
            return [[] for _ in queries]
        scores, places = top_k(
            torch.from_numpy(np.ascontiguousarray(queries)),
            torch.from_numpy(bank),
            min(k, len(names)),
            metric=self.metric,
        )
        return [
            [(names[place], score) for place, score in zip(row, of_row, strict=True)]
            for row, of_row in zip(places.tolist(), scores.tolist(), strict=True)
        ]

    def fetch(self, ids: Sequence[Name]) -> Records:
        """Return collections by their ids, in the order asked for."""
        places = [self._place_of(name) for name in ids]
        return join([self._nothing, *(self._parts[number].take([row]) for number, row in places)])

    def iterate(self, batch_size: int = 1000) -> Iterator[Records]:
        """Return all collections, in the order that they were added."""
        for part, live in zip(self._parts, self._live, strict=True):
            rows = np.flatnonzero(live).tolist()
            for start in range(0, len(rows), batch_size):
                yield part.take(rows[start : start + batch_size])

    def count(self) -> int:
        """Return how many collections there are."""
        return len(self._places)

    def close(self) -> None:
        """Let another process write; this one may go on reading."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @cached_property
    def _live(self) -> list[Bool[NDArray[np.bool_], " collection"]]:
        """Which rows of each segment are not deleted."""
        found = []
        for part, entry in zip(self._parts, self.manifest.segments, strict=True):
            live = np.ones(len(part), dtype=np.bool_)
            live[list(entry.deleted)] = False
            found.append(live)
        return found

    @cached_property
    def _places(self) -> dict[Name, tuple[int, int]]:
        """Segment and row of each id."""
        return {
            part.ids[row]: (number, row)
            for number, (part, live) in enumerate(zip(self._parts, self._live, strict=True))
            for row in np.flatnonzero(live).tolist()
        }

    @cached_property
    def _bank(self) -> tuple[list[Name], Float[NDArray[np.float32], "collection dim"]]:
        """Ids and embeddings in the order that they were added; one whole segment stays mapped."""
        if len(self._parts) == 1 and bool(self._live[0].all()):
            return list(self._parts[0].ids), self._parts[0].vectors
        kept = [part.vectors[live] for part, live in zip(self._parts, self._live, strict=True)]
        return list(self._places), np.concatenate([self._nothing.vectors, *kept])

    @cached_property
    def _nothing(self) -> Records:
        """No collections."""
        vectors = np.zeros((0, self.dim), np.float32)
        members = np.zeros((0, self.member_dim), np.float32)
        return Records((), vectors, members, np.zeros(1, np.int64), ())

    def _place_of(self, name: Name) -> tuple[int, int]:
        try:
            return self._places[name]
        except KeyError:
            raise InputError(f"There is no collection {name!r} in the index.") from None

    def _payload(self, name: Name) -> dict[str, object]:
        number, row = self._places[name]
        return self._parts[number].payloads[row]

    def _begin(self) -> None:
        """Become the one writer.

        Raises:
            InputError: another process writes, or has written since this one read.
        """
        if self._lock is None:
            self._lock = self._written(lambda: lock(self.folder / files.LOCK))
            if files.read_manifest(self.folder) != self.manifest:
                self.close()
                raise InputError(
                    f"The index {self.folder} was changed since it was opened; open it again."
                )

    def _commit(self, entries: list[SegmentEntry], parts: list[Records]) -> None:
        """Make the segments the index, fewer of them where that pays, and sweep what is no more."""
        entries, parts = self._compacted(entries, parts)
        manifest = replace(self.manifest, segments=tuple(entries))
        self._written(lambda: files.write_manifest(self.folder, manifest))
        self.manifest, self._parts = manifest, parts
        for name in ("_live", "_places", "_bank"):
            self.__dict__.pop(name, None)
        with suppress(OSError):  # what cannot be removed now, the next writer removes
            files.sweep(self.folder, manifest)

    def _compacted(
        self, entries: list[SegmentEntry], parts: list[Records]
    ) -> tuple[list[SegmentEntry], list[Records]]:
        """Write anew segments that are mostly deleted, or all where there are many."""
        wasteful = [
            len(entry.deleted) > MOST_DELETED * len(part)
            for entry, part in zip(entries, parts, strict=True)
        ]
        if len(entries) > MOST_SEGMENTS:
            wasteful = [True] * len(entries)
        if not any(wasteful):
            return entries, parts
        # All from the first on, so that the order in which they were added stays.
        first = wasteful.index(True)
        kept = [
            part.take(sorted(set(range(len(part))) - set(entry.deleted)))
            for entry, part in zip(entries[first:], parts[first:], strict=True)
        ]
        joined = join(kept)
        if not len(joined):
            return entries[:first], parts[:first]
        entry = self._written(lambda: files.write_segment(self.folder, joined))
        return [*entries[:first], entry], [*parts[:first], self._read(entry)]

    def _written(self, act: Callable[[], T]) -> T:
        """Write, and say in one line what is wrong if it cannot be."""
        try:
            return act()
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.folder}: {error.strerror}. The index is unchanged."
            ) from error


def lock(path: Path) -> BinaryIO:
    """Lock a file until it is closed, or its process ends.

    Raises:
        InputError: another process holds the lock.
    """
    file = path.open("ab")
    if os.name != "posix":
        return file
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(
            f"Another process is writing to {path.parent}; wait until it is done."
        ) from error
    return file
