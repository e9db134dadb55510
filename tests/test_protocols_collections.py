"""Collections among collections, and the paired differences of two embeddings."""

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from setrep.aggregators import CentroidAggregator
from setrep.collection import CollectionBatch
from setrep.data.collections import draw_query_gallery
from setrep.errors import InputError
from setrep.protocols import collections
from setrep.protocols.collections import (
    evaluate_collections,
    measure_queries,
    paired_difference,
    paired_item_difference,
)
from setrep.protocols.items import evaluate_items
from setrep.protocols.results import CollectionResult
from setrep.reports.tables import with_interval
from tests.embeddings import clustered, vector_dataset


def centroid(batch: CollectionBatch) -> torch.Tensor:
    """Average items of any width."""
    return CentroidAggregator(batch.values.shape[1])(batch)


def slow_collections(values, dataset, size, seed):
    """Compare every query collection with every gallery collection."""
    draw = draw_query_gallery(dataset, size, seed=seed)

    def centroids(of, offsets):
        return [values[of[a:b]].double().mean(dim=0) for a, b in pairwise(offsets)]

    queries = centroids(draw.query_items, draw.query_offsets)
    gallery = centroids(draw.gallery_items, draw.gallery_offsets)
    first, fifth, precisions = [], [], []
    for query, label in zip(queries, draw.query_labels, strict=True):
        order = sorted(range(len(gallery)), key=lambda j: float((query - gallery[j]).norm()))
        hits = [bool(draw.gallery_labels[j] == label) for j in order]
        r = sum(hits)
        first.append(hits[0])
        fifth.append(any(hits[:5]))
        precisions.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r)
    return [np.mean(first), np.mean(fifth), np.mean(precisions)]


@pytest.mark.parametrize("is_natural", [False, True])
def test_collections_equal_a_loop_over_query_and_gallery(is_natural, monkeypatch):
    monkeypatch.setattr(collections, "COLLECTIONS_AT_ONCE", 7)
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", 40)
    values, labels = clustered(240, 6, noise=3.0)
    keys = labels * 8 + torch.arange(240) // 6 % 8 if is_natural else None
    dataset = vector_dataset(values, labels, keys)
    results = evaluate_collections(values, dataset, centroid, [1, 3, 5], seed=1, num_bootstrap=50)
    for result, size in zip(results, [1, 3, 5], strict=True):
        expected = slow_collections(values, dataset, size, 1)
        assert [result.recall_at_1, result.recall_at_5, result.map_at_r] == pytest.approx(expected)
        assert result.size == size
        assert result.num_classes == 6
        low, high = result.recall_at_1_ci95
        assert low <= result.recall_at_1 <= high


def test_collections_repeat_for_a_seed_and_differ_for_another():
    values, labels = clustered(200, 5, noise=4.0)
    dataset = vector_dataset(values, labels)
    first, again, other = (
        evaluate_collections(values, dataset, centroid, [2], seed=seed, num_bootstrap=20)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_size_that_no_label_can_serve_has_no_numbers(caplog):
    values, labels = clustered(60, 6)
    with caplog.at_level(logging.WARNING):
        results = evaluate_collections(
            values, vector_dataset(values, labels), centroid, [5, 6], seed=0, num_bootstrap=10
        )
    assert results[0].num_queries == 6
    assert results[1] == CollectionResult(6, 0, 0, 0, None, None, None, None)
    assert "Collections of size 6 are not evaluated" in caplog.text


@pytest.mark.parametrize("num_classes", [1, 4, 5])
def test_fewer_than_five_classes_have_a_recall_but_no_interval(num_classes):
    values, labels = clustered(100, num_classes, noise=0.01)
    [result] = evaluate_collections(values, vector_dataset(values, labels), centroid, [2], seed=0)
    assert result.recall_at_1 == 1
    assert result.recall_at_1_ci95 == (None if num_classes < 5 else (1, 1))
    shown = "100.0 [–]" if num_classes < 5 else "100.0 [100.0, 100.0]"
    assert with_interval(result) == shown


def natural(num_keys, num_labels, *, noise=4.0, dim=8, seed=0):
    """Give each key one item, so that half of the keys of a label become queries."""
    values, labels = clustered(num_keys * num_labels, num_labels, noise=noise, dim=dim, seed=seed)
    return values, vector_dataset(values, labels, torch.arange(len(labels)))


@pytest.mark.parametrize("chunk", [1, 997, 5000])
def test_collections_in_chunks_of_any_size_are_those_in_one(chunk, monkeypatch):
    values, dataset = natural(60, 6)
    draw = draw_query_gallery(dataset, 1, seed=0)
    whole = measure_queries(values, draw, centroid)
    assert [len(measure) for measure in whole] == [180] * 3
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", chunk)
    for one, other in zip(whole, measure_queries(values, draw, centroid), strict=True):
        assert one.equal(other)


class LargestTensor(TorchDispatchMode):
    """Remember how many elements the largest result of any operation had."""

    num_elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        found = result if isinstance(result, tuple | list) else [result]
        sizes = [out.numel() for out in found if isinstance(out, torch.Tensor)]
        self.num_elements = max([self.num_elements, *sizes])
        return result


def test_a_search_never_holds_the_neighbours_of_all_queries(monkeypatch):
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", 4_000)
    values, dataset = natural(400, 2, dim=4)
    draw = draw_query_gallery(dataset, 1, seed=0)
    with LargestTensor() as largest:
        first, _, _ = measure_queries(values, draw, centroid)
    assert len(first) == 400
    # A chunk is 20 queries of 200 neighbours of 4 dimensions; all queries have 80,000 neighbours.
    assert largest.num_elements <= 20_000


def test_embeddings_of_other_items_and_sizes_below_1_are_refused():
    values, labels = clustered(20, 2)
    dataset = vector_dataset(values, labels)
    with pytest.raises(InputError, match="clusters has 20 items, but there are 19 embeddings"):
        evaluate_collections(values[1:], dataset, centroid, [1], seed=0)
    with pytest.raises(InputError, match="must be at least 1"):
        evaluate_collections(values, dataset, centroid, [1, 0], seed=0)


def test_the_paired_difference_is_that_of_both_recalls_on_the_same_queries():
    values, labels = clustered(400, 20, noise=1.5)
    noisy = values + 2 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    wide = torch.cat([noisy, 100 * noisy[:, :2].flip(0)], dim=1)
    dataset = vector_dataset(values, labels)
    found = paired_difference(
        values, wide, dataset, centroid, 2, other_aggregator=lambda x: centroid(x)[:, :8], seed=3
    )
    ours, theirs = (
        evaluate_collections(x, dataset, centroid, [2], seed=3, num_bootstrap=2)[0].recall_at_1
        for x in (values, noisy)
    )
    assert found.difference == pytest.approx(ours - theirs)
    assert 0 < found.ci95[0] < found.difference < found.ci95[1]
    back = paired_difference(noisy, values, dataset, centroid, 2, seed=3)
    assert back.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))
    same = paired_difference(values, values, dataset, centroid, 2, seed=3)
    assert (same.difference, same.ci95) == (0, (0, 0))


def test_the_paired_difference_of_items_is_that_of_both_recalls():
    values, labels = clustered(400, 20, noise=1.2)
    noisy = values + 2 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    noisy[50:90] = noisy[50]  # equal ones crowd each other out
    dataset = vector_dataset(values, labels)
    found = paired_item_difference(values, noisy, dataset, seed=3)
    ours, theirs = (evaluate_items(x, labels).recall_at_1 for x in (values, noisy))
    assert found.difference == pytest.approx(ours - theirs)
    assert (found.size, found.num_queries, found.num_classes) == (None, 400, 20)
    assert 0 < found.ci95[0] < found.difference < found.ci95[1]
    same = paired_item_difference(values, 3 * values, dataset, seed=3)
    assert (same.difference, same.ci95) == (0, (0, 0))
    with pytest.raises(InputError, match="400 items, but there are 399 embeddings"):
        paired_item_difference(values, noisy[1:], dataset, seed=3)


def test_a_paired_difference_over_fewer_than_five_classes_has_no_interval():
    values, labels = clustered(80, 4)
    dataset = vector_dataset(values, labels)
    assert paired_difference(values, -values, dataset, centroid, 2, seed=0).ci95 is None
    assert paired_item_difference(values, -values, dataset, seed=0).ci95 is None
