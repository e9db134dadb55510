"""What aggregators declare of hulls, weights and equivariances is true, and not too little."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from setrep.errors import InputError
from tests.aggregator_cases import DIM, batch_of, build, draw, every_aggregator, same

MAPS = ("translation", "rotation", "scaling")


def distance_to_hull(point: torch.Tensor, items: torch.Tensor) -> float:
    """Fit weights that are not negative, sum to one and reproduce the point."""
    system = np.vstack([items.numpy().T, np.ones(len(items))])
    return float(nnls(system, np.append(point.detach().numpy(), 1.0))[1])


@every_aggregator
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(max_examples=15, deadline=None)
def test_a_convex_aggregator_stays_in_the_hull_of_the_items(name, options, sizes, seed, scale):
    aggregator = build(name, options, seed)
    if not aggregator.is_convex:
        return
    collections = [scale * c for c in draw(sizes, seed)]
    for items, point in zip(collections, aggregator(batch_of(*collections)), strict=True):
        assert distance_to_hull(point, items) < 1e-10 * scale


@every_aggregator
def test_an_aggregator_that_is_not_convex_leaves_the_hull(name, options):
    aggregator = build(name, options)
    if aggregator.is_convex or aggregator.dim_out != DIM:
        return
    items = torch.eye(DIM, dtype=torch.float64)
    both = aggregator(batch_of(items, items[:3]))
    assert max(distance_to_hull(both[0], items), distance_to_hull(both[1], items[:3])) > 1e-3


@every_aggregator
def test_a_convex_aggregator_gives_the_item_where_all_are_one_point(name, options):
    aggregator = build(name, options)
    point = draw([1], seed=3)[0]
    if aggregator.is_convex:
        assert same(aggregator(batch_of(point, point.repeat(5, 1))), point.repeat(2, 1))


@every_aggregator
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_weights_are_not_negative_sum_to_one_and_give_convex_embeddings(name, options, sizes, seed):
    aggregator = build(name, options, seed)
    batch = batch_of(*draw(sizes, seed))
    if not aggregator.has_weights:
        with pytest.raises(InputError, match="gives its items no weights"):
            aggregator(batch, return_weights=True)
        return
    embedding, weights = aggregator(batch, return_weights=True)
    assert weights.shape[0] == len(batch.values)
    assert bool((weights >= 0).all())
    parts = weights.split(sizes)
    assert same(torch.stack([part.sum(dim=0) for part in parts]), torch.ones(()).double())
    if aggregator.is_convex:
        means = [part.T @ c for part, c in zip(parts, batch.values.split(sizes), strict=True)]
        assert same(torch.cat(means), embedding)


def moved(x: torch.Tensor, how: str, seed: int) -> torch.Tensor:
    """Map vectors of `DIM`, or each block of `DIM` of longer ones."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(DIM, generator=generator, dtype=torch.float64)
    matrix = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    blocks = x.unflatten(1, (-1, DIM))
    if how == "translation":
        blocks = blocks + vector
    elif how == "rotation":
        blocks = blocks @ torch.linalg.qr(matrix)[0]
    else:
        blocks = blocks * vector[0].exp()
    return blocks.flatten(1)


@every_aggregator
@pytest.mark.parametrize("how", MAPS)
def test_an_aggregator_is_equivariant_exactly_where_it_says_so(name, options, how):
    aggregator = build(name, options)
    is_equivariant = how in aggregator.equivariances
    if aggregator.dim_out % DIM:
        assert not is_equivariant
        return
    holds = []
    for seed in range(5):
        batch = batch_of(*draw([1, 2, 7], seed))
        found = aggregator(batch.with_values(moved(batch.values, how, seed)))
        holds.append(same(found, moved(aggregator(batch), how, seed), 1e-9))
    assert all(holds) == is_equivariant
    assert any(holds) == is_equivariant
