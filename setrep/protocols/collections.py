"""Collection retrieval: do the nearest collections have the query's label?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.collections import QueryGallery, draw_query_gallery
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.index.search import top_k
from setrep.metrics import bootstrap_over_classes, map_at_r, recall_at_k
from setrep.protocols.items import unit_length
from setrep.protocols.results import CollectionResult, PairedDifference

logger = logging.getLogger(__name__)
Aggregator = Callable[[CollectionBatch], Float[Tensor, "collection dim"]]

COLLECTIONS_AT_ONCE = 4096
NEIGHBOURS_AT_ONCE = 2_000_000  # all that is kept of a chunk's neighbours: about 100 MB


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
    that no label can serve is logged and has no numbers. The interval is a bootstrap over
    classes, none of fewer than five.
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
        first, fifth, precision = measure_queries(embeddings, draw, aggregator)
        results.append(
            CollectionResult(
                size=size,
                num_queries=len(draw.query_labels),
                num_gallery=len(draw.gallery_labels),
                num_classes=draw.num_classes,
                recall_at_1=float(first.mean()),
                recall_at_5=float(fifth.mean()),
                map_at_r=float(precision.nanmean()),
                recall_at_1_ci95=bootstrap_over_classes(
                    first, draw.query_labels, num_bootstrap, seed
                ),
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
    """Collection recall@1 of `embeddings` minus that of `other`, on the same queries and galleries.

    The 95 % interval resamples classes; above 0 throughout, `embeddings` are better. `other` goes
    through `other_aggregator`, or the same one where that fits both.

    Raises:
        InputError: no label can serve the size.
    """
    _check(embeddings, dataset, [size])
    _check(other, dataset, [size])
    draw = draw_query_gallery(dataset, size, seed=seed)
    ours = measure_queries(embeddings, draw, aggregator)[0]
    theirs = measure_queries(other, draw, other_aggregator or aggregator)[0]
    return _paired(ours - theirs, draw.query_labels, size, num_bootstrap, seed)


def paired_item_difference(
    embeddings: Float[Tensor, "item dim"],
    other: Float[Tensor, "item other_dim"],
    dataset: ItemDataset,
    *,
    seed: int,
    num_bootstrap: int = 1000,
) -> PairedDifference:
    """Item recall@1 of `embeddings` minus that of `other`, each item against all others.

    By cosine similarity, as `evaluate_items`; the interval is that of `paired_difference`.
    """
    _check(embeddings, dataset, [])
    _check(other, dataset, [])
    labels = torch.from_numpy(dataset.labels)
    ours, theirs = (_has_right_neighbour(values, labels) for values in (embeddings, other))
    return _paired(ours - theirs, labels, None, num_bootstrap, seed)


@torch.no_grad()
def measure_queries(
    embeddings: Float[Tensor, "item dim"], draw: QueryGallery, aggregator: Aggregator
) -> tuple[Float[Tensor, " query"], Float[Tensor, " query"], Float[Tensor, " query"]]:
    """Return recall@1, recall@5 and MAP@R of each query collection.

    Neighbours are reduced a chunk of queries at a time: natural collections can have thousands of
    relevant ones, and all of all queries fit no memory.
    """
    queries = _aggregate(embeddings, draw.query_items, draw.query_offsets, aggregator)
    gallery = _aggregate(embeddings, draw.gallery_items, draw.gallery_offsets, aggregator)
    labels, counts = torch.unique(draw.gallery_labels, return_counts=True)
    num_relevant = counts[torch.searchsorted(labels, draw.query_labels)]
    k = min(max(5, int(num_relevant.max())), len(gallery))
    chunk = max(1, NEIGHBOURS_AT_ONCE // k)
    firsts, fifths, precisions = [], [], []
    for at in range(0, len(queries), chunk):
        of = slice(at, at + chunk)
        index = top_k(queries[of], gallery, k, metric="euclidean")[1].cpu()
        is_relevant = draw.gallery_labels[index] == draw.query_labels[of].unsqueeze(1)
        firsts.append(recall_at_k(is_relevant, 1))
        fifths.append(recall_at_k(is_relevant, 5))
        precisions.append(map_at_r(is_relevant, num_relevant[of]))
    return torch.cat(firsts), torch.cat(fifths), torch.cat(precisions)


@torch.no_grad()
def _has_right_neighbour(
    embeddings: Float[Tensor, "item dim"], labels: Int64[Tensor, " item"]
) -> Float[Tensor, " item"]:
    """1 for an item whose nearest other item has its label, else 0."""
    unit = unit_length(embeddings)
    nearest, second = top_k(unit, unit, 2, metric="euclidean")[1].cpu().unbind(dim=1)
    return (labels[nearest.where(nearest != torch.arange(len(unit)), second)] == labels).double()


def _paired(
    difference: Float[Tensor, " query"],
    labels: Int64[Tensor, " query"],
    size: int | None,
    num_bootstrap: int,
    seed: int,
) -> PairedDifference:
    """Average the differences of all queries, with their interval over classes."""
    return PairedDifference(
        size=size,
        num_queries=len(difference),
        num_classes=len(torch.unique(labels)),
        difference=float(difference.mean()),
        ci95=bootstrap_over_classes(difference, labels, num_bootstrap, seed),
    )


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
