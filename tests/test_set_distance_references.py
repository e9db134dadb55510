"""Set distances against slow loops in float64, written from their formulas."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import directed_hausdorff

from setrep.collection import CollectionBatch
from setrep.set_distances import (
    centroid,
    chamfer,
    energy,
    hausdorff,
    maxsim,
    modified_hausdorff,
    pairwise,
    sliced_wasserstein,
    transport_plan,
    wasserstein,
)
from setrep.set_distances.sliced_wasserstein import directions, monotone_plan
from setrep.set_distances.transport import least_moves

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
seeds = st.integers(0, 2**16)
some = settings(max_examples=30, deadline=None)


def draw(sizes, seed, dim=3):
    """Draw two collections; the first items are equal, as ties and zeros come up in practice."""
    x, y = (np.random.default_rng(seed + k).normal(size=(n, dim)) for k, n in enumerate(sizes))
    if seed % 2:
        y[0] = x[0]
    return x, y


def batch(*collections):
    return CollectionBatch.from_list([torch.from_numpy(np.array(c)) for c in collections])


def value(distance, x, y, **options):
    return float(distance(batch(x), batch(y), **options))


def length(difference):
    return math.sqrt(sum(float(d) ** 2 for d in difference))


def nearest(x, y):
    """List how far the nearest of `y` is from each of `x`."""
    return [min(length(p - q) for q in y) for p in x]


def mean(numbers):
    return math.fsum(numbers) / len(numbers)


def mean_distance(x, y):
    return mean([length(p - q) for p in x for q in y])


def on_a_line(x, y, order):
    """Integrate the distance of the two quantile functions, in whole fractions of the mass."""
    x, y = sorted(x), sorted(y)
    ends = {Fraction(i, len(x)) for i in range(len(x) + 1)}
    ends = sorted(ends | {Fraction(j, len(y)) for j in range(len(y) + 1)})
    total = 0.0
    for start, end in itertools.pairwise(ends):
        middle = (start + end) / 2
        apart = abs(x[int(middle * len(x))] - y[int(middle * len(y))])
        total += float(end - start) * apart**order
    return total


def program(x, y, order):
    """Solve the transport problem by the interior-point method, row by row as it is written."""
    n, m = len(x), len(y)
    cost = [length(p - q) ** order for p in x for q in y]
    rows = [[1.0 if k // m == i else 0.0 for k in range(n * m)] for i in range(n)]
    columns = [[1.0 if k % m == j else 0.0 for k in range(n * m)] for j in range(m)]
    masses = [1 / n] * n + [1 / m] * m
    return linprog(cost, A_eq=rows + columns, b_eq=masses, method="highs-ipm").fun ** (1 / order)


@given(sizes, seeds)
@some
def test_nearest_neighbour_distances_equal_their_loops(sizes, seed):
    x, y = draw(sizes, seed)
    there, back = nearest(x, y), nearest(y, x)
    assert value(chamfer, x, y) == pytest.approx(mean(there) + mean(back))
    assert value(chamfer, x, y, directed=True) == pytest.approx(mean(there))
    squared = mean([d * d for d in there]) + mean([d * d for d in back])
    assert value(chamfer, x, y, squared=True) == pytest.approx(squared)
    assert value(hausdorff, x, y) == pytest.approx(max(there + back))
    assert value(hausdorff, x, y, directed=True) == pytest.approx(max(there))
    assert value(modified_hausdorff, x, y) == pytest.approx(max(mean(there), mean(back)))
    assert value(hausdorff, x, y, directed=True) == pytest.approx(directed_hausdorff(x, y)[0])


@given(sizes, seeds)
@some
def test_centroid_energy_and_maxsim_equal_their_loops(sizes, seed):
    x, y = draw(sizes, seed)
    means = [[mean([p[k] for p in c]) for k in range(3)] for c in (x, y)]
    assert value(centroid, x, y) == pytest.approx(length(np.subtract(*means)))
    expected = 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
    assert value(energy, x, y) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    matches = [max(sum(a * b for a, b in zip(p, q, strict=True)) for q in y) for p in x]
    assert value(maxsim, x, y) == pytest.approx(math.fsum(matches))
    assert value(maxsim, x, y, mean=True) == pytest.approx(mean(matches))


@pytest.mark.parametrize("order", [1, 2])
@given(sizes=sizes, seed=seeds)
@some
def test_the_sliced_distance_is_the_mean_over_its_lines(order, sizes, seed):
    x, y = draw(sizes, seed)
    lines = directions(3, 5, seed=seed).T.numpy()
    each = [on_a_line(x @ line, y @ line, order) for line in lines]
    found = value(sliced_wasserstein, x, y, order=order, num_slices=5, seed=seed)
    assert found == pytest.approx(mean(each) ** (1 / order))


@pytest.mark.parametrize("order", [1, 2])
@given(sizes=sizes, seed=seeds)
@some
def test_the_wasserstein_distance_is_the_optimum_of_its_program(order, sizes, seed):
    x, y = draw(sizes, seed)
    expected = program(x, y, order)
    assert value(wasserstein, x, y, order=order) == pytest.approx(expected, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("order", [1, 2])
@given(sizes=sizes, seed=seeds)
@some
def test_on_a_line_the_wasserstein_distance_is_exact(order, sizes, seed):
    x, y = draw(sizes, seed, dim=1)
    expected = on_a_line(x[:, 0], y[:, 0], order) ** (1 / order)
    assert value(wasserstein, x, y, order=order) == pytest.approx(expected, abs=1e-9)
    assert value(sliced_wasserstein, x, y, order=order, num_slices=3) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2])
@given(count=st.integers(1, 5), seed=seeds)
@settings(max_examples=15, deadline=None)
def test_between_equal_sizes_the_wasserstein_distance_is_the_best_permutation(order, count, seed):
    x, y = draw((count, count), seed)
    costs = [
        mean([length(x[i] - y[j]) ** order for i, j in enumerate(permutation)])
        for permutation in itertools.permutations(range(count))
    ]
    found = value(wasserstein, x, y, order=order)
    assert found == pytest.approx(min(costs) ** (1 / order))


def check_plan(plan, x, y):
    """Hold a plan to what it promises: it moves all of x onto all of y, pair by pair."""
    assert torch.equal(x.index[plan.x_items], plan.pair)
    assert torch.equal(y.index[plan.y_items], plan.pair)
    assert bool((plan.mass > 0).all())
    for collections, items in ((x, plan.x_items), (y, plan.y_items)):
        held = torch.zeros(len(collections.values), dtype=torch.float64)
        held = held.index_add(0, items, plan.mass)
        expected = 1 / collections.sizes[collections.index].double()
        assert torch.allclose(held, expected, rtol=1e-14)
    units = plan.mass * (x.sizes * y.sizes)[plan.pair]
    assert torch.allclose(units, units.round(), rtol=1e-14)


@given(st.lists(sizes, min_size=1, max_size=5), seeds)
@some
def test_plans_move_all_of_the_mass(sizes, seed):
    drawn = [draw(pair, seed + k) for k, pair in enumerate(sizes)]
    x, y = batch(*(c for c, _ in drawn)), batch(*(c for _, c in drawn))
    plan = transport_plan(x, y)
    check_plan(plan, x, y)
    assert torch.allclose(plan.cost(x, y), wasserstein(x, y))
    stairs = monotone_plan(x, y)
    check_plan(stairs, x, y)
    assert len(stairs.mass) == sum(n + m - math.gcd(n, m) for n, m in sizes)
    assert bool((stairs.cost(x, y) >= plan.cost(x, y) - 1e-12).all())


@pytest.mark.parametrize(("n", "m"), [(60, 50), (31, 30), (64, 63), (200, 100), (1, 40)])
@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1.0, 1e9, 1e150])
def test_no_plan_is_cheaper_by_prices_that_certify_it(n, m, scale):
    """Prices u, v with u_i + v_j <= c_ij bound every plan from below by mean(u) + mean(v)."""
    x, y = draw((n, m), seed=0)
    cost = scale * np.linalg.norm(x[:, None] - y, axis=2)
    rows, columns, mass = least_moves(cost)
    found = (mass * cost[rows, columns]).sum()
    # Shortest paths over what is left to move: forward any i to j, backward along the plan.
    u, v = np.zeros(n), np.full(m, np.inf)
    for _ in range(n + m):
        v = (cost + u[:, None]).min(0)
        back = np.full(n, np.inf)
        np.minimum.at(back, rows, v[columns] - cost[rows, columns])
        u = np.minimum(u, back)
    assert (v - u[:, None] <= cost + 1e-12 * cost.max()).all()
    assert found == pytest.approx(v.mean() - u.mean(), rel=1e-9)


def test_the_gradient_of_the_wasserstein_distance_is_that_of_differences():
    x, y = draw((4, 7), seed=0)
    leaf = torch.from_numpy(x).requires_grad_()
    wasserstein(batch(x).with_values(leaf), batch(y)).backward()
    for i, k in itertools.product(range(4), range(3)):
        step = np.zeros_like(x)
        step[i, k] = 1e-6
        slope = (program(x + step, y, 1) - program(x - step, y, 1)) / 2e-6
        assert float(leaf.grad[i, k]) == pytest.approx(slope, abs=1e-4)


def test_all_pairs_equal_the_loops_over_them():
    x = [draw((n, 1), n)[0] for n in (3, 1, 6)]
    y = [draw((n, 1), n)[0] for n in (5, 2)]
    found = pairwise(modified_hausdorff, batch(*x), batch(*y))
    expected = [[max(mean(nearest(a, b)), mean(nearest(b, a))) for b in y] for a in x]
    assert found.numpy() == pytest.approx(np.array(expected))


def test_lines_are_unit_vectors_in_all_directions_and_follow_the_seed():
    lines = directions(3, 2000, seed=0)
    assert torch.allclose(lines.norm(dim=0), torch.ones(2000, dtype=torch.float64))
    assert torch.allclose(lines @ lines.T / 2000, torch.eye(3, dtype=torch.float64) / 3, atol=0.03)
    assert torch.equal(lines, directions(3, 2000, seed=0))
    assert not torch.equal(lines, directions(3, 2000, seed=1))
