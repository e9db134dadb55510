"""A fixed random partition of each label into collections, and what disjoint parts of them are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setrep.data.partition import partition
from setrep.data.registry import load_dataset
from setrep.data.sampler import EpisodeSampler
from setrep.errors import InputError
from tests.two_networks import vectors


@given(per_label=st.integers(1, 9), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_item_is_in_one_collection_of_its_label(per_label: int, size: int, seed: int):
    dataset = vectors(num_labels=3, per_label=per_label)
    parted = partition(dataset, size, seed=seed)
    assert parted.collection_level == "partition"
    assert sorted(set(parted.keys.tolist())) == list(range(len(parted.key_names)))
    for label in range(3):
        sizes = Counter(parted.keys[parted.labels == label].tolist()).values()
        assert len(sizes) == max(1, per_label // size)
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(size, per_label)
    assert np.array_equal(parted.keys, partition(dataset, size, seed=seed).keys)


def test_a_partition_depends_on_its_seed_and_is_at_random():
    dataset = vectors(num_labels=1, per_label=40)
    one, other = (partition(dataset, 5, seed=seed).keys for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert not np.array_equal(np.sort(one), one)


def test_collections_of_no_item_are_refused():
    with pytest.raises(InputError, match="at least one item"):
        partition(vectors(), 0)


def test_every_data_set_can_be_parted():
    digits = load_dataset("digits", collection_level="partition", partition_size=7)
    assert digits.collection_level == "partition"
    assert len(digits.key_names) == sum(n // 7 for n in np.bincount(digits.labels))
    with pytest.raises(InputError, match="partition"):
        load_dataset("digits", collection_level="partitoin")


def test_two_parts_of_one_collection_are_distributed_as_two_of_different_ones():
    """The assumption of debiased losses: a known positive is a draw of its label, like any other.

    Pairs of single items, drawn as training draws them, over many partitions of one label of six
    items into two collections: each ordered pair of distinct items is equally likely both ways.
    """
    dataset = vectors(num_labels=1, per_label=6)
    within, across = Counter(), Counter()
    trials = 3000
    for seed in range(trials):
        keys = partition(dataset, 3, seed=seed).keys
        sampler = EpisodeSampler(
            keys,
            classes_per_episode=2,
            collections_per_class=2,
            items_per_collection=1,
            episodes_per_epoch=1,
            seed=seed,
        )
        a, b, c, _ = sampler.draw(0, 0).tolist()
        within[a, b] += 1
        across[a, c] += 1
    expected = trials / 30
    for counts in (within, across):
        assert len(counts) == 30
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_square < 58.3  # the 99.9 % point of 29 degrees of freedom
