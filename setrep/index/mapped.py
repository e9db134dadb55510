"""Records whose arrays are files, of which the largest is checked when it is first used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.records import Records, check_values


@dataclass(frozen=True, eq=False)
class MappedRecords(Records):
    """Collections of a segment; `check_members` refuses damage before a member is given away."""

    check_members: Callable[[], None]

    def take(self, rows: Sequence[int], *, with_members: bool = True) -> Records:
        """Return some of the collections, in the order asked for; or all but their members."""
        if with_members and len(rows):
            self.check_members()
        whole = Records(self.ids, self.vectors, self.members, self.offsets, self.payloads)
        taken = whole.take(rows, with_members=with_members)
        check_values(taken.members)  # which a sum does not vouch for, if it was made anew
        return taken


def checked_once(path: Path, sha256: str) -> Callable[[], None]:
    """Map a file, and return what checks it against a sum, once.

    The map outlives the file, which a writer may remove while this one reads.

    Raises:
        InputError: the file is damaged; not here, but by what is returned.
    """
    content = np.memmap(path, np.uint8, "r")

    @cache
    def check_sum() -> None:
        if hashlib.sha256(content.data).hexdigest() != sha256:
            raise InputError(f"{path} is damaged: build the index again.")

    return check_sum


def map_array(path: Path) -> NDArray[Any]:
    """Map an array; copy-on-write, because torch warns of read-only ones."""
    shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if 0 in shape:  # nothing that could be mapped
        return np.asarray(np.load(path, allow_pickle=False))
    return np.lib.format.open_memmap(path, mode="c")
