"""Sums, maxima, softmax, order and quantiles of collections against loops."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from setrep.collection import CollectionBatch
from setrep.functional import (
    row_pieces,
    segment_argsort,
    segment_max,
    segment_quantiles,
    segment_softmax,
    segment_sum,
    segment_sum_in_order,
    segments,
)

sizes_and_dim = given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), dim=st.integers(1, 4)
)
no_deadline = settings(deadline=None)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(sizes: list[int], dim: int) -> tuple[list[torch.Tensor], CollectionBatch]:
    collections = [normal(size, dim, seed=i) for i, size in enumerate(sizes)]
    return collections, CollectionBatch.from_list(collections, allow_empty=True)


def with_ties(sizes: list[int], dim: int) -> tuple[list[torch.Tensor], CollectionBatch]:
    collections = [c.mul(2).round() for c in draw(sizes, dim)[0]]
    return collections, CollectionBatch.from_list(collections, allow_empty=True)


@sizes_and_dim
@no_deadline
def test_a_sum_equals_a_loop(sizes, dim):
    collections, batch = draw(sizes, dim)
    expected = torch.stack([sum(c, torch.zeros(dim, dtype=torch.float64)) for c in collections])
    torch.testing.assert_close(segment_sum(batch.values, batch), expected)
    torch.testing.assert_close(segment_sum_in_order(batch.values, batch), expected)


@sizes_and_dim
@no_deadline
def test_a_weighted_sum_equals_a_loop(sizes, dim):
    collections, batch = draw(sizes, dim)
    weights = normal(sum(sizes), seed=99)
    expected = torch.zeros(len(sizes), dim, dtype=torch.float64)
    row = 0
    for number, items in enumerate(collections):
        for item in items:
            expected[number] += float(weights[row]) * item
            row += 1
    torch.testing.assert_close(segment_sum(batch.values, batch, weights), expected)
    torch.testing.assert_close(segment_sum_in_order(batch.values, batch, weights), expected)


@pytest.mark.parametrize("function", [segment_sum, segment_sum_in_order])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_of_half_precision_adds_in_float32(function, dtype):
    values = torch.full((4096, 1), 0.1, dtype=dtype)
    batch = CollectionBatch(values, torch.tensor([0, 4096]))
    total = function(values, batch)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total[0, 0], 4096 * values[0, 0].float())


@pytest.mark.parametrize("function", [segment_sum, segment_sum_in_order])
def test_gradients_of_a_sum_go_back_to_each_item_and_weight(function):
    values, weights = normal(5, 2).requires_grad_(), normal(5, seed=1).requires_grad_()
    batch = CollectionBatch(values, torch.tensor([0, 2, 2, 5]), allow_empty=True)
    assert torch.autograd.gradcheck(lambda v: function(v, batch), (values,))
    assert torch.autograd.gradcheck(lambda v, w: function(v, batch, w), (values, weights))


@sizes_and_dim
@no_deadline
def test_a_maximum_equals_a_loop_and_is_minus_infinity_for_nothing(sizes, dim):
    collections, batch = draw(sizes, dim)
    nothing = [-math.inf] * dim
    expected = [c.numpy().max(axis=0).tolist() if len(c) else nothing for c in collections]
    assert segment_max(batch.values, batch).tolist() == expected


def test_the_gradient_of_a_maximum_is_shared_by_the_items_that_reach_it():
    values = torch.tensor([[1.0, 5.0], [1.0, 2.0], [0.0, 2.0], [7.0, 7.0]], requires_grad=True)
    batch = CollectionBatch(values, torch.tensor([0, 3, 4]))
    (segment_max(values, batch) * torch.tensor([[2.0, 4.0], [6.0, 8.0]])).sum().backward()
    assert values.grad.tolist() == [[1.0, 4.0], [1.0, 0.0], [0.0, 0.0], [6.0, 8.0]]


@sizes_and_dim
@no_deadline
def test_a_softmax_equals_a_loop(sizes, dim):
    collections, batch = draw(sizes, dim)
    expected = []
    for items in collections:
        for item in items:
            total = sum(np.exp(other.numpy()) for other in items)
            expected.append(np.exp(item.numpy()) / total)
    found = segment_softmax(batch.values, batch)
    np.testing.assert_allclose(found.numpy(), np.array(expected).reshape(-1, dim), rtol=1e-12)


def test_a_softmax_of_large_scores_is_finite_and_has_the_right_gradient():
    scores = (1e4 * normal(6, 2)).requires_grad_()
    batch = CollectionBatch(scores, torch.tensor([0, 1, 4, 4, 6]), allow_empty=True)
    assert bool(segment_softmax(scores, batch).isfinite().all())
    small = normal(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: segment_softmax(s, batch), (small,))


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    dim=st.integers(1, 3),
    at_a_time=st.sampled_from([1, 50, 2**22]),
)
@no_deadline
def test_the_order_of_each_coordinate_equals_a_loop(sizes, dim, at_a_time):
    collections, batch = with_ties(sizes, dim)
    with patch.object(segments, "_SORTED_AT_A_TIME", at_a_time):
        found = segment_argsort(batch.values, batch).tolist()
    expected, start = [], 0
    for items in collections:
        columns = [sorted(range(len(c)), key=c.__getitem__) for c in items.T.tolist()]
        expected += [[start + column[r] for column in columns] for r in range(len(items))]
        start += len(items)
    assert found == expected


def test_sorted_values_have_the_gradient_of_the_items_they_are():
    batch = draw([3, 0, 5, 1], 2)[1]
    values = batch.values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: v.gather(0, segment_argsort(v, batch)), (values,))


def test_nan_and_infinity_keep_their_place_in_the_order():
    nan, inf = math.nan, math.inf
    numbers = [nan, inf, 0.0, -inf, nan, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    values = torch.tensor(numbers).unsqueeze(1)
    batch = CollectionBatch(values, torch.tensor([0, 5, 13]))  # the first one is padded
    found = segment_argsort(values, batch).squeeze(1).tolist()
    assert found == [3, 2, 1, 0, 4, *range(12, 4, -1)]


def quantile_by_definition(column: list[float], p: Fraction) -> float:
    """Hyndman & Fan 1996, definition 2, in fractions."""
    ordered, size = sorted(column), len(column)
    low, high = math.ceil(size * p), math.floor(size * p) + 1
    low, high = max(low, 1), min(high, size)
    return (ordered[low - 1] + ordered[high - 1]) / 2


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    percent=st.lists(st.integers(0, 100), min_size=1, max_size=3),
)
@example(sizes=[100, 50], percent=[7, 14, 29])  # 100 * 0.07 is more than 7 in floating point
@no_deadline
def test_averaged_quantiles_equal_their_definition(sizes, percent):
    collections, batch = draw(sizes, 2)
    found = segment_quantiles(batch.values, batch, [p / 100 for p in percent])
    for number, items in enumerate(collections):
        for t, column in enumerate(items.T.tolist()):
            expected = [quantile_by_definition(column, Fraction(p, 100)) for p in percent]
            np.testing.assert_allclose(
                found[number, :, t].numpy(), expected, rtol=1e-13, atol=1e-15
            )


@pytest.mark.parametrize(
    ("interpolation", "method"), [("averaged", "averaged_inverted_cdf"), ("linear", "linear")]
)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    eighths=st.lists(st.integers(0, 8), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=50)
def test_quantiles_equal_those_of_numpy(interpolation, method, sizes, eighths):
    collections, batch = draw(sizes, 2)
    wanted = [p / 8 for p in eighths]  # numpy takes 0.07 * 100 for more than 7
    found = segment_quantiles(batch.values, batch, wanted, interpolation)
    for items, quantiles in zip(collections, found, strict=True):
        expected = np.quantile(items.numpy(), wanted, axis=0, method=method)
        np.testing.assert_allclose(quantiles.numpy(), expected, rtol=1e-13, atol=1e-15)


def test_quantiles_of_an_empty_collection_are_zero_and_of_nan_are_nan():
    values = torch.tensor([[math.nan, 1.0], [1.0, 2.0], [5.0, 3.0]])
    batch = CollectionBatch(values, torch.tensor([0, 0, 3]), allow_empty=True)
    found = segment_quantiles(values, batch, [0.0, 0.5])
    torch.testing.assert_close(
        found,
        torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[math.nan, 1.0], [math.nan, 2.0]]]),
        equal_nan=True,
    )


@pytest.mark.parametrize("at_a_time", [1, 6, 2**18])
def test_pieces_hold_every_row_once_in_order(at_a_time):
    values, index = normal(7, 3), torch.arange(7)
    with patch.object(segments, "_CACHED_AT_A_TIME", at_a_time):
        pieces = list(row_pieces(values, index))
    assert torch.equal(torch.cat([items for items, _ in pieces]), values)
    assert torch.equal(torch.cat([places for _, places in pieces]), index)
    assert len(pieces) == {1: 7, 6: 4, 2**18: 1}[at_a_time]
