"""The index of collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index.metric import LARGEST_VALUE
from setrep.index.records import Name
from setrep.retrieval import certificate as certificates
from setrep.retrieval.certificate import IndexCertificate
from setrep.retrieval.changes import Collections
from setrep.retrieval.columns import (
    is_list,
    read_array,
    read_exclude,
    read_name,
    where_of,
)
from setrep.retrieval.model import holds_centroids
from setrep.retrieval.rerank import find_distance
from setrep.retrieval.results import Result
from setrep.retrieval.search import OF_A_PART, Question, Vectors, answer, certified
from setrep.retrieval.store import CollectionStore
from setrep.set_encoder import Item
from setrep.set_encoder.items import Array

APPROXIMATE = "it is proved for exact search, and this index is searched approximately"


class QueryOptions(TypedDict, total=False):
    """What every query takes; `CollectionIndex` says what each is."""

    filter: Mapping[str, Any] | None
    exclude: Any
    rerank: str | None
    num_candidates: int
    matched_items: bool


class CollectionIndex(CollectionStore):
    """Hold collections, and find those nearest to a collection.

    Built with a set encoder it takes collections of items, keeps the embedding of each with those
    of its members, and carries the encoder with it. Built from bare vectors it takes vectors only.
    A score is a similarity, larger is better. Of equal scores the collection that was added first
    comes first; re-ranked, the one whose embedding is nearer. Scores are float32, whose rounding
    may part distances that are equal.

    `build` and `from_embeddings` make an index in memory, `save` writes it. One that was opened,
    or begun by `create`, writes each change at once: a kill leaves the index before or after it.

    Every query takes these options:

    - `filter`: "label", or names of metadata, with the value or the list of values that each may
      have. Search with a filter is exact.
    - `exclude`: ids that are left out; of several queries, a list for each.
    - `rerank`: name of a set distance of `setrep.set_distances`, by which the `num_candidates`
      nearest are ordered. "wasserstein", over plain centroids, is the nearest of the whole index:
      the distance of centroids is no larger, so the rest need not be measured.
    - `matched_items`: tell which member is nearest to each item of the query.
    """

    @overload
    def query(
        self, collection: CollectionBatch, k: int = 10, **options: Unpack[QueryOptions]
    ) -> list[Result]: ...
    @overload
    def query(
        self,
        collection: Array | Sequence[Item] | Item,
        k: int = 10,
        **options: Unpack[QueryOptions],
    ) -> Result: ...
    def query(
        self,
        collection: CollectionBatch | Array | Sequence[Item] | Item,
        k: int = 10,
        **options: Unpack[QueryOptions],
    ) -> Result | list[Result]:
        """Find the `k` nearest collections, or all if there are fewer.

        Of one collection of items, of one item, or of each collection of a batch. Options are
        those of the class.

        Raises:
            InputError: the index has no set encoder, that refuses the collection, or an option is
                wrong.
        """
        if isinstance(collection, CollectionBatch):
            return self.query_many(collection, k, **options)
        items: Any = [collection] if self._encoder().is_item(collection) else collection
        return self.query_many([items], k, **of_one(options))[0]

    def query_many(
        self,
        collections: Collections,
        k: int = 10,
        **options: Unpack[QueryOptions],
    ) -> list[Result]:
        """Find the `k` nearest collections of each collection of items; as `query`."""
        members = self._encoder().encode_members(collections)
        return self._answer_members(members, self._question(len(members), k, options))

    def query_embeddings(
        self,
        embeddings: CollectionBatch | Tensor | ArrayLike,
        k: int = 10,
        *,
        fingerprint: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Result | list[Result]:
        """Find the nearest collections of items embedded by the model `fingerprint`; as `query`.

        Raises:
            InputError: the vectors are of another model or dimension, or as `query`.
        """
        self.origin.check(fingerprint)
        if isinstance(embeddings, CollectionBatch):
            members = self._read_members(embeddings)
            question = self._question(len(members), k, options)
            return self._answer_members(members, question)
        array = torch.from_numpy(read_array(embeddings))
        if array.ndim != 2 or not len(array):
            raise InputError(
                f"The items of a query must be [items, {self.engine.member_dim}]; found shape "
                f"{tuple(array.shape)}."
            )
        members = self._read_members(CollectionBatch(array, torch.tensor([0, len(array)])))
        question = self._question(1, k, of_one(options))
        return self._answer_members(members, question)[0]

    def query_vector(
        self,
        vector: Tensor | ArrayLike,
        k: int = 10,
        *,
        fingerprint: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Result:
        """Find the nearest collections of the embedding of one, by the model `fingerprint`.

        Raises:
            InputError: the vector is of another model or dimension, or not finite.
        """
        self.origin.check(fingerprint)
        array = read_array(vector)
        if array.shape != (self.dim,):
            raise InputError(
                f"The query has shape {array.shape}, but the index takes one vector of "
                f"dimension {self.dim}."
            )
        question = self._question(1, k, of_one(options))
        return self._answer(array[None], None, question)[0]

    def neighbours(self, id: Name, k: int = 10, **options: Unpack[QueryOptions]) -> Result:
        """Find the nearest of a collection of the index, which is left out itself; as `query`.

        Raises:
            InputError: it is not there, or as `query`.
        """
        record = self.engine.fetch([read_name("An id", id)])
        left_out = read_exclude(of_one(options).get("exclude"), 1)[0]
        members = None
        if len(record.members):
            offsets = torch.from_numpy(record.offsets)
            members = CollectionBatch(torch.from_numpy(record.members), offsets)
        asked: QueryOptions = {**options, "exclude": [[id, *left_out]]}
        question = self._question(1, k, asked)
        return self._answer(record.vectors, members, question)[0]

    def certify(
        self,
        pools: Mapping[Name, Array | Sequence[Item]] | None = None,
        max_size: int = certificates.LARGEST_SIZE,
    ) -> IndexCertificate:
        """Bound the error of random draws from the labels, and keep that until the index changes.

        Raises:
            InputError: as `bound_errors`, or it cannot be written.
        """
        found = self.bound_errors(pools, max_size)
        self.engine.annotate(certificates.to_note(found))
        return found

    def bound_errors(
        self,
        pools: Mapping[Name, Array | Sequence[Item]] | None = None,
        max_size: int = certificates.LARGEST_SIZE,
    ) -> IndexCertificate:
        """Bound the error of random draws from the labels, for queries of up to `max_size` items.

        `pools` are held-out items of each label (of each id, for collections without a label);
        without them the pool of a label are the items of its collections but for one.

        Raises:
            InputError: the index does not hold plain centroids, or its labels or pools do not
                allow it; see `setrep.retrieval.certificate.certify`.
        """
        if not self._holds_centroids:
            raise InputError(
                "Certificates are proved for the nearest centroid only, and this index holds "
                "other embeddings of collections."
            )
        assert self.set_encoder is not None
        self._guard.check(self.set_encoder)
        items = None
        if pools is not None:
            members = self._encoder().encode_members(list(pools.values()))
            parts = torch.split(members.values, members.sizes.tolist())
            items = dict(zip(pools, parts, strict=True))
        return certificates.certify(self.engine.iterate(), items, max_size)

    @property
    def certificate(self) -> IndexCertificate | str:
        """What `certify` found, or why there is nothing."""
        if not self._holds_centroids:
            return "it is proved for the nearest centroid only; this index holds other embeddings"
        if not self.engine.is_exact:
            return APPROXIMATE
        return certificates.from_note(self.engine.note)

    @property
    def _holds_centroids(self) -> bool:
        return holds_centroids(self.set_encoder)

    def _question(self, count: int, k: int, options: QueryOptions) -> Question:
        """Check what is asked."""
        unknown = set(options) - set(QueryOptions.__annotations__)
        if unknown:
            raise TypeError(f"a query got an unexpected keyword argument {unknown.pop()!r}")
        num_candidates = options.get("num_candidates", 100)
        for what, number in (("k", k), ("num_candidates", num_candidates)):
            if not isinstance(number, int | np.integer) or number < 1:
                raise InputError(f"{what} must be an integer of at least 1, not {number!r}.")
        rerank = options.get("rerank")
        if rerank is not None:
            find_distance(rerank)
        left_out = read_exclude(options.get("exclude"), count)
        with_items = options.get("matched_items", True)
        where = where_of(options.get("filter"))
        return Question(int(k), where, left_out, rerank, int(num_candidates), with_items)

    def _answer_members(self, members: CollectionBatch, question: Question) -> list[Result]:
        return self._answer(self._aggregate(members), members, question)

    def _answer(
        self, vectors: Vectors, members: CollectionBatch | None, question: Question
    ) -> list[Result]:
        if not bool((abs(vectors) < LARGEST_VALUE).all()):
            raise InputError("The embedding of the query is not finite, or too large to compare.")
        is_mean = self._holds_centroids
        results = answer(self.engine, vectors, members, question, is_mean=is_mean)
        return certified(results, self.certificate, self._why_not(question), question.exclude)

    def _why_not(self, question: Question) -> str | None:
        """Say why the certificate is not of this question, if it is not."""
        if question.rerank is not None:
            return "it is proved for the nearest centroid only, not for re-ranking"
        if question.where is not None:
            return OF_A_PART
        if not self.engine.is_exact:
            return APPROXIMATE
        return None


def of_one(options: QueryOptions) -> QueryOptions:
    """Return the options of a list of one query: what to exclude is an id or ids of it."""
    left_out = options.get("exclude")
    if left_out is None:
        return options
    return {**options, "exclude": [left_out if is_list(left_out) else [left_out]]}
