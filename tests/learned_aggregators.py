"""What the tests of learned aggregators share: drawn collections, drawn parameters, a peer."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch

DIM = 6
sizes_and_seed = given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**16)
)


def draw(sizes, seed=0, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in sizes]


def joined(collections):
    return CollectionBatch.from_list(collections, allow_empty=True)


def build(name, seed=0, dim=DIM, **options):
    """Build an aggregator in float64 with every parameter drawn, those that start at 0 too."""
    aggregator = build_aggregator(name, dim, **options).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in aggregator.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * drawn)
    return aggregator


def assert_equal_to(reference, aggregator, collections, rtol=1e-11, atol=1e-12):
    expected = torch.stack([reference(aggregator, items) for items in collections])
    found = aggregator(joined(collections))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.fixture
def pyg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of its own affairs
        yield pytest.importorskip("torch_geometric.nn.aggr")
