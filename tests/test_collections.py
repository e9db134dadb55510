"""Evaluation draws: queries, gallery and triples of disjoint collections."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.data.collections import (
    derive_generator,
    draw_disjoint_triples,
    draw_query_gallery,
    pools_by_label,
)
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.errors import InputError

# For each label the number of items of each of its keys.
structures = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=5)


def make_dataset(structure: list[list[int]], is_natural: bool, seed: int = 0) -> ItemDataset:
    """Mix the items and number keys backwards, so that neither labels nor keys come in order."""
    of_key = [(label, size) for label, sizes in enumerate(structure) for size in sizes]
    labels = np.array([label for label, size in of_key for _ in range(size)], dtype=np.int64)
    keys = (
        np.array([-key for key, (_, size) in enumerate(of_key) for _ in range(size)])
        + len(of_key)
        - 1
    )
    order = np.random.default_rng(seed).permutation(len(labels))
    return ItemDataset(
        name="fake",
        split="test",
        items=np.zeros((len(labels), 2), dtype=np.float32),
        labels=labels[order],
        label_names=tuple(f"label {i}" for i in range(len(structure))),
        item_format=ItemFormat("vector", 2, 1),
        label_level="label",
        collection_level="key" if is_natural else "sampled",
        keys=keys[order].astype(np.int64) if is_natural else None,
        key_names=tuple(f"key {i}" for i in range(len(of_key))) if is_natural else (),
    )


def expected_count(sizes: list[int], size: int, is_natural: bool, max_per_label: int) -> int:
    """Count the collections of a label from the definition."""
    if is_natural:
        return sum(1 for found in sizes if found >= size)
    return min(sum(sizes) // size, 2 * max_per_label)


@given(structures, st.booleans(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_query_and_gallery_hold_what_was_asked_and_share_nothing(
    structure, is_natural, size, max_per_label, seed
):
    dataset = make_dataset(structure, is_natural)
    counts = [expected_count(sizes, size, is_natural, max_per_label) for sizes in structure]
    if max(counts) < 2:
        with pytest.raises(InputError):
            draw_query_gallery(dataset, size, seed=seed, max_per_label=max_per_label)
        return
    drawn = draw_query_gallery(dataset, size, seed=seed, max_per_label=max_per_label)
    queries = drawn.query_items.view(-1, size).numpy()
    gallery = drawn.gallery_items.view(-1, size).numpy()
    items = [*queries.flat, *gallery.flat]
    assert len(set(items)) == len(items)
    assert drawn.query_offsets.tolist() == [size * i for i in range(len(queries) + 1)]
    assert drawn.gallery_offsets.tolist() == [size * i for i in range(len(gallery) + 1)]
    assert (dataset.labels[queries] == drawn.query_labels.numpy()[:, None]).all()
    assert (dataset.labels[gallery] == drawn.gallery_labels.numpy()[:, None]).all()
    assert drawn.query_labels.tolist() == sorted(drawn.query_labels.tolist())
    for label, count in enumerate(counts):
        count = count if count >= 2 else 0
        assert int((drawn.query_labels == label).sum()) == count // 2
        assert int((drawn.gallery_labels == label).sum()) == count - count // 2
    assert drawn.num_classes == sum(count >= 2 for count in counts)
    assert drawn.dropped == tuple(f"label {i}" for i, count in enumerate(counts) if count < 2)
    if dataset.keys is not None:
        keys = dataset.keys[np.concatenate([queries, gallery])]
        assert (keys == keys[:, :1]).all()
        assert len(set(keys[:, 0])) == len(keys)


@given(structures, st.booleans(), st.integers(1, 4), st.integers(0, 9))
def test_triples_are_two_collections_of_a_label_and_one_of_another(
    structure, is_natural, size, seed
):
    dataset = make_dataset(structure, is_natural)
    counts = [expected_count(sizes, size, is_natural, 99) for sizes in structure]
    if max(counts) < 2 or sum(count >= 1 for count in counts) < 2:
        with pytest.raises(InputError):
            draw_disjoint_triples(dataset, size, 5, seed=seed)
        return
    drawn = draw_disjoint_triples(dataset, size, 5, seed=seed)
    parts = torch.stack([drawn.first, drawn.second, drawn.other], dim=1)
    assert parts.shape == (5, 3, size)
    assert all(len(set(triple.flatten().tolist())) == 3 * size for triple in parts)
    assert (drawn.labels[:, 0] != drawn.labels[:, 1]).all()
    labels = torch.from_numpy(dataset.labels)[parts]
    assert torch.equal(labels, drawn.labels[:, [0, 0, 1]].unsqueeze(2).expand_as(labels))
    assert drawn.dropped == tuple(f"label {i}" for i, count in enumerate(counts) if count < 2)
    if dataset.keys is None:
        assert drawn.keys is None
    else:
        keys = torch.from_numpy(dataset.keys)[parts]
        assert torch.equal(keys, drawn.keys.unsqueeze(2).expand_as(keys))
        assert all(len(set(triple)) == 3 for triple in drawn.keys.tolist())


@pytest.mark.parametrize("is_natural", [False, True])
def test_the_seed_decides_the_draw(is_natural):
    dataset = make_dataset([[5] * 6] * 4, is_natural)
    draws = [draw_query_gallery(dataset, 3, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(draws[0].query_items, draws[1].query_items)
    assert torch.equal(draws[0].gallery_items, draws[1].gallery_items)
    assert not torch.equal(draws[0].query_items, draws[2].query_items)
    triples = [draw_disjoint_triples(dataset, 3, 6, seed=seed).other for seed in (1, 1, 2)]
    assert torch.equal(triples[0], triples[1])
    assert not torch.equal(triples[0], triples[2])


def test_each_key_is_a_query_as_often_as_in_the_gallery():
    dataset = make_dataset([[1, 1]], is_natural=True)
    first = sum(int(draw_query_gallery(dataset, 1, seed=s).query_items[0]) for s in range(200))
    assert 70 < first < 130  # of 200 fair draws; outside with a chance of 3 in 100,000


def test_every_pair_of_labels_meets_in_triples():
    dataset = make_dataset([[4], [4], [4], [2]], is_natural=False)
    drawn = draw_disjoint_triples(dataset, 2, 300, seed=0)
    pairs = {tuple(pair) for pair in drawn.labels.tolist()}
    assert pairs == {(a, b) for a in range(3) for b in range(4) if a != b}
    assert drawn.dropped == ("label 3",)


def test_labels_with_too_few_items_are_reported_by_name_and_count(caplog):
    dataset = make_dataset([[6], [3], [1, 1, 1, 1], [8]], is_natural=False)
    with caplog.at_level(logging.WARNING):
        drawn = draw_query_gallery(dataset, 3, seed=0)
    assert drawn.dropped == ("label 1", "label 2")
    assert "2 of 4 classes have too few items: 'label 1' (3 items)" in caplog.text


@pytest.mark.parametrize(
    ("structure", "is_natural", "message"),
    [
        ([[5], [3]], False, r"fake, which take 6 items .*'label 0' \(5 items\)"),
        ([[3, 2], [2]], True, r"take 2 keys of 3 or more items, but .*\(1 key of 3 or more"),
    ],
)
def test_nothing_left_is_refused_in_one_line(structure, is_natural, message):
    dataset = make_dataset(structure, is_natural)
    with pytest.raises(InputError, match=message) as caught:
        draw_query_gallery(dataset, 3, seed=0)
    assert "\n" not in str(caught.value)


def test_triples_of_a_single_label_are_refused():
    with pytest.raises(InputError, match="a triple needs two classes"):
        draw_disjoint_triples(make_dataset([[8], [1]], False), 2, 3, seed=0)


def test_an_empty_data_set_is_refused():
    dataset = make_dataset([[2]], is_natural=False).subset(np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="no items"):
        draw_query_gallery(dataset, 1, seed=0)


def test_labels_and_keys_beyond_int64_are_refused_in_one_line():
    small, large = np.array([3, 2**63 - 1], np.uint64), np.array([3, 2**63 + 5], np.uint64)
    assert list(pools_by_label(small, small, 1)) == [3, 2**63 - 1]
    for labels, keys, name in ((large, None, "labels"), (small, large, "keys")):
        with pytest.raises(InputError) as caught:
            pools_by_label(labels, keys, 1)
        assert str(caught.value) == (
            f"{name} must be integers up to 9223372036854775807, but position 1 holds "
            f"9223372036854775813. Number them from 0: np.unique({name}, return_inverse=True)[1]."
        )


def test_counts_below_one_are_refused():
    dataset = make_dataset([[4], [4]], is_natural=False)
    with pytest.raises(InputError, match="at least one item; asked for 0"):
        draw_query_gallery(dataset, 0, seed=0)
    with pytest.raises(InputError, match="max_per_label must be at least 1"):
        draw_query_gallery(dataset, 1, seed=0, max_per_label=0)
    with pytest.raises(InputError, match="num_triples must be at least 1"):
        draw_disjoint_triples(dataset, 1, 0, seed=0)


def test_each_key_has_a_generator_of_its_own():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**40, 3)]
    draws = [int(torch.randint(2**62, (), generator=derive_generator(7, *key))) for key in keys]
    assert len(set(draws)) == len(draws)
    assert derive_generator(-1, 2).initial_seed() == derive_generator(-1, 2).initial_seed()
