"""The engine of this process alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from setrep.errors import InputError
from setrep.index.compaction import first_to_join, join_live
from setrep.index.kinds import FEWEST, FLAT, SearchKind
from setrep.index.local import LocalEngine, Rows
from setrep.index.metric import Metric
from setrep.index.records import Records

if TYPE_CHECKING:
    from setrep.index.approximate import Approximate


class MemoryEngine(LocalEngine):
    """Keeps collections in memory, until the process ends."""

    def __init__(
        self,
        dim: int,
        member_dim: int,
        metric: Metric = "euclidean",
        attachments: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__(dim, member_dim, metric)
        self._attachments = dict(attachments or {})
        self._note: str | None = None
        self._built: Approximate | None = None

    def attachment(self, name: str) -> bytes:
        """Return a file that was given with the index."""
        if name not in self._attachments:
            raise InputError(f"The index has no {name}.")
        return self._attachments[name]

    @property
    def note(self) -> str | None:
        """What was noted of what the index holds, if it has not changed since."""
        return self._note

    def annotate(self, note: str | None) -> None:
        """Note something of what the index holds now; any change takes it away."""
        self._note = note

    @property
    def kind(self) -> SearchKind:
        """What the engine searches by, and what was measured of it."""
        return FLAT if self._built is None else self._built.found

    @property
    def _index(self) -> Approximate | None:
        return self._built

    def _index_by(self, whole: Records | None, index: Approximate | None) -> None:
        self._built = index
        if whole is None:
            self._hold(self._parts, self._deleted)
        else:
            self._hold([whole], [()])

    def _change(self, deleted: list[Rows], records: Records | None) -> None:
        self._note = None
        parts = self._parts if records is None else [*self._parts, records]
        rows: list[Rows] = deleted if records is None else [*deleted, ()]
        first = first_to_join(parts, rows, is_indexed=self._built is not None)
        if first is not None:
            joined = join_live(parts[first:], rows[first:])
            is_left = len(joined) > 0
            parts = [*parts[:first], *([joined] if is_left else [])]
            rows = [*rows[:first], *([()] if is_left else [])]
            if first == 0:
                self._built = self._rebuilt(joined)
        self._hold(parts, rows)

    def _rebuilt(self, whole: Records) -> Approximate | None:
        """Build the index that there is of other collections, if there are enough."""
        if self._built is None or len(whole) < FEWEST:
            return None
        from setrep.index.tuning import build

        found = self._built.found
        return build(whole.vectors, self.metric, found.kind, 1.0, found.parameters)

    def close(self) -> None:
        """There is nothing to let go of."""
