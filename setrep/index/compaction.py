"""Which parts of an engine are to be joined into one, after many changes."""

from __future__ import annotations

from collections.abc import Sequence

from setrep.index.records import Records, join

MOST_DELETED = 0.5  # of a part, before it is written anew
MOST_PARTS = 32  # before some are joined
MOST_FLAT = 0.25  # of an indexed part, in others, before it is joined with them all


def first_to_join(
    parts: Sequence[Records], deleted: Sequence[Sequence[int]], *, is_indexed: bool
) -> int | None:
    """Return the part from which on all are to be joined, or none: so their order stays.

    It is the first that is mostly deleted or, of too many, the first that is no larger than all
    after it. So each collection is written anew about as often as its part has doubled. A first
    part with an approximate index stays apart for longer.
    """
    for number, (part, rows) in enumerate(zip(parts, deleted, strict=True)):
        if len(rows) > MOST_DELETED * len(part):
            return number
    if len(parts) <= MOST_PARTS:
        return None
    after = sum(map(len, parts))
    for number, part in enumerate(parts):
        after -= len(part)
        if len(part) * (MOST_FLAT if is_indexed and number == 0 else 1) <= after:
            return number
    return len(parts) - 1


def join_live(parts: Sequence[Records], deleted: Sequence[Sequence[int]]) -> Records:
    """Return what lives of some parts, of which there is at least one."""
    return join(
        [
            part.take(sorted(set(range(len(part))) - set(rows)))
            for part, rows in zip(parts, deleted, strict=True)
        ]
    )
