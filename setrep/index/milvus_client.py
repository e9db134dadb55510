"""How the Milvus engine speaks to Milvus: the only place that imports it."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from setrep.errors import InputError
from setrep.index.exact import choose
from setrep.index.metric import Metric
from setrep.index.records import Name, Records, Where

METRICS = {"euclidean": "L2", "inner_product": "IP"}
ROWS_AT_ONCE = 1000
LONGEST_ID, LONGEST_PAYLOAD = 512, 65_536  # bytes
LARGEST_INTEGER = 2**63 - 1
OF_MILVUS = ("pymilvus", "milvus_lite", "grpc")  # packages whose exceptions say what Milvus says
ESCAPE, KNOWN_ESCAPES = re.compile(r"\\(u[0-9a-f]{4}|.)"), '"\\nrt'  # of JSON, in Milvus
ODD = ("NaN", "Infinity", "-Infinity")  # numbers that no filter of Milvus can name
LONGEST_TEXT = 300  # characters of what it says


class Client:
    """A client of Milvus whose errors are `InputError`, in one line."""

    def __init__(self, uri: str, client: Any) -> None:
        self._uri, self._client = uri, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        act = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            with told(self._uri):
                return act(*given, **named)

        return call

    def nearest_rows(
        self,
        collection: str,
        query: Float[NDArray[np.float32], " dim"],
        count: int,
        where: Where,
        metric: Metric,
        fields: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Return some fields of so many rows, the nearest of those that pass a filter."""
        hits = self.search(
            collection,
            data=[query.tolist()],
            filter=expression(where),
            limit=count,
            output_fields=list(fields),
            search_params={"metric_type": METRICS[metric]},
        )[0]
        return [hit["entity"] for hit in hits]

    def all_rows(
        self, collection: str, fields: Sequence[str], filter: str = ""
    ) -> list[dict[str, Any]]:
        """Return some fields of all rows, or of all that pass a filter."""
        found: list[dict[str, Any]] = []
        with told(self._uri):
            rows = self._client.query_iterator(
                collection, batch_size=ROWS_AT_ONCE, filter=filter, output_fields=list(fields)
            )
            while batch := rows.next():
                found += batch
            rows.close()
        return found


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Say in one line what Milvus says is wrong.

    Raises:
        InputError: something is.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in OF_MILVUS:
            raise
        said = " ".join(str(error).split())[:LONGEST_TEXT]
        raise InputError(f"Milvus at {uri} says: {said}") from error


def is_missing(uri: str) -> bool:
    """Say whether an address is of a file that is not there, which connecting would make."""
    return "://" not in uri and not Path(uri).exists()


def connect(uri: str) -> tuple[ModuleType, Client]:
    """Connect to a server, or open a file, which is made where there is none.

    Raises:
        InputError: Milvus is not installed, or there is nothing that answers.
    """
    milvus = load(uri)
    try:
        return milvus, Client(uri, milvus.MilvusClient(uri))
    except Exception as error:  # of several modules, some private
        raise InputError(f"Cannot open milvus:{uri}: {' '.join(str(error).split())}") from error


def load(uri: str) -> ModuleType:
    """Import pymilvus, whose warnings and errors come as exceptions, too.

    Raises:
        InputError: it is not installed.
    """
    try:
        milvus = importlib.import_module("pymilvus")
    except ImportError as error:
        raise InputError(
            f"The engine milvus:{uri} needs pymilvus: pip install 'setrep[milvus]'."
        ) from error
    for name in OF_MILVUS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return milvus


def make(
    milvus: ModuleType,
    client: Client,
    name: str,
    fields: dict[str, Any],
    dim: int,
    metric: Metric,
    settings: dict[str, str],
) -> None:
    """Make a collection of Milvus with an exact index."""
    kinds = {"place": "INT64", "sizes": "INT64", "payload": "JSON"}
    schema = client.create_schema(auto_id=False)
    for field, options in fields.items():
        kind = getattr(milvus.DataType, kinds.get(field, "VARCHAR"))
        schema.add_field(field, kind, is_primary=field == "key", **(options or {}))
    schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type=METRICS[metric])
    client.create_collection(
        name,
        schema=schema,
        index_params=index,
        consistency_level="Strong",
        properties={f"setrep.{key}": value for key, value in settings.items()},
    )


def check_storable(records: Records) -> None:
    """Refuse what Milvus cannot keep, before a part of it is written.

    Raises:
        InputError: an id or payload is too long, no UTF-8, or has integers beyond 64 bits.
    """
    for name, payload in zip(records.ids, records.payloads, strict=True):
        shown = repr(name)[:40]
        try:
            content = json.dumps(payload, ensure_ascii=False).encode()
            sizes = len(str(name).encode()), len(content)
        except UnicodeEncodeError as error:
            raise InputError(
                f"Milvus keeps text as UTF-8, and collection {shown} has text that is none."
            ) from error
        for what, size, most in zip(
            ("an id", "a payload"), sizes, (LONGEST_ID, LONGEST_PAYLOAD), strict=True
        ):
            if size > most:
                raise InputError(
                    f"Milvus takes {what} of up to {most:,} bytes; that of collection {shown} "
                    f"has {size:,}."
                )
        if has_large_integer(payload):
            raise InputError(
                f"Milvus keeps integers of 64 bits; collection {shown} has a larger one in its "
                f"label or metadata."
            )


def has_large_integer(value: Any) -> bool:
    """Say whether there is an integer beyond 64 bits in what JSON holds."""
    if isinstance(value, dict | list):
        return any(map(has_large_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -LARGEST_INTEGER <= value <= LARGEST_INTEGER


def key_of(name: Name) -> str:
    """Return the key of an id, which tells 7 from '7'."""
    return f"i:{name}" if isinstance(name, int) else f"s:{name}"


def name_of(key: str) -> Name:
    """Return the id of a key."""
    return int(key[2:]) if key.startswith("i:") else key[2:]


def expression(where: Where) -> str:
    """Write of a filter what Milvus can tell, which lets pass all that `matches` does."""
    parts = []
    for field, allowed in where.items():
        if not allowed:
            return "place < 0"
        if all(isinstance(one, str | int | float) and written(one) not in ODD for one in allowed):
            of = f"payload[{written(field)}]"
            parts.append(f"({' or '.join(f'{of} == {written(one)}' for one in allowed)})")
    return " and ".join(parts)


def of_keys(keys: Sequence[str]) -> str:
    """Write a filter of rows by key; pymilvus's own, `ids`, fails at quotes and backslashes."""
    return f"key in {written(list(keys))}"


def written(value: Any) -> str:
    """Write a value as Milvus reads it, which does not know all escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return ESCAPE.sub(
        lambda one: one[0] if one[1] in KNOWN_ESCAPES else str(json.loads(f'"{one[0]}"')), text
    )


def rank_rows(
    rows: Sequence[dict[str, Any]], query: Float[NDArray[np.float32], " dim"], metric: Metric
) -> tuple[list[float], list[int]]:
    """Return scores in float64, best first, and the place of each; of equal ones the first."""
    if not rows:
        return [], []
    bank = torch.tensor(np.array([row["vector"] for row in rows], np.float32))
    everything = torch.arange(len(rows)).unsqueeze(0)
    scores, places = choose(torch.from_numpy(query)[None], bank, everything, len(rows), metric)
    return scores[0].tolist(), places[0].tolist()


def slack(rows: Sequence[dict[str, Any]], query: Float[NDArray[np.float32], " dim"]) -> float:
    """Bound how much float32, in which Milvus orders, may move two scores apart."""
    longest = max(float(np.linalg.norm(np.asarray(row["vector"], np.float64))) for row in rows)
    scale = (longest + float(np.linalg.norm(query.astype(np.float64)))) ** 2
    return float(2 * (len(query) + 4) * np.finfo(np.float32).eps * scale)


def rows_of(
    records: Records, versions: Sequence[str], first: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return collections as rows, in places from `first` on, and their members as rows."""
    rows, members = [], []
    for i, name in enumerate(records.ids):
        a, b = int(records.offsets[i]), int(records.offsets[i + 1])
        members += [
            {
                "key": f"{versions[i]}-{place}",
                "version": versions[i],
                "place": place,
                "vector": vector.tolist(),
            }
            for place, vector in enumerate(records.members[a:b])
        ]
        rows.append(
            {
                "key": key_of(name),
                "place": first + i,
                "version": versions[i],
                "sizes": b - a,
                "payload": records.payloads[i],
                "vector": records.vectors[i].tolist(),
            }
        )
    return rows, members
