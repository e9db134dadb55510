"""Collections with the set encoder that embedded them: kept, changed, saved and opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from numpy.typing import ArrayLike
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index import places
from setrep.index.door import create_engine, open_engine
from setrep.index.kinds import Kind, SearchKind
from setrep.index.memory import MemoryEngine
from setrep.index.records import Name
from setrep.retrieval.changes import CollectionChanges, Collections, Labels, Metadata
from setrep.retrieval.columns import (
    read_embeddings,
)
from setrep.retrieval.model import Origin, from_attachments, to_attachments
from setrep.set_encoder import SetEncoder, vector_set_encoder


class CollectionStore(CollectionChanges):
    """Keep collections, by an engine: all of `CollectionIndex` but its queries."""

    @classmethod
    def build(
        cls,
        set_encoder: SetEncoder,
        collections: Collections,
        ids: Sequence[Name],
        labels: Labels = None,
        metadata: Metadata = None,
    ) -> Self:
        """Embed collections of items and index them under unique ids.

        Raises:
            InputError: ids repeat, the lengths differ, or the encoder refuses a collection.
        """
        index = cls.create(None, set_encoder)
        index.add(collections, ids, labels, metadata)
        return index

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Tensor | ArrayLike | CollectionBatch,
        ids: Sequence[Name],
        labels: Labels = None,
        metadata: Metadata = None,
        *,
        fingerprint: str | None = None,
    ) -> Self:
        """Index vectors from anywhere: one for each collection, or a batch of those of its items.

        Of a batch the collections' embeddings are the centroids, and the members are kept.
        `fingerprint` names the model that they are from.

        Raises:
            InputError: ids repeat, the lengths differ, or a vector is not finite.
        """
        set_encoder = None
        if isinstance(embeddings, CollectionBatch):
            set_encoder = vector_set_encoder(embeddings.values.shape[1])
            dim = set_encoder.dim
        else:
            embeddings = read_embeddings(embeddings)
            dim = embeddings.shape[1]
        made_by = None if set_encoder is None else set_encoder.fingerprint
        index = cls(MemoryEngine(dim, dim), set_encoder, Origin(fingerprint, made_by))
        index.add_embeddings(embeddings, ids, labels, metadata, fingerprint=fingerprint)
        return index

    @classmethod
    def create(
        cls, address: str | Path | None, set_encoder: SetEncoder, *, root: str | Path | None = None
    ) -> Self:
        """Begin an empty index at an address, in memory without one.

        Raises:
            InputError: there is something at the address, or it cannot be written.
        """
        fingerprint = set_encoder.fingerprint
        origin = Origin(fingerprint, fingerprint, None if root is None else str(root))
        dims = set_encoder.dim_out, set_encoder.dim
        if address is None:
            return cls(MemoryEngine(*dims), set_encoder, origin)
        if places.exists(address):
            raise InputError(f"There is an index at {address}: open it, or choose another address.")
        files = to_attachments(origin, set_encoder)
        with places.replacing(address) as built:
            create_engine(built, *dims, attachments=files).close()
        return cls(open_engine(address), set_encoder, origin, places.absolute(address))

    @classmethod
    def open(cls, address: str | Path) -> Self:
        """Open an index: a directory, `faiss:DIR` or `milvus:URI`; a directory is mapped.

        Raises:
            InputError: there is no index, it is of another schema, or a file is damaged.
        """
        while True:
            engine = open_engine(address)
            try:
                origin, set_encoder = from_attachments(engine, str(address))
            except InputError:
                engine.close()
                if not engine.is_replaced:
                    raise
            else:
                return cls(engine, set_encoder, origin, places.absolute(address))

    def save(self, address: str | Path) -> None:
        """Write the index to an address, or in place of one there, in one move.

        Raises:
            InputError: there is something else than an index, or it cannot be written.
        """
        is_here = self.address is not None and places.is_same(self.address, address)
        if is_here and places.exists(address):
            return  # every change is there already
        files = to_attachments(self.origin, self.set_encoder)
        dims = self.engine.dim, self.engine.member_dim
        with (
            places.replacing(address) as built,
            create_engine(built, *dims, attachments=files) as engine,
        ):
            for records in self.engine.iterate(100_000):
                engine.add(records)
            if self.kind.kind in engine.kinds:  # others are exact, which is no less
                engine.set_kind(self.kind.kind, parameters=self.kind.parameters)
            if self.engine.note is not None:
                engine.annotate(self.engine.note)

    def close(self) -> None:
        """Let go of files and connections, and let another process write."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def kind(self) -> SearchKind:
        """How the index is searched, and its measured recall; `flat` is exact."""
        return self.engine.kind

    def set_kind(
        self,
        kind: Kind | Literal["auto"],
        *,
        target_recall: float = 0.95,
        parameters: Mapping[str, int] | None = None,
    ) -> SearchKind:
        """Search by "flat" (exact), "ivf", "hnsw" or "pq" from now on, or "auto": by size.

        The least work is chosen that finds the share `target_recall` of the 10 nearest; with
        `parameters`, those of `SearchKind`, they are taken instead. Recall is measured.

        Raises:
            InputError: the engine has no such kind, there are fewer than two collections, FAISS is
                missing, or another process writes.
        """
        return self.engine.set_kind(kind, target_recall=target_recall, parameters=parameters)
