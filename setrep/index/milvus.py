"""The distributed engine: Milvus, by a server's address or as a file of milvus-lite."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.engine import Engine, Found
from setrep.index.metric import Metric
from setrep.index.milvus_client import (
    LONGEST_ID,
    ROWS_AT_ONCE,
    Client,
    check_storable,
    connect,
    expression,
    is_missing,
    key_of,
    load,
    make,
    name_of,
    of_keys,
    rank_rows,
    rows_of,
    slack,
)
from setrep.index.milvus_files import FILE_DIM, FILE_FIELDS, delete_file, read_file, write_file
from setrep.index.milvus_places import aside_of, refuse_foreign
from setrep.index.records import Name, Records, Where, check, matches

SPARE = 16  # fetched beyond k, to tell ties apart
LARGEST_K = 16_384  # of one search in Milvus
FIELDS = ("key", "place", "vector", "payload")  # of what is ranked
NOTE = "note"  # a file of this name is no attachment


class MilvusEngine(Engine):
    """Keeps collections in three collections of Milvus: for them, for members and for files.

    The first has the name of the index, and names the others. A row names the version of its
    members. New members are written before the row that names them, and old ones are removed
    after, so that a reader finds either.
    """

    def __init__(self, client: Client, uri: str, name: str) -> None:
        self.client, self.uri, self.name = client, uri, name
        settings = client.describe_collection(name)["properties"]
        self.of_members, self.of_files = settings["setrep.members"], settings["setrep.files"]
        for one in (name, self.of_members, self.of_files):
            client.load_collection(one)
        self.dim, self.member_dim = (int(settings[f"setrep.{of}"]) for of in ("dim", "member_dim"))
        is_euclidean = settings["setrep.metric"] == "euclidean"
        self.metric: Metric = "euclidean" if is_euclidean else "inner_product"
        places = (row["place"] for row in client.all_rows(name, ["place"]))
        self._next = 1 + max(places, default=-1)

    @classmethod
    def create(
        cls,
        uri: str,
        dim: int,
        member_dim: int,
        metric: Metric = "euclidean",
        attachments: Mapping[str, bytes] | None = None,
        *,
        name: str = "setrep",
    ) -> MilvusEngine:
        """Begin an empty index under a name that is not taken.

        Raises:
            InputError: the name is taken, or Milvus is not installed or cannot be reached.
        """
        milvus, client = connect(uri)
        if client.has_collection(name):
            raise InputError(f"{uri} has a collection '{name}' already; choose another name.")
        token = secrets.token_hex(4)
        settings = {
            "dim": str(dim),
            "member_dim": str(member_dim),
            "metric": metric,
            "members": f"{name}_members_{token}",
            "files": f"{name}_files_{token}",
        }
        rows: dict[str, Any] = {
            "key": {"max_length": LONGEST_ID + 2},
            "place": None,
            "version": {"max_length": 32},
            "sizes": None,
            "payload": None,
        }
        members = {"key": {"max_length": 64}, "version": {"max_length": 32}, "place": None}
        make(milvus, client, settings["members"], members, member_dim, metric, {})
        make(milvus, client, settings["files"], FILE_FIELDS, FILE_DIM, metric, {})
        for file_name, content in (attachments or {}).items():
            write_file(client, settings["files"], file_name, content)
        make(milvus, client, name, rows, dim, metric, settings)
        return cls(client, uri, name)

    @classmethod
    def open(cls, uri: str, name: str = "setrep") -> MilvusEngine:
        """Open an index.

        Raises:
            InputError: there is none, or Milvus is not installed or cannot be reached.
        """
        load(uri)
        if is_missing(uri):
            raise InputError(f"There is no index '{name}' at {uri}.")
        _, client = connect(uri)
        if not client.has_collection(name) and client.has_collection(aside_of(name)):
            name = aside_of(name)  # left by a kill while it was replaced
        if not client.has_collection(name):
            client.close()
            raise InputError(f"There is no index '{name}' at {uri}.")
        refuse_foreign(client, name)
        return cls(client, uri, name)

    def add(self, records: Records) -> None:
        """Keep more collections."""
        check(records, self.dim, self.member_dim)
        check_storable(records)
        there = self._rows(records.ids)
        for name in records.ids:
            if key_of(name) in there:
                raise InputError(f"The id {name!r} is in the index already.")
        self._put(records)

    def replace(self, records: Records) -> None:
        """Keep collections in place of those of the same ids."""
        check(records, self.dim, self.member_dim)
        check_storable(records)
        old = self._known(records.ids)
        self._put(records)
        self._forget_members([row["version"] for row in old])

    def delete(self, ids: Sequence[Name]) -> None:
        """Forget collections."""
        if not ids:
            return
        old = self._known(ids)
        self.annotate(None)
        self.client.delete(self.name, filter=of_keys([row["key"] for row in old]))
        self._forget_members([row["version"] for row in old])

    def search(
        self,
        queries: Float[NDArray[np.float32], "query dim"],
        k: int,
        *,
        where: Where | None = None,
    ) -> list[Found]:
        """Return the `k` nearest collections of each query, best first."""
        self.check_queries(queries, k)
        return [self._search_one(query, k, where or {}) for query in queries]

    def _search_one(self, query: Float[NDArray[np.float32], " dim"], k: int, where: Where) -> Found:
        """Fetch until it is sure that nothing beyond is as near; then score in float64.

        Milvus leaves out most of what a filter excludes, `matches` the rest. Beyond what it returns
        of one search, all that passes is fetched.
        """
        wanted = k + SPARE
        while True:
            if wanted > LARGEST_K:
                rows = self.client.all_rows(self.name, FIELDS, expression(where))
            else:
                rows = self.client.nearest_rows(
                    self.name, query, wanted, where, self.metric, FIELDS
                )
            rows.sort(key=lambda row: int(row["place"]))
            scores, places = rank_rows(rows, query, self.metric)
            found = [
                (name_of(rows[place]["key"]), score)
                for score, place in zip(scores, places, strict=True)
                if matches(rows[place]["payload"], where)
            ][:k]
            is_last = wanted > LARGEST_K or len(rows) < wanted
            if is_last or (len(found) == k and scores[-1] + slack(rows, query) < found[-1][1]):
                return [(name, float(np.float32(score)) + 0.0) for name, score in found]
            wanted *= 2

    def fetch(self, ids: Sequence[Name], *, with_members: bool = True) -> Records:
        """Return collections by their ids, in the order asked for."""
        rows = self._known(ids, ["vector", "payload", "sizes"])
        return self._records(rows if with_members else [row | {"sizes": 0} for row in rows])

    def iterate(self, batch_size: int = 1000, *, with_members: bool = True) -> Iterator[Records]:
        """Return all collections, in the order that they were added."""
        names = self.ids()
        for start in range(0, len(names), batch_size):
            yield self.fetch(names[start : start + batch_size], with_members=with_members)

    def ids(self) -> list[Name]:
        """Return all ids, in the order that they were added."""
        rows = self.client.all_rows(self.name, ["key", "place"])
        return [name_of(row["key"]) for row in sorted(rows, key=lambda row: int(row["place"]))]

    def count(self) -> int:
        """Return how many collections there are."""
        found = self.client.query(self.name, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def attachment(self, name: str) -> bytes:
        """Return a file that was given with the index."""
        content = read_file(self.client, self.of_files, name)
        if content is None:
            raise InputError(f"The index {self.uri}#{self.name} has no {name}.")
        return content

    @property
    def note(self) -> str | None:
        """What was noted of what the index holds, if it has not changed since."""
        content = read_file(self.client, self.of_files, NOTE)
        return None if content is None else content.decode()

    def annotate(self, note: str | None) -> None:
        """Note something of what the index holds now; any change takes it away."""
        delete_file(self.client, self.of_files, NOTE)
        if note is not None:
            write_file(self.client, self.of_files, NOTE, note.encode())

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _put(self, records: Records) -> None:
        """Write members, then the rows that name them."""
        if not len(records):
            return
        self.annotate(None)
        versions = [secrets.token_hex(12) for _ in records.ids]
        rows, members = rows_of(records, versions, self._next)
        for start in range(0, len(members), ROWS_AT_ONCE):
            self.client.insert(self.of_members, members[start : start + ROWS_AT_ONCE])
        for start in range(0, len(rows), ROWS_AT_ONCE):
            self.client.upsert(self.name, rows[start : start + ROWS_AT_ONCE])
        self._next += len(rows)

    def _forget_members(self, versions: Sequence[str]) -> None:
        for start in range(0, len(versions), ROWS_AT_ONCE):
            some = list(versions[start : start + ROWS_AT_ONCE])
            self.client.delete(self.of_members, filter=f"version in {json.dumps(some)}")

    def _rows(self, ids: Sequence[Name], fields: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Return the rows of those ids that are there, by key."""
        found: dict[str, dict[str, Any]] = {}
        keys = [key_of(name) for name in ids]
        for start in range(0, len(keys), ROWS_AT_ONCE):
            rows = self.client.query(
                self.name,
                filter=of_keys(keys[start : start + ROWS_AT_ONCE]),
                output_fields=["key", "version", *fields],
            )
            found |= {row["key"]: row for row in rows}
        return found

    def _known(self, ids: Sequence[Name], fields: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the rows of ids, all of which must be there, in the order asked for."""
        found = self._rows(ids, fields)
        for name in ids:
            if key_of(name) not in found:
                raise InputError(f"There is no collection {name!r} in the index.")
        return [found[key_of(name)] for name in ids]

    def _records(self, rows: Sequence[dict[str, Any]]) -> Records:
        """Build records of rows, with their members."""
        sizes = [int(row["sizes"]) for row in rows]
        keys = [
            f"{row['version']}-{place}"
            for row, size in zip(rows, sizes, strict=True)
            for place in range(size)
        ]
        members: dict[str, Any] = {}
        for start in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[start : start + ROWS_AT_ONCE]
            found = self.client.query(self.of_members, ids=some, output_fields=["key", "vector"])
            members |= {one["key"]: one["vector"] for one in found}
        vectors = np.array([row["vector"] for row in rows], dtype=np.float32)
        return Records(
            tuple(name_of(row["key"]) for row in rows),
            vectors.reshape(-1, self.dim),
            np.array([members[key] for key in keys], np.float32).reshape(-1, self.member_dim),
            np.cumsum([0, *sizes], dtype=np.int64),
            tuple(dict(row["payload"]) for row in rows),
        )
