"""What is told of collections beside their items: ids, labels, metadata and names of items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from setrep.errors import InputError
from setrep.index.metric import LARGEST_VALUE
from setrep.index.records import Name, Payload, Records, Where

METADATA = "metadata."  # before the names of metadata, to keep them apart from the label


class Columns(NamedTuple):
    """One entry for each collection."""

    ids: tuple[Name, ...]
    payloads: tuple[Payload, ...]


def read_columns(
    count: int,
    ids: Sequence[Name],
    labels: Sequence[Name | None] | None,
    metadata: Sequence[dict[str, Any] | None] | None,
    sources: Sequence[Sequence[str]] | None = None,
) -> Columns:
    """Check what is told of collections: one of each for every one, ids unique.

    Raises:
        InputError: lengths differ, an id is given twice, or something is of another type.
    """
    ids = list(ids)
    labels = [None] * count if labels is None else list(labels)
    metadata = [None] * count if metadata is None else list(metadata)
    sources = [()] * count if sources is None else sources
    columns: dict[str, Sequence[Any]] = {
        "ids": ids,
        "labels": labels,
        "metadata": metadata,
        "sources": sources,
    }
    for what, column in columns.items():
        if len(column) != count:
            raise InputError(f"There are {count} collections, but {len(column)} {what}.")
    names = tuple(read_name("An id", name) for name in ids)
    seen: set[Name] = set()
    for name in names:
        if name in seen:
            raise InputError(f"The id {name!r} is given twice; ids must be unique.")
        seen.add(name)
    return Columns(names, tuple(map(payload_of, labels, metadata, sources)))


def payload_of(
    label: Name | None, metadata: dict[str, Any] | None, sources: Sequence[str]
) -> Payload:
    """Return what an engine keeps of a collection beside its vectors."""
    payload: Payload = {"label": None if label is None else read_name("A label", label)}
    payload |= {f"{METADATA}{name}": value for name, value in read_metadata(metadata).items()}
    if sources:
        payload["sources"] = [str(source) for source in sources]
    return payload


def metadata_of(payload: Payload) -> dict[str, Any]:
    """Return the metadata in a payload."""
    return {
        name.removeprefix(METADATA): deepcopy(value)  # which the caller may change
        for name, value in payload.items()
        if name.startswith(METADATA)
    }


def label_of(payload: Payload) -> Name | None:
    """Return the label in a payload.

    Raises:
        InputError: it is none; the index was tampered with.
    """
    label: Name | None = payload.get("label", ...)
    if label is None or (isinstance(label, str | int) and not isinstance(label, bool)):
        return label
    raise InputError("The index is damaged, a label is no string or integer: build it again.")


def label_or_id(name: Name, payload: Payload) -> tuple[bool, Name]:
    """Return what a collection counts as: its label, or itself where it has none."""
    label = label_of(payload)
    return (False, name) if label is None else (True, label)


def sources_in(payload: Payload, count: int | None = None) -> tuple[str, ...]:
    """Return the names of the items, which there are `count` of, or none of all.

    Raises:
        InputError: they are none; the index was tampered with.
    """
    sources = payload.get("sources", [])
    is_list_of_names = isinstance(sources, list) and all(isinstance(one, str) for one in sources)
    if is_list_of_names and (count is None or len(sources) in (0, count)):
        return tuple(sources)
    raise InputError("The index is damaged, a collection has other sources: build it again.")


def sources_of(collection: object) -> tuple[str, ...]:
    """Return the paths of a collection of files, in order, and nothing of other collections."""
    if not isinstance(collection, Sequence) or not all(
        isinstance(item, str | Path) for item in collection
    ):
        return ()
    return tuple(str(item) for item in collection)


def bare(
    vectors: Float[NDArray[np.float32], "collection dim"], columns: Columns, member_dim: int
) -> Records:
    """Return collections without members."""
    members, offsets = np.zeros((0, member_dim), np.float32), np.zeros(len(vectors) + 1, np.int64)
    return Records(columns.ids, vectors, members, offsets, columns.payloads)


def with_sources(payload: Payload, count: int, new: Sequence[str], num_new: int) -> Payload:
    """Return the payload of `count` members that others join; one without a name has none, ''."""
    if "sources" not in payload and not new:
        return payload
    old = payload.get("sources") or [""] * count
    return payload | {"sources": [*old, *(new or [""] * num_new)]}


def check_sources(columns: Columns, sizes: Sequence[int]) -> None:
    """Refuse names of items where there are not as many as items.

    Raises:
        InputError: it is so.
    """
    for name, payload, size in zip(columns.ids, columns.payloads, sizes, strict=True):
        count = len(payload.get("sources", ()))
        if count not in (0, size):
            raise InputError(f"Collection {name!r} has {size} items, but {count} sources.")


def where_of(filter: Mapping[str, Any] | None) -> Where | None:
    """Turn a filter on the label and on metadata, by a value or a list of values, into an engine's.

    Raises:
        InputError: the filter is no mapping of names.
    """
    if filter is None:
        return None
    if not isinstance(filter, Mapping) or not all(isinstance(name, str) for name in filter):
        raise InputError(
            f"A filter must be a dict from 'label' or a name of metadata to values, not {filter!r}."
        )
    return {
        name if name == "label" else f"{METADATA}{name}": read_values(allowed)
        for name, allowed in filter.items()
    }


def read_values(allowed: Any) -> list[Any]:
    """Return one value, or each of several, as JSON has them; a dict is one value."""
    is_one = isinstance(allowed, Mapping) or not is_list(allowed)
    if isinstance(allowed, np.ndarray | Tensor):
        is_one = allowed.ndim == 0
    return [as_json(one) for one in ([allowed] if is_one else allowed)]


def as_json(value: Any) -> Any:
    """Return a number of NumPy or PyTorch as one of Python."""
    is_number = isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0
    return value.item() if is_number else value


def read_exclude(exclude: Any, count: int) -> list[frozenset[Name]]:
    """Read which ids each of several queries leaves out.

    Raises:
        InputError: there is not a list of ids for each query.
    """
    if exclude is None:
        return [frozenset()] * count
    lists = list(exclude) if is_list(exclude) else [None]
    if not all(map(is_list, lists)):
        raise InputError("Each query takes a list of ids to exclude.")
    if len(lists) != count:
        raise InputError(f"There are {count} queries, but {len(lists)} lists to exclude.")
    return [frozenset(read_names(of)) for of in lists]


def is_list(value: object) -> bool:
    """Say whether this is several things, and not text."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def read_name(what: str, name: object) -> Name:
    """Return an id or label as a plain string or integer."""
    if isinstance(name, str):
        return str(name)
    if isinstance(name, Tensor) and name.ndim == 0:  # as a tensor of labels gives them
        name = name.item()
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return int(name)
    raise InputError(f"{what} must be a string or an integer, not {name!r}.")


def read_names(ids: Any) -> list[Name]:
    """Return one id, or several, as plain strings and integers."""
    return [read_name("An id", name) for name in (ids if is_list(ids) else [ids])]


def read_metadata(entry: dict[str, Any] | None) -> dict[str, Any]:
    """Return metadata as JSON gives them back, so that saving changes nothing."""
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise InputError(f"Metadata of a collection must be a dict, not {type(entry).__name__}.")
    try:
        return dict(json.loads(json.dumps(entry, allow_nan=False, default=plain)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Metadata of a collection must be JSON: {error}.") from error


def plain(value: object) -> Any:
    """Return a number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not")


def read_array(values: Tensor | ArrayLike) -> NDArray[np.float32]:
    """Copy numbers into float32 and refuse those that cannot be searched."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().float().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError("Vectors must hold real numbers, in rows of one length.") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"Vectors must hold real numbers, not {array.dtype}.")
    if not bool((np.abs(array) < LARGEST_VALUE).all()):  # false for NaN, too
        raise InputError(f"The vectors hold NaN, infinity or values beyond {LARGEST_VALUE:g}.")
    return np.array(array, dtype=np.float32)


def read_embeddings(values: Tensor | ArrayLike) -> Float[NDArray[np.float32], "collection dim"]:
    """Copy the vectors of collections."""
    array = read_array(values)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"An index needs vectors of shape [collections, dimensions], at least one; "
            f"found shape {array.shape}."
        )
    return array
