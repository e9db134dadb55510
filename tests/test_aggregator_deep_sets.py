"""Deep Sets against a loop written from the paper, and against a peer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from tests.learned_aggregators import (  # noqa: F401
    assert_equal_to,
    build,
    draw,
    joined,
    pyg,
    sizes_and_seed,
)


def reference(aggregator, items):
    first, (hidden, _, last) = aggregator.phi[0], aggregator.rho
    features = sum((first.weight @ x + first.bias).clamp(min=0) for x in items) / len(items)
    features = (hidden.weight @ features + hidden.bias).clamp(min=0)
    centroid = sum(items) / len(items)
    return (aggregator.linear.weight @ centroid + last.weight @ features + last.bias).detach()


@pytest.mark.parametrize("dim_out", [None, 3, 9])
@sizes_and_seed
@settings(max_examples=10, deadline=None)
def test_it_is_a_network_of_the_mean_of_features(dim_out, sizes, seed):
    aggregator = build("deep_sets", seed, hidden_dim=5, dim_out=dim_out)
    assert_equal_to(reference, aggregator, draw(sizes, seed))


def test_it_agrees_with_torch_geometric_s_sum_where_all_sizes_are_one(pyg):  # noqa: F811
    aggregator = build("deep_sets", hidden_dim=5)
    peer = pyg.DeepSetsAggregation(aggregator.phi, aggregator.rho)
    batch = joined(draw([1] * 4))
    expected = peer(batch.values, batch.index) + aggregator.linear(batch.values)
    torch.testing.assert_close(aggregator(batch), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 7])
def test_it_agrees_with_torch_geometric_s_sum_of_features_over_the_size(pyg, size):  # noqa: F811
    aggregator = build("deep_sets", hidden_dim=5)
    batch = joined(draw([size] * 4))

    class Divided(torch.nn.Module):
        def forward(self, x):
            return aggregator.phi(x) / size

    peer = pyg.DeepSetsAggregation(Divided(), aggregator.rho)
    means = batch.values.reshape(4, size, -1).mean(dim=1)
    expected = peer(batch.values, batch.index) + aggregator.linear(means)
    torch.testing.assert_close(aggregator(batch), expected, rtol=1e-12, atol=1e-12)
