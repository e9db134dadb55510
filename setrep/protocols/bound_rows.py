"""The rows of `bounds.json`: what is measured of each triple of collections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from setrep.aggregators import AGGREGATORS, Aggregator, NormalizedAggregator
from setrep.bounds import (
    RELATIVE_TOLERANCE,
    inter_class_margin,
    one_sided_margin,
    symmetric_margin,
)
from setrep.bounds.bound import ABSOLUTE_TOLERANCE
from setrep.data.collections import CollectionTriples
from setrep.data.dataset import ItemDataset
from setrep.protocols.bound_sample import BoundSample, in_float64, sample_of
from setrep.protocols.bound_statements import Statement

TRIPLES_AT_ONCE = 64  # about 150 MB for collections of 20 items of 1,408 dimensions
FIELDS = ("value", "bound", "slack", "tightness", "tolerance", "holds")
# Which positives each margin of a row covers.
POSITIVES = {
    "one_sided": "cross_collection",
    "symmetric": "cross_collection",
    "inter_class": "same_collection",
}


def rows_of(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    aggregator: Aggregator,
    drawn: CollectionTriples,
    statements: dict[str, Statement],
    first_number: int,
    loss_margin: float,
) -> Iterator[dict[str, Any]]:
    """Measure triples, some at once, and build their rows."""
    name, exact = name_of_aggregator(aggregator), in_float64(aggregator)
    applying = {key: one for key, one in statements.items() if one.why_not(exact) is None}
    for start in range(0, len(drawn.first), TRIPLES_AT_ONCE):
        part = slice(start, start + TRIPLES_AT_ONCE)
        with torch.no_grad():
            sample = sample_of(embeddings, drawn, part, exact, loss_margin)
            columns = columns_of(sample)
            bounds = columns_of_bounds(sample, applying)
        lists = {key: column.tolist() for key, column in columns.items()}
        for i in range(len(sample.points[0])):
            items = [x[start + i].tolist() for x in (drawn.first, drawn.second, drawn.other)]
            yield {
                "triple": first_number + start + i,
                **names_of(dataset, drawn, start + i),
                "items": items,
                "sizes": [len(of) for of in items],
                "dim": embeddings.shape[1],
                "aggregator": name,
                **row_of(lists, bounds, i),
            }


def names_of(dataset: ItemDataset, drawn: CollectionTriples, i: int) -> dict[str, Any]:
    """Name the two labels and, where there are any, the three keys of a triple."""
    keys = None if drawn.keys is None else take(dataset.key_names, drawn.keys[i])
    return {"labels": take(dataset.label_names, drawn.labels[i]), "keys": keys}


def take(names: Sequence[str], numbers: Int64[Tensor, " n"]) -> list[str]:
    """Return the names of labels or keys."""
    return [names[number] for number in numbers.tolist()]


def columns_of(sample: BoundSample) -> dict[str, Float64[Tensor, " triple"]]:
    """Compute what a row says beside its bounds."""
    return {
        "one_sided": one_sided_margin(sample.triples),
        "symmetric": symmetric_margin(sample.triples),
        "inter_class": inter_class_margin(sample.triples),
        "scale": sample.triples.scale,
        "distance_same": sample.distance_same,
        "distance_other": sample.distance_other,
        "max_distance": sample.triples.max_distance,
    }


def columns_of_bounds(
    sample: BoundSample, statements: dict[str, Statement]
) -> dict[str, dict[str, list[float | bool | None]]]:
    """Compute every bound of some triples, and the hulls where a bound needed them."""
    columns = {}
    for name, statement in statements.items():
        columns[name] = columns_of_bound(sample, statement)
    if "hull_lower" in statements:
        columns["hull"] = {"lo": sample.hull.lower.tolist(), "hi": sample.hull.upper.tolist()}
    return columns


def columns_of_bound(
    sample: BoundSample, statement: Statement
) -> dict[str, list[float | bool | None]]:
    """Compute one bound; it is none of the triples that it does not speak of."""
    count = len(sample.points[0])
    spoken_of = torch.ones(count, dtype=torch.bool)
    if statement.where is not None:
        spoken_of = statement.where(sample)
    if bool(spoken_of.all()):
        bound = statement.compute(sample)
        return {field: getattr(bound, field).tolist() for field in FIELDS}
    columns: dict[str, list[float | bool | None]] = {field: [None] * count for field in FIELDS}
    if bool(spoken_of.any()):
        part = statement.compute(sample.take(spoken_of))
        for field, column in columns.items():
            found = iter(getattr(part, field).tolist())
            column[:] = [next(found) if of else None for of in spoken_of.tolist()]
    return columns


def row_of(
    lists: dict[str, list[float]], bounds: dict[str, dict[str, list[float | bool | None]]], i: int
) -> dict[str, Any]:
    """Build the numbers of one row."""
    of_row = {
        name: {field: none_for_nan(column[i]) for field, column in columns.items()}
        for name, columns in bounds.items()
    }
    return {
        "scale": lists["scale"][i],
        "margin": {**{name: lists[name][i] for name in POSITIVES}, "positives": POSITIVES},
        "distance_same": lists["distance_same"][i],
        "distance_other": lists["distance_other"][i],
        "max_distance": lists["max_distance"][i],
        "hull": of_row.pop("hull", None),
        "bounds": of_row,
        "tolerance": {
            "relative": RELATIVE_TOLERANCE,
            "absolute": ABSOLUTE_TOLERANCE * lists["scale"][i],
        },
    }


def none_for_nan(number: float | bool | None) -> float | bool | None:
    """Return none for NaN and infinity, which JSON does not know."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def name_of_aggregator(aggregator: nn.Module) -> str:
    """Return the name an aggregator is built by, else that of its class."""
    if isinstance(aggregator, NormalizedAggregator):
        return f"{name_of_aggregator(aggregator.inner)}, normalized"
    names = [name for name, build in AGGREGATORS.items() if build is type(aggregator)]
    return names[0] if names else type(aggregator).__name__
