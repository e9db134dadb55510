"""Order one gallery by one method; what is found, by brute force and in two stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.retrieval.plan import NUM_CANDIDATES
from setrep.aggregators import CentroidAggregator
from setrep.collection import CollectionBatch
from setrep.data.collections import QueryGallery, derive_generator, draw_query_gallery
from setrep.data.dataset import ItemDataset
from setrep.metrics import class_means, map_at_r, recall_at_k
from setrep.set_distances import SET_DISTANCES, pairwise

Order = Callable[[CollectionBatch, CollectionBatch], Tensor]
VALUES = ("recall_at_1", "recall_at_5", "map_at_r")
# Of two stages: the same, and which share of the nearest by brute force was among the candidates.
TWO_STAGES = (*(f"two_stage_{name}" for name in VALUES), "found_top1", "found_top5")
MOST_DRAWS = 40


@dataclass(frozen=True)
class Task:
    """Queries and galleries of one size that every method meets."""

    size: int
    draws: tuple[QueryGallery, ...]

    @property
    def labels(self) -> Tensor:
        """Labels of all queries."""
        return torch.cat([draw.query_labels for draw in self.draws])


def prepare(dataset: ItemDataset, size: int, per_label: int, num_queries: int, seed: int) -> Task:
    """Draw galleries until there are enough queries, and of the last only as many as needed."""
    draws: list[QueryGallery] = []
    needed = num_queries
    while needed > 0 and len(draws) < MOST_DRAWS:
        at = seed * MOST_DRAWS + len(draws)
        draw = draw_query_gallery(dataset, size, seed=at, max_per_label=per_label)
        draws.append(keep_queries(draw, needed, derive_generator(at, size, 1)))
        needed -= len(draws[-1].query_labels)
    return Task(size, tuple(draws))


def keep_queries(draw: QueryGallery, count: int, generator: torch.Generator) -> QueryGallery:
    """Keep some queries, as many of each label as of any other, or one more."""
    labels = draw.query_labels
    if count >= len(labels):
        return draw
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.unique(labels, return_counts=True)[1]
    turn = torch.cat([torch.arange(int(of)) for of in counts])  # first of its label, second, ...
    by_chance = torch.randperm(len(labels), generator=generator)
    first = by_chance[turn[by_chance].argsort(stable=True)[:count]]
    kept = order[first].sort().values
    batch = CollectionBatch(draw.query_items, draw.query_offsets).select(kept)
    return replace(
        draw, query_items=batch.values, query_offsets=batch.offsets, query_labels=labels[kept]
    )


def order_by_aggregates(aggregator: Callable[[CollectionBatch], Tensor]) -> Order:
    """Return the Euclidean distances of aggregates."""

    def order(queries: CollectionBatch, gallery: CollectionBatch) -> Tensor:
        x, y = aggregator(queries).double(), aggregator(gallery).double()
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

    return order


def order_by_sets(name: str) -> Order:
    """Return a set distance of all pairs; a similarity has its sign changed."""
    law = SET_DISTANCES[name]
    sign = -1 if law.is_similarity else 1
    return lambda queries, gallery: sign * pairwise(law.function, queries, gallery)


@torch.no_grad()
def measure(embeddings: Tensor, task: Task, order: Order, has_stages: bool) -> Tensor:
    """Return what each query finds, as [value, query]: `VALUES`, and with stages `TWO_STAGES`."""
    parts = []
    by_centroid = order_by_aggregates(CentroidAggregator(embeddings.shape[1]))
    for draw in task.draws:
        queries = CollectionBatch(embeddings[draw.query_items], draw.query_offsets)
        gallery = CollectionBatch(embeddings[draw.gallery_items], draw.gallery_offsets)
        distance = order(queries, gallery)
        nearest = distance.argsort(dim=1, stable=True)
        found = reached(nearest, draw)
        if has_stages:
            first = by_centroid(queries, gallery).argsort(dim=1, stable=True)
            found += two_stages(distance, nearest, first[:, :NUM_CANDIDATES], draw)
        parts.append(torch.stack(found))
    return torch.cat(parts, dim=1)


def reached(nearest: Tensor, draw: QueryGallery) -> list[Tensor]:
    """Return `VALUES` of each query, whose nearest collections are given in order."""
    is_relevant = draw.gallery_labels[nearest] == draw.query_labels.unsqueeze(1)
    relevant = (draw.gallery_labels == draw.query_labels.unsqueeze(1)).sum(dim=1)
    return [
        recall_at_k(is_relevant, 1),
        recall_at_k(is_relevant, 5),
        map_at_r(is_relevant, relevant),
    ]


def two_stages(
    distance: Tensor, nearest: Tensor, candidates: Tensor, draw: QueryGallery
) -> list[Tensor]:
    """Return `TWO_STAGES` of each query: only candidates are ordered by the distance."""
    is_candidate = torch.zeros_like(distance, dtype=torch.bool).scatter_(1, candidates, True)
    ranked = distance.masked_fill(~is_candidate, torch.inf).argsort(dim=1, stable=True)
    is_found = is_candidate.gather(1, nearest[:, :5]).double()
    # What is no candidate is not found at all, so that it is of no label.
    of_nobody = torch.full_like(draw.gallery_labels, -1)
    labels = torch.where(is_candidate, draw.gallery_labels, of_nobody).gather(1, ranked)
    is_relevant = labels == draw.query_labels.unsqueeze(1)
    relevant = (draw.gallery_labels == draw.query_labels.unsqueeze(1)).sum(dim=1)
    return [
        recall_at_k(is_relevant, 1),
        recall_at_k(is_relevant, 5),
        map_at_r(is_relevant, relevant),
        is_found[:, 0],
        is_found.mean(dim=1),
    ]


def by_class(values: Tensor, labels: Tensor, classes: Tensor) -> NDArray[np.float32]:
    """Return the mean of each value in each class as [value, class], nan without a query."""
    found = np.full((len(values), len(classes)), np.nan, np.float32)
    places = torch.searchsorted(classes, torch.unique(labels)).numpy()
    for row, of_query in zip(found, values, strict=True):
        row[places] = class_means(of_query, labels).numpy()
    return found
