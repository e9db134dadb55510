"""How the Milvus engine speaks to Milvus: the only place that imports it."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from setrep.errors import InputError
from setrep.index.metric import Metric
from setrep.index.records import Name, Records, Where

METRICS = {"euclidean": "L2", "inner_product": "IP"}


def connect(uri: str) -> tuple[ModuleType, Any]:
    """Connect to a server, or open a file.

    Raises:
        InputError: Milvus is not installed, or there is nothing that answers.
    """
    try:
        milvus = importlib.import_module("pymilvus")
    except ImportError as error:
        raise InputError(
            f"The engine milvus:{uri} needs pymilvus: pip install 'setrep[milvus]'."
        ) from error
    logging.getLogger("pymilvus").setLevel(logging.ERROR)  # it warns of what is as it should be
    try:
        return milvus, milvus.MilvusClient(uri)
    except Exception as error:  # of several modules, some private
        raise InputError(f"Cannot open milvus:{uri}: {' '.join(str(error).split())}") from error


def make(
    milvus: ModuleType,
    client: Any,
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
        if all(isinstance(one, str | int | float) for one in allowed):
            of = f"payload[{written(field)}]"
            parts.append(f"({' or '.join(f'{of} == {written(one)}' for one in allowed)})")
    return " and ".join(parts)


def written(value: Any) -> str:
    """Write a value as Milvus reads it, which knows no escapes of other letters than ASCII's."""
    return json.dumps(value, ensure_ascii=False)


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
