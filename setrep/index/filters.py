"""Rows by the values of a field of their payloads, looked up instead of compared one by one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from setrep.index.records import Payload, Where, is_alike

ABSENT = 0  # the code of rows without the field


class Column:
    """The values of one field: each different value once, and which one each row has.

    A value is looked up by its hash together with whether it is a truth value, since `1 == True`.
    What has no hash, or like NaN does not equal itself, is compared as `matches` does.
    """

    def __init__(self, field: str, payloads: Iterable[Payload]) -> None:
        self._values: list[Any] = [None]  # of each code
        self._codes: dict[Hashable, int] = {}
        self._loose: list[int] = []  # codes of what cannot be looked up
        self._of_rows: Int64[NDArray[np.int64], " row"] = np.fromiter(
            (self._code(one[field]) if field in one else ABSENT for one in payloads), np.int64
        )

    def rows(self, allowed: Sequence[Any]) -> Bool[NDArray[np.bool_], " row"]:
        """Say of each row whether it has one of these values."""
        is_wanted = np.zeros(len(self._values), dtype=np.bool_)
        for one in allowed:
            if can_look_up(one):
                is_wanted[self._codes.get((isinstance(one, bool), one), ABSENT)] = True
                unsure: Iterable[int] = self._loose
            else:
                unsure = range(1, len(self._values))
            for code in unsure:
                found = self._values[code]
                is_wanted[code] |= found == one and is_alike(found, one)
        is_wanted[ABSENT] = False
        chosen: Bool[NDArray[np.bool_], " row"] = is_wanted[self._of_rows]
        return chosen

    def _code(self, value: Any) -> int:
        """Return the code of a value, a new one for what was not seen before."""
        if not can_look_up(value):
            self._loose.append(len(self._values))
        else:
            key = (isinstance(value, bool), value)
            if key in self._codes:
                return self._codes[key]
            self._codes[key] = len(self._values)
        self._values.append(value)
        return len(self._values) - 1


class Columns:
    """The fields of payloads that filters have asked for."""

    def __init__(self, payloads: Callable[[], Iterable[Payload]]) -> None:
        self._payloads = payloads
        self._found: dict[str, Column] = {}

    def rows(self, where: Where, count: int) -> Int64[NDArray[np.int64], " row"]:
        """Return which of so many rows a filter lets pass, as `matches` does."""
        is_chosen = np.ones(count, dtype=np.bool_)
        for field, allowed in where.items():
            if field not in self._found:
                self._found[field] = Column(field, self._payloads())
            is_chosen &= self._found[field].rows(allowed)
        return np.flatnonzero(is_chosen)


def can_look_up(value: Any) -> bool:
    """Say whether equal values, and no others, are found by the hash of this one."""
    try:
        hash(value)
    except TypeError:
        return False
    return bool(value == value)
