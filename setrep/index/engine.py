"""What an index of collections asks of the engine below it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.kinds import FLAT, Kind, SearchKind, check_kind
from setrep.index.metric import Metric
from setrep.index.records import Name, Records, Where

Found = list[tuple[Name, float]]


class Engine(ABC):
    """Keeps collections and finds the nearest.

    A score is a similarity, larger is better: the inner product, or minus the squared Euclidean
    distance. Of equal scores the collection that was added first comes first.
    """

    dim: int
    member_dim: int
    metric: Metric
    kinds: tuple[Kind, ...] = ("flat",)  # that it can search by

    @abstractmethod
    def add(self, records: Records) -> None:
        """Keep more collections, all of them or on an error none.

        Raises:
            InputError: they do not fit, an id is there already, or another process writes.
        """

    @abstractmethod
    def delete(self, ids: Sequence[Name]) -> None:
        """Forget collections, all of them or on an error none.

        Raises:
            InputError: one is not there, or another process writes.
        """

    @abstractmethod
    def replace(self, records: Records) -> None:
        """Keep collections in place of those of the same ids, all of them or on an error none.

        They count as added last.

        Raises:
            InputError: as `add`, or one is not there.
        """

    @abstractmethod
    def search(
        self,
        queries: Float[NDArray[np.float32], "query dim"],
        k: int,
        *,
        where: Where | None = None,
    ) -> list[Found]:
        """Return the `k` nearest collections of each query, best first; fewer if there are not.

        `where` names fields of the payload and the values that each may have.

        Raises:
            InputError: the queries or `k` do not fit.
        """

    @abstractmethod
    def fetch(self, ids: Sequence[Name], *, with_members: bool = True) -> Records:
        """Return collections by their ids, in the order asked for; or all but their members.

        Raises:
            InputError: one is not there.
        """

    @abstractmethod
    def iterate(self, batch_size: int = 1000, *, with_members: bool = True) -> Iterator[Records]:
        """Return all collections, or all but their members, in the order that they were added."""

    @abstractmethod
    def ids(self) -> list[Name]:
        """Return all ids, in the order that they were added."""

    @abstractmethod
    def count(self) -> int:
        """Return how many collections there are."""

    @abstractmethod
    def attachment(self, name: str) -> bytes:
        """Return a file that was given with the index when it was made.

        Raises:
            InputError: there was none of that name, or it is damaged.
        """

    @property
    @abstractmethod
    def note(self) -> str | None:
        """What was noted of what the index holds, if it has not changed since."""

    @abstractmethod
    def annotate(self, note: str | None) -> None:
        """Note something of what the index holds now; any change takes it away.

        Raises:
            InputError: another process writes.
        """

    def lock(self) -> None:  # noqa: B027
        """Become the one writer before there is something to write, where an engine has one.

        Raises:
            InputError: another process writes, or has written since this one read.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; the engine is of no more use."""

    @property
    def kind(self) -> SearchKind:
        """What the engine searches by, and what was measured of it."""
        return FLAT

    @property
    def is_replaced(self) -> bool:
        """Whether another index has come to the place of this one since it was opened."""
        return False

    @property
    def is_exact(self) -> bool:
        """Whether a search finds the nearest, and not only most of them."""
        return self.kind.kind == "flat"

    def set_kind(
        self,
        kind: Kind | Literal["auto"],
        *,
        target_recall: float = 0.95,
        parameters: Mapping[str, int] | None = None,
    ) -> SearchKind:
        """Search by another kind of index from now on, with as little work as reaches the recall.

        `auto` chooses by the number of collections. `parameters` are those of `SearchKind`, to be
        taken as they are instead of those that reach the recall. What is found has its exact score
        by any kind, and a search with `where` is exact.

        Raises:
            InputError: the engine has no such kind, there are too few collections, FAISS is
                missing, or another process writes.
        """
        check_kind(kind, target_recall, parameters)
        if kind not in (*self.kinds, "auto"):
            raise InputError(f"This engine searches by kind 'flat' alone, not by '{kind}'.")
        return FLAT

    def check_queries(self, queries: Float[NDArray[np.float32], "query dim"], k: int) -> None:
        """Refuse what cannot be searched."""
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(
                f"The index takes queries of dimension {self.dim}; found shape {queries.shape}."
            )

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
