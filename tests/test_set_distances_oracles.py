"""Set distances against POT and geomloss, where they are installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from setrep.collection import CollectionBatch
from setrep.set_distances import energy, sliced_wasserstein, wasserstein
from setrep.set_distances.sliced_wasserstein import directions

SIZES = [(1, 1), (1, 9), (5, 5), (12, 8), (31, 30), (64, 63), (100, 20)]
every_size = pytest.mark.parametrize(("n", "m"), SIZES)
both_orders = pytest.mark.parametrize("order", [1, 2])


def peer(name):
    """Import a peer, whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def draw(n, m, dim=4):
    rng = np.random.default_rng(n * m)
    return rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.5


def batch(items):
    return CollectionBatch.from_list([torch.from_numpy(items)])


@every_size
@both_orders
def test_the_wasserstein_distance_is_that_of_pot(n, m, order):
    ot = peer("ot")
    x, y = draw(n, m)
    cost = np.linalg.norm(x[:, None] - y, axis=2) ** order
    expected = ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost, numItermax=10**6)
    found = float(wasserstein(batch(x), batch(y), order=order))
    assert found == pytest.approx(expected ** (1 / order), rel=1e-9)


@every_size
@both_orders
def test_the_sliced_distance_is_that_of_pot_on_the_same_lines(n, m, order):
    ot = peer("ot")
    x, y = draw(n, m)
    lines = directions(4, 20, seed=3).numpy()
    expected = ot.sliced_wasserstein_distance(x, y, p=order, projections=lines)
    found = sliced_wasserstein(batch(x), batch(y), order=order, num_slices=20, seed=3)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


@every_size
@both_orders
def test_on_a_line_both_distances_are_that_of_pot(n, m, order):
    ot = peer("ot")
    x, y = draw(n, m, dim=1)
    expected = float(ot.wasserstein_1d(x[:, 0], y[:, 0], p=order)) ** (1 / order)
    for distance in (wasserstein, sliced_wasserstein):
        assert float(distance(batch(x), batch(y), order=order)) == pytest.approx(expected, rel=1e-9)


@every_size
def test_the_energy_distance_is_twice_that_of_geomloss(n, m):
    """Theirs is half of the formula, and holds items that coincide to be 1e-4 apart."""
    geomloss = peer("geomloss")
    x, y = draw(n, m)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = geomloss.SamplesLoss("energy", backend="tensorized")
        theirs = float(loss(torch.from_numpy(x), torch.from_numpy(y)))
    expected = 2 * theirs + 1e-4 / n + 1e-4 / m
    assert float(energy(batch(x), batch(y))) == pytest.approx(expected, rel=1e-9)
