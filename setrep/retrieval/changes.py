"""Collections that are added, grow and are removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index.engine import Engine
from setrep.index.records import Name, Records
from setrep.retrieval.columns import (
    Columns,
    bare,
    check_sources,
    read_array,
    read_columns,
    read_embeddings,
    read_name,
    read_names,
    sources_of,
    with_sources,
)
from setrep.retrieval.model import ModelGuard, Origin, aggregate
from setrep.set_encoder import Item, SetEncoder
from setrep.set_encoder.items import Array

Labels = Sequence[Name | None] | None
Metadata = Sequence[dict[str, Any] | None] | None
Collections = CollectionBatch | Sequence[Array | Sequence[Item]]


class CollectionChanges:
    """Change the collections that an engine keeps, by the set encoder that embeds them."""

    def __init__(
        self,
        engine: Engine,
        set_encoder: SetEncoder | None = None,
        origin: Origin | None = None,
        address: str | None = None,
    ) -> None:
        self.engine, self.set_encoder, self.address = engine, set_encoder, address
        self.origin = Origin() if origin is None else origin
        self._guard = ModelGuard(self.origin.encoder_fingerprint)

    def __len__(self) -> int:
        return self.engine.count()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} collections of dimension {self.dim})"

    @property
    def dim(self) -> int:
        """Dimension of the embeddings of collections."""
        return self.engine.dim

    @property
    def ids(self) -> tuple[Name, ...]:
        """All ids, in the order that they were added."""
        return tuple(self.engine.ids())

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the model that the vectors are from, where it is known."""
        return self.origin.fingerprint

    def add(
        self,
        collections: Collections,
        ids: Sequence[Name],
        labels: Labels = None,
        metadata: Metadata = None,
        *,
        sources: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Embed collections of items and index them, all of them or on an error none.

        `sources` names the items of each; of paths they are the paths.

        Raises:
            InputError: an id is there already or repeats, the lengths differ, the encoder refuses
                a collection, or another process writes.
        """
        if not isinstance(collections, CollectionBatch):
            self._encoder().check_collections(collections)
        if sources is None and not isinstance(collections, CollectionBatch):
            sources = [sources_of(collection) for collection in collections]
        columns = read_columns(len(collections), ids, labels, metadata, sources)
        self.engine.add(self.embed(collections, columns))

    def embed(self, collections: Collections, columns: Columns) -> Records:
        """Embed collections of items, to be kept by the engine."""
        return self._records(self._encoder().encode_members(collections), columns)

    def add_embeddings(
        self,
        embeddings: Tensor | ArrayLike | CollectionBatch,
        ids: Sequence[Name],
        labels: Labels = None,
        metadata: Metadata = None,
        *,
        fingerprint: str | None = None,
    ) -> None:
        """Index vectors of collections, or a batch of those of their items, that a model made.

        Raises:
            InputError: they are of another model or dimension, or as `add`.
        """
        self.origin.check(fingerprint)
        columns = read_columns(len(embeddings), ids, labels, metadata)  # type: ignore[arg-type]
        if isinstance(embeddings, CollectionBatch):
            self.engine.add(self._records(self._read_members(embeddings), columns))
            return
        self.engine.add(bare(read_embeddings(embeddings), columns, self.engine.member_dim))

    def update(self, id: Name, items: Array | Sequence[Item]) -> None:
        """Add items to a collection: its embedding becomes that of all its members.

        It is computed from the members kept, so that it is the same as if they had come together.

        Raises:
            InputError: there is no such collection, it has no members, or as `add`.
        """
        old = self.engine.fetch([read_name("An id", id)])
        if not len(old.members):
            raise InputError(
                f"Collection {id!r} was added as a vector, without members that others could join: "
                f"remove it and add it anew."
            )
        new = self._encoder().encode_members([items])
        values = torch.cat([torch.from_numpy(old.members), new.values])
        payload = with_sources(old.payloads[0], len(old.members), sources_of(items), len(items))
        members = CollectionBatch(values, torch.tensor([0, len(values)]))
        self.engine.replace(self._records(members, Columns(old.ids, (payload,))))

    def remove(self, ids: Name | Sequence[Name]) -> None:
        """Forget collections, all of them or on an error none.

        Raises:
            InputError: one is not there, or another process writes.
        """
        self.engine.delete(read_names(ids))

    def _encoder(self) -> SetEncoder:
        """Return the set encoder, which takes items.

        Raises:
            InputError: there is none, or it only aggregates vectors of a model that is named.
        """
        if self.set_encoder is None:
            raise InputError(
                f"This index was built from bare vectors and has no model to embed items with: "
                f"use query_vector and add_embeddings with vectors of dimension {self.dim}."
            )
        if self.fingerprint not in (None, self.origin.encoder_fingerprint):
            raise InputError(
                f"This index holds vectors of model {self.fingerprint}: embed items with it, and "
                f"use query_embeddings and add_embeddings with its fingerprint."
            )
        return self.set_encoder

    def _read_members(self, embeddings: CollectionBatch) -> CollectionBatch:
        """Check embeddings of items, and copy them."""
        if self.set_encoder is None:
            raise InputError("This index has no aggregator: give one vector for each collection.")
        return embeddings.to("cpu").with_values(torch.from_numpy(read_array(embeddings.values)))

    def _aggregate(self, members: CollectionBatch) -> Float[NDArray[np.float32], "collection dim"]:
        assert self.set_encoder is not None
        self._guard.check(self.set_encoder)
        return aggregate(self.set_encoder, members)

    def _records(self, members: CollectionBatch, columns: Columns) -> Records:
        """Aggregate collections whose items are embedded."""
        check_sources(columns, members.sizes.tolist())
        values, offsets = members.values.numpy(), members.offsets.numpy()
        return Records(columns.ids, self._aggregate(members), values, offsets, columns.payloads)
