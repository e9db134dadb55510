"""Small indexes of collections, and what they should hold and find, worked out slowly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch
from setrep.config import AggregatorConfig, EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.retrieval import CollectionIndex
from setrep.set_encoder import SetEncoder

VECTOR = ItemFormat("vector", 3, 1)
LABELS = ("x", "y", 7, None)


def make_encoder(
    scale: float = 1.0,
    name: str = "identity",
    aggregator: str = "centroid",
    *,
    normalize: bool = False,
) -> SetEncoder:
    """Multiply items by `scale`."""
    config = EncoderConfig(name=name, projection="linear", projection_dim=3, normalize=False)
    encoder = build_encoder(config, VECTOR)
    with torch.no_grad():
        encoder.projection.weight.copy_(scale * torch.eye(3))
        encoder.projection.bias.zero_()
    return SetEncoder(
        encoder,
        build_aggregator(aggregator, 3, normalize=normalize),
        item_format=VECTOR,
        encoder_config=config,
        aggregator_config=AggregatorConfig(name=aggregator, normalize=normalize),
    ).eval()


@cache
def same_encoder() -> SetEncoder:
    """Make one that no test changes."""
    return make_encoder()


def make_index(seed: int = 0, count: int = 6, dim: int = 3) -> CollectionIndex:
    """Index bare vectors."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    metadata = [{"seed": seed, "place": place} for place in range(count)]
    return CollectionIndex.from_embeddings(
        vectors, [f"id {i}" for i in range(count)], list(range(count)), metadata
    )


def make_full_index(scale: float = 1.0) -> CollectionIndex:
    """Index three collections of items with a set encoder."""
    collections = [torch.eye(3)[:2], 5 + torch.eye(3), torch.full((4, 3), -3.0)]
    return CollectionIndex.build(make_encoder(scale), collections, ["a", "b", 3], ["x", "y", None])


class Kept(NamedTuple):
    """A collection that an index should hold."""

    members: np.ndarray
    label: Any
    metadata: dict[str, Any]


Model = dict[Any, Kept]  # by id, in the order that they were added


def draw_items(generator: np.random.Generator, is_grid: bool) -> np.ndarray:
    """Draw the items of a collection.

    On the grid coordinates are whole and sizes powers of two, so that float32 holds centroids and
    scores exactly, and many tie.
    """
    if is_grid:
        return generator.integers(-2, 3, (2 ** generator.integers(0, 3), 3)).astype(np.float32)
    return generator.normal(size=(generator.integers(1, 7), 3)).astype(np.float32)


def draw_model(
    seed: int, count: int, *, is_grid: bool = True, labels: tuple[Any, ...] = LABELS, start: int = 0
) -> Model:
    """Draw collections with ids of both types, some without a label."""
    generator = np.random.default_rng(seed)
    return {
        (place if place % 2 else f"{place - 1}"): Kept(
            draw_items(generator, is_grid),
            labels[generator.integers(len(labels))],
            {"year": int(generator.integers(3)), "sold": bool(generator.integers(2))},
        )
        for place in range(start, start + count)
    }


def columns(model: Model) -> tuple[list[torch.Tensor], list[Any], list[Any], list[Any]]:
    """Return what `build` and `add` take."""
    return (
        [torch.from_numpy(kept.members) for kept in model.values()],
        list(model),
        [kept.label for kept in model.values()],
        [kept.metadata for kept in model.values()],
    )


def index_of(model: Model, encoder: SetEncoder | None = None) -> CollectionIndex:
    """Build an index in memory."""
    return CollectionIndex.build(encoder or same_encoder(), *columns(model))


def centre(members: np.ndarray) -> np.ndarray:
    """Average items in float64."""
    return members.astype(np.float64).sum(axis=0) / len(members)


def batch(*collections: np.ndarray) -> CollectionBatch:
    """Join collections."""
    return CollectionBatch.from_list([torch.from_numpy(one) for one in collections])


def brute(
    model: Model,
    query: np.ndarray,
    passes: Callable[[Any, Kept], bool] = lambda name, kept: True,
) -> list[tuple[Any, float]]:
    """Score all centroids against that of a query; of equal scores the first added comes first."""
    aim = centre(query)
    scores = [
        (name, -float(((centre(kept.members) - aim) ** 2).sum()))
        for name, kept in model.items()
        if passes(name, kept)
    ]
    return sorted(scores, key=lambda pair: -pair[1])


def brute_margin(model: Model, ranked: list[tuple[Any, float]]) -> float | None:
    """Return the lead of the first over the best of another label; none is a label of its own."""

    def kind(name: Any) -> Any:
        label = model[name].label
        return ("id", name) if label is None else ("label", label)

    others = [score for name, score in ranked if kind(name) != kind(ranked[0][0])]
    return ranked[0][1] - max(others) if others else None


def brute_items(members: np.ndarray, query: np.ndarray) -> list[tuple[int, int, float]]:
    """Return for each item of the query the first of the members nearest to it."""
    found = []
    for place, item in enumerate(query.astype(np.float64)):
        squares = ((members.astype(np.float64) - item) ** 2).sum(axis=1)
        found.append((place, int(squares.argmin()), -float(squares.min())))
    return found


def everything(index: CollectionIndex) -> list[Any]:
    """Return all that an index holds and says of itself."""
    records = list(index.engine.iterate())
    held = [
        (name, part.vectors[i].tolist(), part.members[a:b].tolist(), part.payloads[i])
        for part in records
        for i, name in enumerate(part.ids)
        for a, b in [(int(part.offsets[i]), int(part.offsets[i + 1]))]
    ]
    return [held, index.origin, index.dim, index.engine.member_dim, index.certificate]
