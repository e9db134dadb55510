"""Splits of data sets whose train and test share classes: laws of what is held out and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from setrep.data import load_dataset
from setrep.data.request import DatasetRequest
from setrep.data.shared_classes import Named, choose_rows, proportional
from setrep.errors import InputError

SIZES = st.lists(st.integers(2, 30), min_size=2, max_size=6)


def named(sizes, seed=0):
    """Return shuffled class numbers with the given counts."""
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(seed).shuffle(numbers)
    return Named(numbers, tuple("abcdef"[: len(sizes)]))


def rows(classes, split="train", *, labels=None, **asked):
    request = DatasetRequest(split=split, label_level="class", **asked)
    return choose_rows(labels or classes, classes, request)


def refusal(classes, split="train", **asked):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        rows(classes, split, **asked)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@given(SIZES, st.integers(0, 5), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_train_and_validation_part_the_images(sizes, num_validation, seed):
    assume(num_validation < min(sizes))
    classes = named(sizes)
    asked = {"num_validation_items": num_validation, "split_seed": seed}
    train = rows(classes, **asked)
    validation = rows(classes, "validation", **asked) if num_validation else train[:0]
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    both = np.sort(np.concatenate([train, validation]))
    np.testing.assert_array_equal(both, np.arange(sum(sizes)))
    if num_validation:
        assert (np.bincount(classes.numbers[validation]) == num_validation).all()


@given(SIZES, st.floats(0, 1), st.integers(0, 1), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_a_subset_has_the_exact_number_each_class_in_proportion(sizes, share, held, seed):
    left = np.array(sizes) - held
    total = max(1, round(share * left.sum()))
    classes = named(sizes)
    asked = {"num_validation_items": held, "split_seed": seed}
    try:
        train = rows(classes, num_train_items=total, **asked)
    except InputError as error:
        assert "too few for each" in str(error)  # noqa: PT017
        assert total * min(left) < left.sum()
        return
    assert len(train) == total
    exact = total * left / left.sum()
    counts = np.bincount(classes.numbers[train], minlength=len(sizes))
    assert (np.abs(counts - exact) < 1).all()
    assert set(train) <= set(rows(classes, **asked))
    np.testing.assert_array_equal(train, rows(classes, num_train_items=total, **asked))
    if held:
        assert not set(train) & set(rows(classes, "validation", **asked))


@given(SIZES, st.integers(0, 2**40))
def test_of_equal_classes_each_gives_as_many(sizes, total):
    counts = proportional(total, np.full(len(sizes), 10**6))
    assert counts.sum() == total
    assert counts.max() - counts.min() <= 1


def test_the_seed_decides_and_the_choice_of_one_split_leaves_the_other():
    classes = named([40, 40, 40])
    drawn = [tuple(rows(classes, num_train_items=30, split_seed=seed)) for seed in range(5)]
    assert len(set(drawn)) == 5
    for held in (1, 10, 30):
        assert tuple(rows(classes, num_train_items=30, num_validation_items=held)) == drawn[0]
    few, more = (
        set(rows(classes, "validation", num_validation_items=held, num_train_items=kept))
        for held, kept in ((5, 3), (9, 80))
    )
    assert few < more


def test_an_order_is_no_order_of_the_files():
    classes = named([500, 500])
    held = rows(classes, "validation", num_validation_items=250)
    first_half = np.sum(held < 500)
    assert 200 < first_half < 300  # 250 expected, 11 the standard deviation


def test_whole_labels_are_held_out_by_name_or_number():
    classes = named([3, 4, 5, 6])
    held = rows(classes, "validation", validation_groups=("b", "d"))
    np.testing.assert_array_equal(held, np.flatnonzero(np.isin(classes.numbers, [1, 3])))
    train = rows(classes, validation_groups=("b", "d"))
    assert set(classes.numbers[train]) == {0, 2}
    kept = rows(classes, validation_groups=("b", "d"), num_train_items=4)
    np.testing.assert_array_equal(np.bincount(classes.numbers[kept]), [2, 0, 2])
    drawn = {
        tuple(np.unique(classes.numbers[rows(classes, "validation", num_validation_groups=2, **s)]))
        for s in ({"split_seed": seed} for seed in range(6))
    }
    assert all(len(pair) == 2 for pair in drawn)
    assert len(drawn) > 1


def test_a_label_of_several_classes_is_held_out_whole_and_its_images_by_class():
    classes = named([10, 10, 10, 10])
    labels = Named(classes.numbers // 2, ("left", "right"))
    held = rows(classes, "validation", labels=labels, validation_groups=("right",))
    assert set(classes.numbers[held]) == {2, 3}
    items = {"num_validation_items": 3}
    coarse = rows(classes, "validation", labels=labels, **items)
    np.testing.assert_array_equal(coarse, rows(classes, "validation", **items))
    np.testing.assert_array_equal(np.bincount(classes.numbers[coarse]), [3] * 4)


def test_impossible_counts_are_refused():
    classes = named([3, 8])
    assert "nothing is held out" in refusal(classes, "validation")
    assert "Set num_validation_items" in refusal(classes, "validation")
    assert "the class 'a' has 3 images" in refusal(classes, num_validation_items=3)
    assert "only 9 images" in refusal(classes, num_train_items=10, num_validation_items=1)
    assert "too few for each of 2 classes" in refusal(classes, num_train_items=1)
    assert "no class 'c'" in refusal(classes, validation_groups=("c",))
    assert "only 2 to choose from" in refusal(classes, num_validation_groups=3)
    assert "leaves nothing to train on" in refusal(classes, num_validation_groups=2)


@pytest.mark.parametrize(
    ("name", "asked", "problem"),
    [
        ("cifar10", {"num_validation_items": -1}, "at least 0, not -1"),
        ("cifar10", {"num_train_items": 0}, "at least 1, not 0"),
        ("cifar10", {"num_validation_items": 1, "num_validation_groups": 1}, "not both"),
        ("cifar10", {"num_validation_items": 1, "validation_groups": ["cat"]}, "not both"),
        ("digits", {"num_validation_items": 1}, "not of digits"),
        ("omniglot", {"num_train_items": 10}, "(cifar10, cifar100, tinyimagenet, stl10)"),
    ],
)
def test_the_registry_refuses_counts_that_contradict(name, asked, problem):
    with pytest.raises(InputError) as caught:
        load_dataset(name, **asked)
    assert problem in str(caught.value)


def test_a_request_without_counts_is_all_of_train():
    classes = named([3, 4])
    request = DatasetRequest(split="train", label_level="class")
    assert len(choose_rows(classes, classes, request)) == 7
    assert len(choose_rows(classes, classes, replace(request, num_train_items=7))) == 7
