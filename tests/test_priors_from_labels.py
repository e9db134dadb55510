import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.priors import from_labels
from setrep.priors.labels import _two_pairs
from tests.fakes import REAL


def slow_share(labels):
    pairs = list(combinations(labels, 2))
    return sum(one == other for one, other in pairs) / len(pairs)


@settings(deadline=None)
@given(st.lists(st.integers(-2, 5), min_size=4, max_size=12))
def test_the_prior_of_labels_is_the_share_of_equal_pairs(labels):
    found = from_labels(torch.tensor(labels))
    assert found.value == pytest.approx(slow_share(labels))
    low, high = found.interval
    assert 0 <= low <= found.value <= high <= 1
    assert found.class_balance.num_classes == len(set(labels))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=7))
def test_the_square_of_the_prior_is_read_from_two_pairs_without_a_common_item(labels):
    fours = list(permutations(labels, 4))
    expected = sum(a == b and c == d for a, b, c, d in fours) / len(fours)
    counts = np.unique(labels, return_counts=True)[1].astype(float)
    assert _two_pairs(counts) == pytest.approx(expected)


def test_the_prior_of_labels_is_unbiased_where_the_sum_of_squared_shares_is_not():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(100, (400, 100), generator=generator)
    values = [from_labels(labels).value for labels in drawn]
    assert float(np.mean(values)) == pytest.approx(0.01, rel=0.03)
    squares = [float((labels.bincount() / 100).square().sum()) for labels in drawn]
    assert float(np.mean(squares)) > 0.019


@pytest.mark.parametrize(
    ("prior", "num_labels", "expected"),
    [
        (torch.ones(10) / 10, 100, 0.99),
        (torch.ones(964) / 964, 500, 0.95),
        (1 / torch.arange(1, 101) / (1 / torch.arange(1, 101)).sum(), 300, 0.95),
        (torch.tensor([0.9, 0.1]), 100, 0.95),
    ],
    ids=["10 classes", "964 classes", "unequal", "one large"],
)
def test_the_interval_of_labels_covers_the_truth(prior, num_labels, expected):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(prior.expand(300, -1), num_labels, True, generator=generator)
    truth = float(prior.square().sum())
    intervals = [from_labels(labels).interval for labels in drawn]
    share = np.mean([low <= truth <= high for low, high in intervals])
    assert share == pytest.approx(expected, abs=0.03)


def test_the_interval_without_an_equal_pair_is_that_of_no_event():
    low, high = from_labels(torch.arange(20)).interval
    assert low == 0
    assert high == pytest.approx(-math.log(0.025) / 190)


def test_labels_of_one_class_do_not_make_the_prior_certain():
    found = from_labels(torch.zeros(50, dtype=torch.int64))
    assert found.value == 1
    assert found.interval == (pytest.approx(0.025 ** (2 / 50)), 1.0)


def test_the_balance_of_the_classes_is_reported():
    equal = from_labels(torch.arange(1000) % 10).class_balance
    assert equal.num_classes == 10
    assert equal.effective_num_classes == pytest.approx(10, rel=0.02)
    assert (equal.smallest_class_prior, equal.largest_class_prior) == (0.1, 0.1)
    unequal = from_labels(torch.tensor([0] * 900 + [1] * 50 + [2] * 50)).class_balance
    assert unequal.num_classes == 3
    assert unequal.effective_num_classes == pytest.approx(1 / 0.815, rel=0.01)
    assert (unequal.smallest_class_prior, unequal.largest_class_prior) == (0.05, 0.9)
    assert from_labels(torch.arange(9)).class_balance.effective_num_classes == math.inf


@REAL
def test_a_few_hundred_labels_tell_the_prior_of_omniglot():
    from setrep.data.registry import load_dataset

    labels = torch.from_numpy(load_dataset("omniglot", subset="small1", image_size=32).labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    found = from_labels(labels[order[:400]])
    truth = 19 / 2719  # twenty drawings of each of 136 characters
    assert found.value == pytest.approx(truth, rel=0.2)
    assert found.interval[0] <= truth <= found.interval[1]


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.zeros(3).long(), torch.ones(9)])
def test_labels_that_cannot_tell_are_refused(labels):
    with pytest.raises(InputError, match="1-d tensor of at least 4 integer labels; found"):
        from_labels(labels)
    with pytest.raises(InputError, match="confidence must lie between 0 and 1, not 2"):
        from_labels(torch.arange(9), confidence=2)
