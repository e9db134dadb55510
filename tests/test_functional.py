"""Distances, masks and triplets against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.functional import (
    all_triplets,
    negative_mask,
    pairwise_distance,
    positive_mask,
)

labels_and_collections = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_distance_equals_a_loop(n, m, dim, squared):
    x, y = normal(n, dim, seed=1), normal(m, dim, seed=2)
    found = pairwise_distance(x, y, squared=squared)
    for i, j in itertools.product(range(n), range(m)):
        expected = sum((a - b) ** 2 for a, b in zip(x[i].tolist(), y[j].tolist(), strict=True))
        expected = expected if squared else expected**0.5
        assert float(found[i, j]) == pytest.approx(expected, abs=1e-12)


def test_distance_is_of_a_set_to_itself_when_one_is_given():
    x = normal(5, 3)
    assert torch.equal(pairwise_distance(x), pairwise_distance(x, x))


def test_distance_of_a_point_to_itself_is_zero_far_from_the_origin():
    x = normal(40, 64, dtype=torch.float32) + 1e4
    distance = pairwise_distance(x)
    assert not distance.diagonal().any()
    torch.testing.assert_close(distance, pairwise_distance(x.double()).float())


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_is_zero_at_distance_zero(squared):
    x = torch.ones(3, 4, requires_grad=True)
    pairwise_distance(x, squared=squared).sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_with_some_points_equal_is_that_of_the_others(squared):
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    pairwise_distance(x, squared=squared)[0].sum().backward()
    away = torch.tensor([6.0, 8.0]) if squared else torch.tensor([0.6, 0.8])
    torch.testing.assert_close(x.grad, torch.stack([-away, torch.zeros(2), away]))


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_agrees_with_finite_differences(squared):
    x, y = normal(3, 4, seed=1).requires_grad_(), normal(2, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pairwise_distance(a, b, squared=squared), (x, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype):
    x = normal(4, 8).to(dtype)
    torch.testing.assert_close(pairwise_distance(x), pairwise_distance(x.float()))


def is_positive(a: tuple[int, int], b: tuple[int, int], positives: str) -> bool:
    same_collection = a[1] == b[1]
    allowed = {"any": True, "same_collection": same_collection}.get(positives, not same_collection)
    return a[0] == b[0] and allowed


@given(labels_and_collections, st.sampled_from(["any", "same_collection", "cross_collection"]))
def test_all_triplets_equal_a_triple_loop(items, positives):
    labels, collections = torch.tensor(items).unbind(dim=1)
    expected = [
        (a, p, n)
        for a, p, n in itertools.product(range(len(items)), repeat=3)
        if a != p and is_positive(items[a], items[p], positives) and items[a][0] != items[n][0]
    ]
    found = all_triplets(labels, collections, positives)
    triplets = torch.stack(list(found), dim=1).tolist()
    assert [tuple(triplet) for triplet in triplets] == expected


@given(labels_and_collections)
def test_positives_negatives_and_the_item_itself_are_all_there_is(items):
    labels, collections = torch.tensor(items).unbind(dim=1)
    itself = torch.eye(len(items), dtype=torch.bool)
    count = positive_mask(labels).int() + negative_mask(labels).int() + itself.int()
    assert torch.equal(count, torch.ones_like(count))
    same = positive_mask(labels, collections, "same_collection")
    cross = positive_mask(labels, collections, "cross_collection")
    assert torch.equal(same ^ cross, positive_mask(labels))


def test_positives_by_collection_need_collections():
    with pytest.raises(ValueError, match="needs the collection of each item"):
        positive_mask(torch.tensor([0, 0]), None, "cross_collection")
