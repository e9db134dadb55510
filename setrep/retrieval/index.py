"""The index of collections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from setrep.errors import InputError
from setrep.index.metric import LARGEST_VALUE
from setrep.index.search import top_k
from setrep.retrieval.files import Contents, read_index, write_index
from setrep.set_encoder import Item, SetEncoder
from setrep.set_encoder.items import Array

Name = str | int


@dataclass(frozen=True)
class Match:
    """A collection that was found; a larger score is better."""

    id: Name
    score: float  # minus the squared Euclidean distance
    label: Name | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True, eq=False, repr=False)
class CollectionIndex:
    """Hold one embedding for each collection and find the nearest, exactly.

    Built with a set encoder it takes collections of items and carries the encoder with it; built
    from bare vectors it takes vectors only. Matches come by falling score; of equal scores the
    collection that was put in first comes first. Scores are float32, whose rounding may part
    distances that are equal.
    """

    embeddings: Float[NDArray[np.float32], "collection dim"]
    ids: tuple[Name, ...]
    labels: tuple[Name | None, ...]
    metadata: tuple[dict[str, Any] | None, ...]
    set_encoder: SetEncoder | None = None
    fingerprint: str | None = None  # of the model the vectors are from, where it is known

    @classmethod
    def build(
        cls,
        set_encoder: SetEncoder,
        collections: Sequence[Array | Sequence[Item]],
        ids: Sequence[Name],
        labels: Sequence[Name | None] | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
    ) -> CollectionIndex:
        """Embed collections of items and index them under unique ids.

        Raises:
            InputError: ids repeat, the lengths differ, or the encoder refuses a collection.
        """
        columns = read_columns(len(collections), ids, labels, metadata)
        embeddings = read_embeddings(set_encoder.encode_collections(collections))
        return cls(embeddings, *columns, set_encoder, set_encoder.fingerprint)

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Tensor | ArrayLike,
        ids: Sequence[Name],
        labels: Sequence[Name | None] | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> CollectionIndex:
        """Index vectors from anywhere, one for each collection; kept in float32.

        Raises:
            InputError: ids repeat, the lengths differ, or a vector is not finite.
        """
        vectors = read_embeddings(embeddings)
        columns = read_columns(len(vectors), ids, labels, metadata)
        return cls(vectors, *columns, None, fingerprint)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"CollectionIndex({len(self)} collections of dimension {self.dim})"

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return int(self.embeddings.shape[1])

    def query(self, collection: Array | Sequence[Item] | Item, k: int = 10) -> list[Match]:
        """Find the `k` nearest collections, or all if there are fewer, of one collection of items.

        Raises:
            InputError: the index has no set encoder, or that refuses the collection.
        """
        if self.set_encoder is None:
            raise InputError(
                f"This index was built from bare vectors and has no model to embed items with: "
                f"use query_vector with a vector of dimension {self.dim}."
            )
        items: Any = [collection] if self.set_encoder.is_item(collection) else collection
        return self._search(self.set_encoder.encode_collections([items]), k)

    def query_vector(
        self, vector: Tensor | ArrayLike, k: int = 10, *, fingerprint: str | None = None
    ) -> list[Match]:
        """Find the `k` nearest collections of a vector that the model `fingerprint` gave.

        Raises:
            InputError: the vector is of another model or dimension, or not finite.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"The vector is of model {fingerprint}, but the index holds vectors of model "
                f"{self.fingerprint}: embed the query with that model and pass its fingerprint."
            )
        array = read_array(vector)
        if array.shape != (self.dim,):
            raise InputError(
                f"The query has shape {array.shape}, but the index takes one vector of "
                f"dimension {self.dim}."
            )
        return self._search(torch.from_numpy(array[None]), k)

    def _search(self, vector: Float[Tensor, "1 dim"], k: int) -> list[Match]:
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        bank = torch.from_numpy(self.embeddings)
        scores, places = top_k(vector, bank, min(k, len(self)), metric="euclidean")
        return [
            Match(self.ids[place], score, self.labels[place], self.metadata[place])
            for score, place in zip(scores[0].tolist(), places[0].tolist(), strict=True)
        ]

    def save(self, directory: str | Path) -> None:
        """Write the index as one directory, or replace one, so that a kill leaves the old or new.

        Raises:
            InputError: the directory holds something else than an index, or cannot be written.
        """
        rows = {"ids": self.ids, "labels": self.labels, "metadata": self.metadata}
        contents = Contents(self.embeddings, rows, self.set_encoder, self.fingerprint)
        write_index(Path(directory), contents)

    @classmethod
    def open(cls, directory: str | Path) -> CollectionIndex:
        """Open a saved index; its vectors are mapped, not loaded.

        Raises:
            InputError: there is no index, it is of another schema, or a file is damaged.
        """
        found = read_index(Path(directory))
        rows = found.rows
        columns = read_columns(len(found.embeddings), rows["ids"], rows["labels"], rows["metadata"])
        return cls(found.embeddings, *columns, found.set_encoder, found.fingerprint)


def read_array(values: Tensor | ArrayLike) -> NDArray[np.float32]:
    """Copy numbers into float32 and refuse those that cannot be searched."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise InputError(f"Vectors must hold real numbers, not {array.dtype}.")
    if not bool((np.abs(array) < LARGEST_VALUE).all()):  # false for NaN, too
        raise InputError(f"The vectors hold NaN, infinity or values beyond {LARGEST_VALUE:g}.")
    return np.array(array, dtype=np.float32)


def read_embeddings(values: Tensor | ArrayLike) -> Float[NDArray[np.float32], "collection dim"]:
    """Copy the vectors of an index."""
    array = read_array(values)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"An index needs vectors of shape [collections, dimensions], at least one; "
            f"found shape {array.shape}."
        )
    return array


def read_columns(
    count: int,
    ids: Sequence[Name],
    labels: Sequence[Name | None] | None,
    metadata: Sequence[dict[str, Any] | None] | None,
) -> tuple[tuple[Name, ...], tuple[Name | None, ...], tuple[dict[str, Any] | None, ...]]:
    """Check ids, labels and metadata: one of each for every collection, ids unique."""
    labels = [None] * count if labels is None else labels
    metadata = [None] * count if metadata is None else metadata
    for what, column in (("ids", ids), ("labels", labels), ("metadata", metadata)):
        if len(column) != count:
            raise InputError(f"There are {count} collections, but {len(column)} {what}.")
    names = tuple(read_name("An id", name) for name in ids)
    seen: set[Name] = set()
    for name in names:
        if name in seen:
            raise InputError(f"The id {name!r} is given twice; ids must be unique.")
        seen.add(name)
    of_labels = tuple(None if label is None else read_name("A label", label) for label in labels)
    return names, of_labels, tuple(read_metadata(entry) for entry in metadata)


def read_name(what: str, name: object) -> Name:
    """Return an id or label as a plain string or integer."""
    if isinstance(name, str):
        return str(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return int(name)
    raise InputError(f"{what} must be a string or an integer, not {name!r}.")


def read_metadata(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return metadata as JSON gives them back, so that saving changes nothing."""
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InputError(f"Metadata of a collection must be a dict, not {type(entry).__name__}.")
    try:
        return dict(json.loads(json.dumps(entry, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Metadata of a collection must be JSON: {error}.") from error
