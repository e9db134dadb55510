"""What a set distance is, and the laws it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from setrep.collection import CollectionBatch

Distance = Callable[[CollectionBatch, CollectionBatch], Tensor]
Map = Literal["translation", "rotation"]


@dataclass(frozen=True)
class SetDistance:
    """Declare the laws of a distance, which tests hold it to.

    Attributes:
        function: gives one number for each pair of collections, whatever the order of their items.
        is_symmetric: exchanging the two collections changes nothing.
        is_similarity: larger is closer.
        is_zero_for_equal: a collection is at distance 0 from itself.
        metric_power: this power of the distance keeps the triangle inequality; None where none is
            known.
        ignores_copies: a collection with every item doubled has the same distances.
        invariances: maps of all items of both collections that change nothing: translation by one
            vector, rotation (any orthogonal map).
        degree: scaling all items by a positive number scales the distance by its power `degree`.
    """

    function: Distance
    is_symmetric: bool = True
    is_similarity: bool = False
    is_zero_for_equal: bool = True
    metric_power: float | None = None
    ignores_copies: bool = True
    invariances: tuple[Map, ...] = ("translation", "rotation")
    degree: int = 1
