"""Collection retrieval: do the nearest collections have the query's label?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.collections import QueryGallery, draw_query_gallery
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.index import top_k
from setrep.metrics import bootstrap_over_classes, map_at_r, recall_at_k
from setrep.protocols.results import CollectionResult, PairedDifference

logger = logging.getLogger(__name__)
Aggregator = Callable[[CollectionBatch], Float[Tensor, "collection dim"]]

COLLECTIONS_AT_ONCE = 4096
NEIGHBOURS_AT_ONCE = 4_000_000


def evaluate_collections(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    aggregator: Aggregator,
    sizes: Sequence[int],
    *,
    seed: int,
    num_bootstrap: int = 1000,
) -> list[CollectionResult]:
    """Measure recall@1, recall@5 and MAP@R of query against gallery collections of each size.

    Collections are compared by the Euclidean distance of their aggregated embeddings. The draw
    depends on `seed`, size and data set only, so every embedding meets the same queries. A size
    that no label can serve is logged and has no numbers. The interval is a bootstrap over classes.
    """
    _check(embeddings, dataset, sizes)
    results = []
    for size in sizes:
        try:
            draw = draw_query_gallery(dataset, size, seed=seed)
        except InputError as error:
            logger.warning("Collections of size %d are not evaluated: %s", size, error)
            results.append(CollectionResult(size, 0, 0, 0, None, None, None, None))
            continue
        is_relevant, num_relevant = search_collections(embeddings, draw, aggregator)
        first = recall_at_k(is_relevant, 1)
        interval = None
        if draw.num_classes > 1:
            interval = bootstrap_over_classes(first, draw.query_labels, num_bootstrap, seed)
        results.append(
            CollectionResult(
                size=size,
                num_queries=len(draw.query_labels),
                num_gallery=len(draw.gallery_labels),
                num_classes=draw.num_classes,
                recall_at_1=float(first.mean()),
                recall_at_5=float(recall_at_k(is_relevant, 5).mean()),
                map_at_r=float(map_at_r(is_relevant, num_relevant).nanmean()),
                recall_at_1_ci95=interval,
            )
        )
    return results


def paired_difference(
    embeddings: Float[Tensor, "item dim"],
    other: Float[Tensor, "item other_dim"],
    dataset: ItemDataset,
    aggregator: Aggregator,
    size: int,
    *,
    other_aggregator: Aggregator | None = None,
    seed: int,
    num_bootstrap: int = 1000,
) -> PairedDifference:
    """Recall@1 of `embeddings` minus that of `other`, on the same queries and galleries.

    The 95 % interval resamples classes; above 0 throughout, `embeddings` are better. `other` goes
    through `other_aggregator`, or the same one where that fits both.

    Raises:
        InputError: no label can serve the size, or only one can.
    """
    _check(embeddings, dataset, [size])
    _check(other, dataset, [size])
    draw = draw_query_gallery(dataset, size, seed=seed)
    sides = ((embeddings, aggregator), (other, other_aggregator or aggregator))
    ours, theirs = (recall_at_k(search_collections(x, draw, by)[0], 1) for x, by in sides)
    difference = ours - theirs
    return PairedDifference(
        size=size,
        num_queries=len(difference),
        num_classes=draw.num_classes,
        difference=float(difference.mean()),
        ci95=bootstrap_over_classes(difference, draw.query_labels, num_bootstrap, seed),
    )


@torch.no_grad()
def search_collections(
    embeddings: Float[Tensor, "item dim"], draw: QueryGallery, aggregator: Aggregator
) -> tuple[Bool[Tensor, "query neighbour"], Int64[Tensor, " query"]]:
    """Return which neighbours of each query are relevant, and how many there are to find."""
    queries = _aggregate(embeddings, draw.query_items, draw.query_offsets, aggregator)
    gallery = _aggregate(embeddings, draw.gallery_items, draw.gallery_offsets, aggregator)
    labels, counts = torch.unique(draw.gallery_labels, return_counts=True)
    num_relevant = counts[torch.searchsorted(labels, draw.query_labels)]
    k = min(max(5, int(num_relevant.max())), len(gallery))
    chunk = max(1, NEIGHBOURS_AT_ONCE // k)
    found = [
        draw.gallery_labels[
            top_k(queries[at : at + chunk], gallery, k, metric="euclidean")[1].cpu()
        ]
        for at in range(0, len(queries), chunk)
    ]
    return torch.cat(found) == draw.query_labels.unsqueeze(1), num_relevant


def _aggregate(
    embeddings: Tensor, items: Tensor, offsets: Tensor, aggregator: Aggregator
) -> Float[Tensor, "collection dim"]:
    """Aggregate some collections at a time; a collection is the same in any company."""
    parts = []
    for first in range(0, len(offsets) - 1, COLLECTIONS_AT_ONCE):
        bounds = offsets[first : first + COLLECTIONS_AT_ONCE + 1]
        chosen = items[bounds[0] : bounds[-1]].to(embeddings.device)
        batch = CollectionBatch(embeddings[chosen], (bounds - bounds[0]).to(embeddings.device))
        parts.append(aggregator(batch))
    return torch.cat(parts)


def _check(embeddings: Tensor, dataset: ItemDataset, sizes: Sequence[int]) -> None:
    """Refuse embeddings of other items and sizes that are none."""
    if len(embeddings) != len(dataset):
        raise InputError(
            f"{dataset.name} has {len(dataset)} items, but there are {len(embeddings)} embeddings. "
            f"Embed every item, in order."
        )
    if any(size < 1 for size in sizes):
        raise InputError(f"Collection sizes must be at least 1; found {list(sizes)}.")
