"""Collection retrieval of one aggregator against size and contamination, class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.aggregation.plan import CONDITIONS
from setrep.collection import CollectionBatch
from setrep.data.collections import QueryGallery, draw_query_gallery
from setrep.data.contamination import contaminate
from setrep.data.dataset import ItemDataset
from setrep.protocols.collections import measure_queries

MOST_REPEATS = 40


@dataclass(frozen=True)
class Task:
    """Queries and galleries of one size under one condition, of one or more draws."""

    size: int
    condition: str
    probability: float
    draws: tuple[QueryGallery, ...]


def prepare(
    dataset: ItemDataset, sizes: tuple[int, ...], num_queries: int, seed: int
) -> list[Task]:
    """Draw what every aggregator meets: each size and condition, until there are enough queries.

    Queries and galleries draw strangers each from their own side, so that they share no item.
    """
    tasks = []
    for size in sizes:
        draws: list[QueryGallery] = []
        while sum(len(draw.query_labels) for draw in draws) < num_queries:
            draws.append(draw_query_gallery(dataset, size, seed=seed * MOST_REPEATS + len(draws)))
            if len(draws) == MOST_REPEATS:
                break
        for number, (condition, probability) in enumerate(CONDITIONS):
            if condition == "strangers" and size == 1:
                continue  # one true item is left, so nothing changes
            generator = torch.Generator().manual_seed(1000 * seed + 10 * size + number)
            changed = (
                change(draw, condition, probability, len(dataset), generator) for draw in draws
            )
            tasks.append(Task(size, condition, probability, tuple(changed)))
    return tasks


def change(
    draw: QueryGallery,
    condition: str,
    probability: float,
    num_items: int,
    generator: torch.Generator,
) -> QueryGallery:
    """Replace items by strangers, or by their noisy or occluded copies, which lie behind all."""
    sides = {}
    for side in ("query", "gallery"):
        items, offsets, labels = (
            getattr(draw, f"{side}_{what}") for what in ("items", "offsets", "labels")
        )
        batch = CollectionBatch(items, offsets)
        if condition == "strangers":
            items = contaminate(batch, labels[batch.index], probability, generator).values
        elif condition != "clean":
            is_corrupted = torch.rand(len(items), generator=generator) < probability
            copy = {"noise": 1, "occlusion": 2}[condition]
            items = torch.where(is_corrupted, copy * num_items + items, items)
        sides[f"{side}_items"] = items
    return replace(draw, **sides)


def measure(
    aggregator: Callable[[CollectionBatch], Tensor], table: Tensor, tasks: list[Task]
) -> tuple[list[dict[str, float | int | str]], NDArray[np.float32]]:
    """Return recall@1 and MAP@R of each task, and recall@1 of each class as [task, class].

    `table` holds the embeddings of items, then of noisy copies, then of occluded ones.
    """
    rows, by_class = [], []
    classes = torch.unique(torch.cat([draw.query_labels for task in tasks for draw in task.draws]))
    for task in tasks:
        first, precision, labels = [], [], []
        for draw in task.draws:
            hits, _, at_r = measure_queries(table, draw, aggregator)
            first.append(hits)
            precision.append(at_r)
            labels.append(draw.query_labels)
        hit, of = torch.cat(first), torch.cat(labels)
        rows.append(
            {
                "size": task.size,
                "condition": task.condition,
                "probability": task.probability,
                "num_queries": len(hit),
                "num_classes": len(torch.unique(of)),
                "recall_at_1": round(float(hit.mean()), 5),
                "map_at_r": round(float(torch.cat(precision).nanmean()), 5),
            }
        )
        place = torch.searchsorted(classes, of)
        counts = torch.bincount(place, minlength=len(classes))
        sums = torch.bincount(place, hit.double(), minlength=len(classes))
        by_class.append((sums / counts).numpy().astype(np.float32))  # none: no query of the class
    return rows, np.stack(by_class)
