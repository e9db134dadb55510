"""Collections as an engine keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.metric import LARGEST_VALUE

Name = str | int
Payload = dict[str, Any]
Where = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Records:
    """Collections: an id, an embedding, the embeddings of the members and a payload each.

    The members of all lie in one array, those of collection b from `offsets[b]` to
    `offsets[b + 1]`. There may be none.
    """

    ids: tuple[Name, ...]
    vectors: Float[NDArray[np.float32], "collection dim"]
    members: Float[NDArray[np.float32], "item member_dim"]
    offsets: Int64[NDArray[np.int64], " collection+1"]
    payloads: tuple[Payload, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int], *, with_members: bool = True) -> Records:
        """Return some of the collections, in the order asked for; or all but their members."""
        if not with_members:
            bare = replace(
                self, members=self.members[:0], offsets=np.zeros(len(self) + 1, np.int64)
            )
            return bare.take(rows)
        spans = [(int(self.offsets[row]), int(self.offsets[row + 1])) for row in rows]
        return Records(
            tuple(self.ids[row] for row in rows),
            self.vectors[list(rows)],
            np.concatenate([self.members[:0], *(self.members[a:b] for a, b in spans)]),
            np.cumsum([0, *(b - a for a, b in spans)], dtype=np.int64),
            tuple(self.payloads[row] for row in rows),
        )


def gather(
    parts: Sequence[Records], places: Sequence[tuple[int, int]], *, with_members: bool = True
) -> Records:
    """Return collections by part and row, in the order asked for; there is at least one part."""
    of_part: dict[int, list[int]] = {0: []}
    for place, (number, _) in enumerate(places):
        of_part.setdefault(number, []).append(place)
    found = join(
        [
            parts[number].take([places[place][1] for place in of], with_members=with_members)
            for number, of in of_part.items()
        ]
    )
    if len(of_part) == 1:
        return found
    order = [place for of in of_part.values() for place in of]
    return found.take(np.argsort(order).tolist(), with_members=with_members)


def join(parts: Sequence[Records]) -> Records:
    """Return the collections of all parts, of which there is at least one."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Records(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.members for part in parts]),
        np.cumsum([0, *sizes], dtype=np.int64),
        tuple(payload for part in parts for payload in part.payloads),
    )


def check(records: Records, dim: int, member_dim: int, *, with_values: bool = True) -> None:
    """Refuse collections that do not fit an engine or one another.

    Raises:
        InputError: shapes, types, counts or values are wrong, or an id is given twice or is no
            name.
    """
    count, offsets = len(records.ids), records.offsets
    types = [str(array.dtype) for array in (records.vectors, records.members, offsets)]
    if types != ["float32", "float32", "int64"]:
        raise InputError(
            f"The index takes vectors and members as float32 and offsets as int64, not "
            f"{', '.join(types)}."
        )
    if records.vectors.shape != (count, dim):
        raise InputError(
            f"The index takes {count} vectors of dimension {dim}; "
            f"found shape {records.vectors.shape}."
        )
    if records.members.ndim != 2 or records.members.shape[1] != member_dim:
        raise InputError(
            f"The index takes members of dimension {member_dim}; "
            f"found shape {records.members.shape}."
        )
    is_ascending = bool((offsets[:-1] <= offsets[1:]).all())
    ends = (int(offsets[0]), int(offsets[-1])) if len(offsets) == count + 1 else None
    if ends != (0, len(records.members)) or not is_ascending:
        raise InputError("The offsets of members do not fit the collections.")
    if len(records.payloads) != count:
        raise InputError(f"There are {count} collections, but {len(records.payloads)} payloads.")
    if not all(isinstance(payload, dict) for payload in records.payloads):
        raise InputError("The payload of a collection must be a dict.")
    if with_values:
        check_values(records.vectors)
        check_values(records.members)
    seen: set[Name] = set()
    for name in records.ids:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"An id must be a string or an integer, not {name!r}.")
        if name in seen:
            raise InputError(f"The id {name!r} is given twice; ids must be unique.")
        seen.add(name)


def check_values(values: NDArray[np.float32]) -> None:
    """Refuse values that no score can be measured of.

    Raises:
        InputError: one is so.
    """
    # Neither end copies the values, and NaN is both.
    if values.size and not (values.min() > -LARGEST_VALUE and values.max() < LARGEST_VALUE):
        raise InputError(f"The vectors hold NaN, infinity or values beyond {LARGEST_VALUE:g}.")


def matches(payload: Payload, where: Where) -> bool:
    """Say whether each field of a filter is there with one of its values; 1 is not True."""
    return all(
        field in payload
        and any(payload[field] == one and is_alike(payload[field], one) for one in allowed)
        for field, allowed in where.items()
    )


def is_alike(x: object, y: object) -> bool:
    """Say whether both or neither are truth values."""
    return isinstance(x, bool) == isinstance(y, bool)
