"""Batches to compare, and every set distance under the options that change its laws."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from setrep.collection import CollectionBatch
from setrep.set_distances import (
    SET_DISTANCES,
    chamfer,
    hausdorff,
    maxsim,
    sliced_wasserstein,
    wasserstein,
)

DIM = 3
# The registered ones under other options, and the laws that those change.
OPTIONS = {
    "chamfer squared": replace(
        SET_DISTANCES["chamfer"], function=partial(chamfer, squared=True), degree=2
    ),
    "chamfer directed": replace(
        SET_DISTANCES["chamfer"], function=partial(chamfer, directed=True), is_symmetric=False
    ),
    "hausdorff directed": replace(
        SET_DISTANCES["hausdorff"], function=partial(hausdorff, directed=True), is_symmetric=False
    ),
    "maxsim mean": replace(
        SET_DISTANCES["maxsim"], function=partial(maxsim, mean=True), ignores_copies=True
    ),
    "sliced_wasserstein 2": replace(
        SET_DISTANCES["sliced_wasserstein"], function=partial(sliced_wasserstein, order=2)
    ),
    "wasserstein 2": replace(SET_DISTANCES["wasserstein"], function=partial(wasserstein, order=2)),
}
ALL = {**SET_DISTANCES, **OPTIONS}
every_distance = pytest.mark.parametrize("law", ALL.values(), ids=ALL.keys())
sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)
seeds = st.integers(0, 2**16)
few = settings(max_examples=15, deadline=None)


def draw(sizes, seed, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in sizes]


def batch(*collections):
    return CollectionBatch.from_list(collections)


def draw_pairs(sizes, seed):
    return batch(*draw([n for n, _ in sizes], seed)), batch(*draw([m for _, m in sizes], seed + 1))


def mapped(collections, function):
    return collections.with_values(function(collections.values))


def same(found, expected, atol=1e-12):
    return torch.allclose(found, expected, rtol=1e-12, atol=atol)
