"""Aggregators equal those of PyTorch Geometric where the two mean the same."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch

from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch
from tests.aggregator_cases import DIM, batch_of, draw


@pytest.fixture(scope="module")
def aggr() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_geometric.nn.aggr")


def both(ours: torch.nn.Module, theirs: torch.nn.Module, batch: CollectionBatch) -> None:
    """See that values and gradients agree."""
    gradients, values = [], []
    for embed in (ours, lambda b: theirs(b.values, b.index, dim_size=len(b))):
        leaf = batch.values.clone().requires_grad_()
        found = embed(batch.with_values(leaf))
        found.square().sum().backward()
        values.append(found)
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "peer"), [("sum", "Sum"), ("centroid", "Mean"), ("max", "Max")])
def test_sum_mean_and_max_agree_also_on_empty_collections(aggr, name, peer):
    values = torch.cat(draw([1, 2, 30], seed=1))
    batch = CollectionBatch(values, torch.tensor([0, 1, 1, 3, 33]), allow_empty=True)
    both(build_aggregator(name, DIM), getattr(aggr, f"{peer}Aggregation")(), batch)


def test_mean_and_deviation_agree_where_the_items_differ(aggr):
    """Theirs is 0 for a variance below 1e-5, so singletons agree and near-equal items do not."""
    batch = batch_of(*draw([1, 2, 30], seed=1))
    both(build_aggregator("mean_std", DIM), aggr.MultiAggregation(["mean", "std"]), batch)


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_power_means_agree_on_positive_items(aggr, power):
    """Theirs clamps items and mean to 1e-4 and to 100."""
    batch = batch_of(*(c.abs() + 0.1 for c in draw([1, 2, 30], seed=1)))
    both(build_aggregator("gem", DIM, power=power), aggr.PowerMeanAggregation(power), batch)


def test_medians_agree_for_odd_numbers_of_items(aggr):
    """Theirs is the lower one of the two in the middle of an even number."""
    batch = batch_of(*draw([1, 3, 31], seed=1))
    both(build_aggregator("median", DIM), aggr.MedianAggregation(), batch)


def test_linear_quantiles_agree(aggr):
    batch = batch_of(*draw([1, 2, 30], seed=1))
    options = {"quantiles": (0.125, 0.5, 0.875), "interpolation": "linear"}
    ours = build_aggregator("quantiles", DIM, **options)
    both(ours, aggr.QuantileAggregation([0.125, 0.5, 0.875], interpolation="linear"), batch)
