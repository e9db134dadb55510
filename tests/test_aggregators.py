"""Laws that every aggregator keeps; one that is registered is covered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from setrep.aggregators import AGGREGATORS, CentroidAggregator, build_aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError

DIM = 5
every_aggregator = pytest.mark.parametrize("name", sorted(AGGREGATORS))
sizes_and_seed = given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**16)
)


def draw(sizes: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in sizes]


@every_aggregator
@sizes_and_seed
@settings(max_examples=25, deadline=None)
def test_a_collection_is_embedded_the_same_alone_and_in_a_batch(name, sizes, seed):
    aggregator = build_aggregator(name, DIM).double()
    collections = draw(sizes, seed)
    together = aggregator(CollectionBatch.from_list(collections))
    alone = torch.cat([aggregator(CollectionBatch.from_list([c])) for c in collections])
    assert together.shape == (len(sizes), aggregator.dim_out)
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-12)


@every_aggregator
@sizes_and_seed
@settings(max_examples=25, deadline=None)
def test_the_order_of_items_does_not_matter(name, sizes, seed):
    aggregator = build_aggregator(name, DIM).double()
    collections = draw(sizes, seed)
    shuffled = [c[torch.randperm(len(c))] for c in collections]
    expected = aggregator(CollectionBatch.from_list(collections))
    found = aggregator(CollectionBatch.from_list(shuffled))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@every_aggregator
def test_a_convex_aggregator_stays_in_the_hull_of_the_items(name):
    aggregator = build_aggregator(name, DIM).double()
    if not aggregator.is_convex:
        return
    for items in draw([1, 2, 7, 20], seed=0):
        point = aggregator(CollectionBatch.from_list([items]))[0]
        # Weights that are not negative and sum to one reproduce the point.
        system = np.vstack([items.numpy().T, np.ones(len(items))])
        _, residual = nnls(system, np.append(point.numpy(), 1.0))
        assert residual < 1e-10


@every_aggregator
def test_gradients_are_right(name):
    aggregator = build_aggregator(name, DIM).double()
    batch = CollectionBatch.from_list(draw([1, 3, 2], seed=1))
    values = batch.values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: aggregator(batch.with_values(x)), (values,))


@every_aggregator
def test_a_nan_stays_in_its_collection(name):
    collections = draw([2, 3], seed=2)
    collections[0][0, 0] = float("nan")
    out = build_aggregator(name, DIM).double()(CollectionBatch.from_list(collections))
    assert bool(out[0].isnan().any())
    assert bool(out[1].isfinite().all())


def test_the_centroid_is_the_mean_by_a_loop():
    collections = draw([1, 4, 9], seed=3)
    expected = []
    for items in collections:
        total = torch.zeros(DIM, dtype=torch.float64)
        for item in items:
            total += item
        expected.append(total / len(items))
    found = CentroidAggregator(DIM)(CollectionBatch.from_list(collections))
    assert torch.allclose(found, torch.stack(expected), rtol=1e-13)


def test_duplicating_all_items_leaves_the_centroid():
    batch = CollectionBatch.from_list(draw([3, 5], seed=4))
    twice = CollectionBatch.from_list([c.repeat(2, 1) for c in draw([3, 5], seed=4)])
    centroid = CentroidAggregator(DIM)
    assert torch.allclose(centroid(batch), centroid(twice), rtol=1e-13)


def test_an_empty_collection_has_the_zero_vector_as_its_centroid():
    batch = CollectionBatch(torch.ones(2, DIM), torch.tensor([0, 0, 2]), allow_empty=True)
    assert torch.equal(CentroidAggregator(DIM)(batch), torch.tensor([[0.0] * DIM, [1.0] * DIM]))


def test_bfloat16_items_are_summed_in_float32():
    values = torch.full((4097, 1), 1.0, dtype=torch.bfloat16)
    out = CentroidAggregator(1)(CollectionBatch(values, torch.tensor([0, 4097])))
    assert out.item() == 1.0  # bfloat16 sums would stop at 256


def test_an_unknown_aggregator_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean 'centroid'"):
        build_aggregator("centriod", DIM)
