"""Constants of F4 and L1 against recorded numbers of a separate computation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hypergeom

from setrep.bounds import losses
from setrep.bounds.change_factor import change_factor

VECTORS = json.loads((Path(__file__).parent / "vectors" / "bounds.json").read_text())


def named(name: str):
    cases = VECTORS[name]
    ids = ["-".join(str(value) for value in list(case.values())[:-1]) for case in cases]
    return pytest.mark.parametrize("case", cases, ids=ids)


def least_factor(values: np.ndarray, chances: np.ndarray, mean: float) -> float:
    """Return the least C^2 with which the tail exp(-2 t^2 / C^2) is above a known law."""
    order = np.argsort(-values)
    tails = np.cumsum(chances[order])
    t = values[order] - mean
    # Ties are summed up to their last, and a tail that is not below 1 asks for nothing.
    is_asked = (t > 1e-9) & (tails < 1 - 1e-9) & (tails > 1e-280)
    is_asked[:-1] &= np.diff(values[order]) < -1e-9
    return float((2 * t[is_asked] ** 2 / -np.log(tails[is_asked])).max(initial=0.0))


def least_factor_of_one(num_items: int, n: int) -> float:
    """Return what any pool of zeros and ones needs: a centroid is then a count of ones."""
    counts = np.arange(n + 1)
    needed = [
        least_factor(counts / n, hypergeom.pmf(counts, num_items, ones, n), ones / num_items)
        for ones in range(1, num_items)
    ]
    return max(needed)


def least_factor_of_two(num_items: int, n1: int, n2: int) -> float:
    """Return what any pool of zeros and ones needs for the difference of two centroids."""
    needed = []
    for ones in range(1, num_items):
        first = np.arange(min(n1, ones) + 1)[:, None]
        second = np.arange(n2 + 1)[None]
        chances = hypergeom.pmf(first, num_items, ones, n1)
        chances = chances * hypergeom.pmf(second, num_items - n1, ones - first, n2)
        values = first / n1 - second / n2
        needed.append(least_factor(values.ravel(), np.nan_to_num(chances).ravel(), 0.0))
    return max(needed)


@named("one_sample")
def test_the_factor_of_one_collection_is_the_recorded_one_or_that_of_the_rest(case):
    """Recorded is kappa of n items; of the pool without them it may be smaller."""
    num_items, n = case["N"], case["n"]
    found = float(change_factor(num_items, n))
    if 2 * n <= num_items:
        assert found * n**2 == pytest.approx(case["kappa"], rel=1e-12)
    else:
        rest = n**2 * sum(1 / (num_items - i) ** 2 for i in range(1, num_items - n + 1))
        assert found * n**2 == pytest.approx(min(case["kappa"], rest), rel=1e-12)
        assert rest < case["kappa"]
    assert least_factor_of_one(num_items, n) <= found <= 1


@named("two_samples")
def test_the_factor_of_two_collections_is_the_recorded_one_or_less(case):
    """Recorded is that of one order of revealing the groups."""
    num_items, n1, n2 = case["N"], case["n1"], case["n2"]
    found = float(change_factor(num_items, n1, n2))
    rest = num_items - n1 - n2
    steps = [1 / (num_items - i) ** 2 for i in range(1, min(n1 + n2, num_items - 1) + 1)]
    recorded = (num_items / n1) ** 2 * sum(steps[:n1]) + (rest / n2) ** 2 * sum(steps[n1:])
    assert case["squared"] == pytest.approx(recorded, rel=1e-12)
    assert found <= case["squared"] * (1 + 1e-12)
    assert least_factor_of_two(num_items, n1, n2) <= found <= 1


@named("losses")
def test_the_constant_of_l1_is_the_recorded_one_rounded_up(case):
    """Recorded is the largest value on a grid, so the maximum is no less."""
    found = losses.kappa(case["temperature"])
    assert case["kappa"] <= found <= case["kappa"] * 1.001
    assert math.isfinite(found)


def test_every_recorded_list_is_read():
    assert set(VECTORS) == {"triples", "one_sample", "two_samples", "losses"}
