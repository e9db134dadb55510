"""The rows of `bounds.json`: what is measured of each triple of collections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from setrep.aggregators import AGGREGATORS, CentroidAggregator
from setrep.bounds import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_TOLERANCE,
    Triples,
    UpperBound,
    chamfer,
    inter_class_margin,
    karimov,
    margin_plus_max,
    measure,
    one_sided_margin,
    symmetric_margin,
)
from setrep.collection import CollectionBatch
from setrep.data.collections import CollectionTriples
from setrep.data.dataset import ItemDataset

TRIPLES_AT_ONCE = 64  # about 150 MB for collections of 20 items of 1,408 dimensions

# Which positives each margin of a row covers.
POSITIVES = {
    "one_sided": "cross_collection",
    "symmetric": "cross_collection",
    "inter_class": "same_collection",
}


@dataclass(frozen=True)
class Statement:
    """A bound with what it bounds from which side and what must be known to state it."""

    compute: Callable[[Triples], UpperBound]
    kind: Literal["upper", "lower"]
    knowledge: Literal["a_priori", "with_spread", "a_posteriori"]


STATEMENTS = {
    "karimov": Statement(karimov, "upper", "a_priori"),
    "margin_plus_max": Statement(margin_plus_max, "upper", "a_priori"),
    "chamfer": Statement(chamfer, "upper", "a_priori"),
}


def rows_of(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    aggregator: nn.Module,
    drawn: CollectionTriples,
    statements: dict[str, Statement],
    first_number: int,
) -> Iterator[dict[str, Any]]:
    """Measure triples, some at once, and build their rows."""
    applies = isinstance(aggregator, CentroidAggregator)
    for start in range(0, len(drawn.first), TRIPLES_AT_ONCE):
        part = slice(start, start + TRIPLES_AT_ONCE)
        items = (drawn.first[part], drawn.second[part], drawn.other[part])
        points = [embeddings[chosen] for chosen in items]
        triples = measure(*points)
        columns = columns_of(triples)
        if not applies:
            columns |= aggregate_distances(points, aggregator)
        lists = {name: column.tolist() for name, column in columns.items()}
        bounds = columns_of_bounds(triples, statements if applies else {})
        for i in range(len(points[0])):
            yield {
                "triple": first_number + start + i,
                **names_of(dataset, drawn, start + i),
                "sizes": [chosen.shape[1] for chosen in items],
                "dim": embeddings.shape[1],
                "aggregator": name_of_aggregator(aggregator),
                **row_of(lists, bounds, i),
            }


def names_of(dataset: ItemDataset, drawn: CollectionTriples, i: int) -> dict[str, Any]:
    """Name the two labels and, where there are any, the three keys of a triple."""
    keys = None if drawn.keys is None else take(dataset.key_names, drawn.keys[i])
    return {"labels": take(dataset.label_names, drawn.labels[i]), "keys": keys}


def take(names: Sequence[str], numbers: Int64[Tensor, " n"]) -> list[str]:
    """Return the names of labels or keys."""
    return [names[number] for number in numbers.tolist()]


def columns_of(triples: Triples) -> dict[str, Float64[Tensor, " triple"]]:
    """Compute what a row says beside its bounds."""
    return {
        "one_sided": one_sided_margin(triples),
        "symmetric": symmetric_margin(triples),
        "inter_class": inter_class_margin(triples),
        "scale": triples.scale,
        "distance_same": triples.distance_same,
        "distance_other": triples.distance_other,
        "max_distance": triples.max_distance,
    }


def aggregate_distances(
    points: list[Float[Tensor, "triple size dim"]], aggregator: nn.Module
) -> dict[str, Float64[Tensor, " triple"]]:
    """Measure the distances between what another aggregator than the mean gives."""
    with torch.no_grad():
        a, b, w = (aggregator(CollectionBatch.from_list(list(x))).cpu().double() for x in points)
    return {"distance_same": (a - b).norm(dim=-1), "distance_other": (a - w).norm(dim=-1)}


def columns_of_bounds(
    triples: Triples, statements: dict[str, Statement]
) -> dict[str, dict[str, list[float | bool]]]:
    """Compute every bound of some triples."""
    columns = {}
    for name, statement in statements.items():
        bound = statement.compute(triples)
        fields = ("value", "bound", "slack", "tightness", "holds")
        columns[name] = {field: getattr(bound, field).tolist() for field in fields}
    return columns


def row_of(
    lists: dict[str, list[float]], bounds: dict[str, dict[str, list[float | bool]]], i: int
) -> dict[str, Any]:
    """Build the numbers of one row."""
    return {
        "scale": lists["scale"][i],
        "margin": {**{name: lists[name][i] for name in POSITIVES}, "positives": POSITIVES},
        "distance_same": lists["distance_same"][i],
        "distance_other": lists["distance_other"][i],
        "max_distance": lists["max_distance"][i],
        "bounds": {
            name: {field: none_for_nan(column[i]) for field, column in columns.items()}
            for name, columns in bounds.items()
        },
        "hull": None,
        "tolerance": {
            "relative": RELATIVE_TOLERANCE,
            "absolute": ABSOLUTE_TOLERANCE * lists["scale"][i],
        },
    }


def none_for_nan(number: float | bool) -> float | bool | None:
    """Return none for NaN, which JSON does not know."""
    return None if isinstance(number, float) and math.isnan(number) else number


def name_of_aggregator(aggregator: nn.Module) -> str:
    """Return the name an aggregator is built by, else that of its class."""
    names = [name for name, build in AGGREGATORS.items() if build is type(aggregator)]
    return names[0] if names else type(aggregator).__name__
