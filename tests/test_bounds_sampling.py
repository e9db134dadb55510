"""F1 to F4: centroids of collections drawn from a pool, against everything that can be drawn."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from setrep.bounds import sampling
from setrep.bounds.change_factor import change_factor
from setrep.bounds.sampling import (
    PoolMoments,
    bernstein,
    bounded_differences,
    bousquet,
    expected_distance,
    expected_squared_distance,
    measure_pool,
    pinelis,
    tail_probability,
)
from setrep.collection import draw_disjoint
from setrep.data.collections import draw_disjoint_triples, draw_query_gallery, pools_by_label
from setrep.errors import InputError
from tests.sampling_cases import (
    distances_of_pairs,
    distances_to_mean,
    distances_with_replacement,
    draw_pool,
    pools,
)
from tests.test_collections import make_dataset

STATEMENT = settings(max_examples=200, deadline=None)
DELTAS = (0.5, 0.2, 0.05, 1e-3, 1e-6)
RADII = (pinelis, bernstein, bousquet)


def rounding_of(pool: np.ndarray) -> float:
    """Return what float64 loses of a distance, from coordinates and their sums."""
    return 1e-14 * float(np.abs(pool).max(initial=0.0))


def steps(left: int, size: int) -> Fraction:
    return sum((Fraction(1, (left - i) ** 2) for i in range(1, size + 1)), Fraction(0))


def kappa(num_items: int, n: int) -> Fraction:
    return (num_items - n) ** 2 * steps(num_items, n) if n < num_items else Fraction(0)


def factor_of_one(num_items: int, n: int) -> Fraction:
    return min(kappa(num_items, n), kappa(num_items, num_items - n)) / n**2


def factors_of_two(num_items: int, n1: int, n2: int) -> list[Fraction]:
    """Return what revealing the groups gives: A B, A and the rest, the rest and A."""
    rest = num_items - n1 - n2
    first = Fraction(num_items, n1) ** 2 * steps(num_items, n1)
    after_rest = Fraction(n1 + n2, n1) ** 2 * steps(n1 + n2, n1)
    then_b = Fraction(rest, n2) ** 2 * steps(num_items - n1, n2) if rest else Fraction(0)
    return [
        first + then_b,
        first + steps(num_items - n1, rest),
        4 * steps(num_items, rest) + after_rest,
    ]


@given(pools(8))
@STATEMENT
def test_a_pool_is_measured_as_loops_measure_it(pool):
    found = measure_pool(torch.from_numpy(pool))
    centre = [math.fsum(pool[:, axis]) / len(pool) for axis in range(pool.shape[1])]
    lengths = [math.dist(x, centre) for x in pool]
    centred = pool - np.array(centre)
    variance = np.linalg.eigvalsh(centred.T @ centred / len(pool)).max()
    close = {"rel": 1e-9, "abs": rounding_of(pool)}
    assert found.num_items == len(pool)
    assert found.spread == pytest.approx(math.hypot(*lengths) / math.sqrt(len(pool)), **close)
    assert found.diameter == pytest.approx(
        max(math.dist(x, z) for x in pool for z in pool), **close
    )
    assert found.radius == pytest.approx(max(lengths), **close)
    squared = {"rel": 1e-9, "abs": rounding_of(pool) ** 2 + 1e-12 * variance}
    assert found.largest_variance == pytest.approx(variance, **squared)


def test_a_diameter_is_the_same_in_blocks(monkeypatch):
    pool = draw_pool("random", 37, 3, 0)
    whole = measure_pool(pool)
    monkeypatch.setattr(sampling, "DISTANCES_AT_ONCE", 100)
    assert measure_pool(pool) == whole


def test_a_pool_in_more_dimensions_than_items_has_the_same_variance():
    pool = draw_pool("random", 4, 50, 0)
    centred = pool - pool.mean(0)
    expected = np.linalg.eigvalsh(centred.T @ centred / 4).max()
    assert measure_pool(pool).largest_variance == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["equal", "offset"])
def test_equal_items_have_no_spread_at_all(shape):
    pool = np.full((3, 2), 0.1) + (1e4 if shape == "offset" else 0.0)
    assert measure_pool(pool) == PoolMoments(3, 0.0, 0.0, 0.0, 0.0)


def test_scale_and_precision_of_the_input_cost_nothing():
    pool = draw_pool("lattice", 9, 3, 0)
    whole = measure_pool(pool)
    assert measure_pool(torch.from_numpy(pool).half()) == whole
    for scale in (2.0**-600, 2.0**600):
        found = measure_pool(scale * pool)
        for name in ("spread", "diameter", "radius"):
            assert getattr(found, name) == scale * getattr(whole, name)
    assert measure_pool(2.0**600 * pool).largest_variance == math.inf


@given(pools(7), st.data())
@STATEMENT
def test_f3_the_mean_squared_distance_of_all_subsets_is_exact(pool, data):
    moments = measure_pool(pool)
    exact = {"rel": 1e-12, "abs": rounding_of(pool) * (moments.spread + rounding_of(pool))}
    n = data.draw(st.integers(1, len(pool)))
    found = float(expected_squared_distance(moments, n))
    assert found == pytest.approx((distances_to_mean(pool, n) ** 2).mean(), **exact)
    if n < len(pool):
        other = data.draw(st.integers(1, len(pool) - n))
        found = float(expected_squared_distance(moments, n, other))
        assert found == pytest.approx((distances_of_pairs(pool, n, other) ** 2).mean(), **exact)


@given(pools(4), st.integers(1, 4))
@STATEMENT
def test_f1_the_mean_squared_distance_of_all_sequences_of_draws_is_exact(pool, n):
    moments = measure_pool(pool)
    exact = {"rel": 1e-12, "abs": rounding_of(pool) * (moments.spread + rounding_of(pool))}
    found = float(expected_squared_distance(moments, n, with_replacement=True))
    every = distances_with_replacement(pool, n)
    assert found == pytest.approx((every**2).mean(), **exact)
    expected = float(expected_distance(moments, n, with_replacement=True))
    assert every.mean() <= expected * (1 + 1e-12) + rounding_of(pool)


def test_f2_independent_collections_are_apart_as_the_sum_of_their_variances():
    pool = draw_pool("random", 4, 2, 1)
    found = expected_squared_distance(measure_pool(pool), 2, 3, with_replacement=True)
    means = [
        np.array([pool[list(c)].mean(0) for c in itertools.product(range(4), repeat=n)])
        for n in (2, 3)
    ]
    apart = means[0][:, None] - means[1][None]
    assert float(found) == pytest.approx((apart**2).sum(-1).mean(), rel=1e-12)
    bound = bounded_differences(measure_pool(pool), 2, 3, delta=0.05, with_replacement=True)
    pool = measure_pool(pool)
    s = math.sqrt(1 / 2 + 1 / 3)
    expected = s * (pool.spread + pool.diameter * math.sqrt(math.log(20) / 2))
    assert float(bound) == pytest.approx(expected, rel=1e-12)


def test_f4_factors_are_those_of_the_orders_of_revealing():
    for num_items in range(1, 15):
        for n in range(1, num_items + 1):
            expected = float(factor_of_one(num_items, n))
            assert float(change_factor(num_items, n)) == pytest.approx(expected, rel=1e-12)
            for other in range(1, num_items - n + 1):
                orders = factors_of_two(num_items, n, other) + factors_of_two(num_items, other, n)
                expected = float(min(*orders, Fraction(1)))
                found = float(change_factor(num_items, n, other))
                assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("num_items", "n"), [(10**5, 1), (10**5, 3), (10**5, 10**4), (10**5, 99_998)]
)
def test_f4_factors_of_large_pools_keep_their_digits(num_items, n):
    of_one = []
    for size in (n, num_items - n):
        tail = math.fsum(k**-2.0 for k in range(num_items - size, num_items))
        of_one.append((num_items - size) ** 2 * tail)
    assert float(change_factor(num_items, n)) == pytest.approx(min(of_one) / n**2, rel=1e-9)


def test_f4_closed_forms_are_no_smaller_and_close():
    n = torch.arange(1, 200)
    exact, closed = change_factor(200, n), change_factor(200, n, closed_form=True)
    assert bool((closed >= exact * (1 - 1e-12)).all())
    for size in range(2, 101):
        expected = size * (200 - size) ** 2 / ((199.5 - size) * 199.5) / size**2
        assert float(closed[size - 1]) == pytest.approx(expected, rel=1e-12)
    two = change_factor(200, n[:99], 100)
    closed = change_factor(200, n[:99], 100, closed_form=True)
    assert bool((closed >= two * (1 - 1e-12)).all())
    assert bool((closed[9:] <= two[9:] * 1.001).all())
    for size in range(10, 100):
        first = 200**2 / size / ((199.5 - size) * 199.5)
        rest = 100 - size
        expected = first + rest**2 / 100 / ((rest - 0.5) * (199.5 - size))
        assert float(closed[size - 1]) <= expected * (1 + 1e-12)


def test_f4_is_never_worse_than_serfling_or_bardenet_and_maillard():
    for num_items in range(2, 120):
        n = torch.arange(1, num_items).double()
        found = change_factor(num_items, n.long()) * n**2
        serfling = n * (num_items - n + 1) / num_items
        complement = (n + 1) * (num_items - n) / num_items
        assert bool((found <= torch.minimum(serfling, complement) * (1 + 1e-12)).all())


@given(pools(7), st.data())
@STATEMENT
def test_f4_tails_hold_over_all_subsets(pool, data):
    moments = measure_pool(pool)
    n = data.draw(st.integers(1, len(pool)))
    cases = [(distances_to_mean(pool, n), (n,))]
    if n < len(pool):
        other = data.draw(st.integers(1, len(pool) - n))
        cases.append((distances_of_pairs(pool, n, other), (n, other)))
    for every, sizes in cases:
        assert every.mean() <= float(expected_distance(moments, *sizes)) + rounding_of(pool) * 10
        for reached in np.unique(every):
            excess = reached - every.mean() - 10 * rounding_of(pool)
            probability = (every >= reached - 10 * rounding_of(pool)).mean()
            assert probability <= float(tail_probability(moments, excess, *sizes)) + 1e-9
        for delta in DELTAS:
            kept = float(bounded_differences(moments, *sizes, delta=delta))
            assert (every > kept + 10 * rounding_of(pool)).mean() <= delta


@given(pools(4), st.integers(1, 4))
@STATEMENT
def test_f1_tails_hold_over_all_sequences_of_draws(pool, n):
    moments, every = measure_pool(pool), distances_with_replacement(pool, n)
    for reached in np.unique(every):
        excess = reached - every.mean() - 10 * rounding_of(pool)
        probability = (every >= reached - 10 * rounding_of(pool)).mean()
        found = tail_probability(moments, excess, n, with_replacement=True)
        assert probability <= float(found) + 1e-9
    for delta in DELTAS:
        kept = [float(radius(moments, n, delta=delta)) for radius in RADII]
        kept.append(float(bounded_differences(moments, n, delta=delta, with_replacement=True)))
        assert (every > min(kept) + 10 * rounding_of(pool)).mean() <= delta


@pytest.mark.parametrize("share", [0.5, 0.1, 0.004])
@pytest.mark.parametrize("n", [1, 7, 40, 150, 400, 490])
def test_f1_f4_radii_hold_on_large_pools_of_two_points(share, n):
    """The centroid is a count of ones, so its distribution is known."""
    num_items = 500
    ones = round(share * num_items)
    pool = np.zeros((num_items, 1))
    pool[:ones] = 1
    moments = measure_pool(pool)
    far = np.abs(np.arange(n + 1) / n - share)
    independent = binom(n, share).pmf(np.arange(n + 1))
    without = hypergeom(num_items, ones, n).pmf(np.arange(n + 1))
    for delta in DELTAS:
        both = [radius(moments, n, delta=delta) for radius in RADII]
        both.append(bounded_differences(moments, n, delta=delta, with_replacement=True))
        for kept in both:
            assert independent[far > float(kept) + 1e-12].sum() <= delta
            assert without[far > float(kept) + 1e-12].sum() <= delta
        kept = float(bounded_differences(moments, n, delta=delta))
        assert without[far > kept + 1e-12].sum() <= delta


def test_f1_radii_equal_their_formulas():
    pool = measure_pool(draw_pool("heavy", 60, 4, 3))
    n, x = 12, math.log(1 / 0.01)
    b, sigma, big = pool.radius, pool.spread, pool.largest_variance
    mean = sigma / math.sqrt(n)
    expected = mean + pool.diameter * math.sqrt(x / (2 * n))
    found = bounded_differences(pool, n, delta=0.01, with_replacement=True)
    assert float(found) == pytest.approx(expected)
    expected = b * math.sqrt(2 * math.log(200) / n)
    assert float(pinelis(pool, n, delta=0.01)) == pytest.approx(expected)
    expected = mean + math.sqrt(2 * x / n * (big + 2 * b * mean)) + b * x / (3 * n)
    assert float(bousquet(pool, n, delta=0.01)) == pytest.approx(expected)
    # The radius at which Bernstein's exponential is delta.
    radius = float(bernstein(pool, n, delta=0.01))
    exponent = n * radius**2 / (2 * (sigma**2 + b * radius / 3))
    assert 2 * math.exp(-exponent) == pytest.approx(0.01)
    kappa_of = float(min(kappa(60, 12), kappa(60, 48)))
    expected = math.sqrt(sigma**2 / n * 48 / 59)
    expected += pool.diameter / n * math.sqrt(kappa_of * x / 2)
    assert float(bounded_differences(pool, n, delta=0.01)) == pytest.approx(expected)


@given(pools(8), st.integers(1, 1000), st.sampled_from(DELTAS))
@STATEMENT
def test_bernstein_is_below_its_usual_form(pool, n, delta):
    moments, x = measure_pool(pool), math.log(2 / delta)
    usual = 2 * moments.radius * x / n + moments.spread * math.sqrt(2 * x / n)
    assert float(bernstein(moments, n, delta=delta)) <= usual * (1 + 1e-12)


@given(pools(60), st.sampled_from(DELTAS))
@settings(max_examples=100, deadline=None)
def test_every_bound_falls_as_collections_grow(pool, delta):
    moments = measure_pool(pool)
    n = np.arange(1, len(pool) + 1)
    found = [radius(moments, n, delta=delta) for radius in RADII]
    for is_with in (False, True):
        found.append(bounded_differences(moments, n, delta=delta, with_replacement=is_with))
        found.append(expected_squared_distance(moments, n, with_replacement=is_with))
        found.append(change_factor(len(pool), n, with_replacement=is_with))
    if len(pool) > 1:
        found.append(bounded_differences(moments, n[:-1], 1, delta=delta))
    for of_sizes in found:
        assert bool((of_sizes.diff() <= 1e-9 * of_sizes[:-1]).all())


@given(pools(12), st.sampled_from([1e-6, 0.5, 3.0, 1e5]), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_bounds_move_with_scale_and_not_with_place(pool, scale, seed):
    generator = np.random.default_rng(seed)
    shift = generator.normal(size=pool.shape[1]) * scale * np.abs(pool).max()
    turn, _ = np.linalg.qr(generator.normal(size=(pool.shape[1],) * 2))
    before, after = measure_pool(pool), measure_pool(scale * pool @ turn + shift)
    lost = 100 * scale * rounding_of(pool)
    for name in ("spread", "diameter", "radius"):
        expected = scale * getattr(before, name)
        assert getattr(after, name) == pytest.approx(expected, rel=1e-9, abs=lost)
    n = len(pool)
    for radius in RADII:
        expected = scale * float(radius(before, n, delta=0.05))
        lost_here = 100 * lost + math.sqrt(lost * scale * before.spread)
        found = float(radius(after, n, delta=0.05))
        assert found == pytest.approx(expected, rel=1e-6, abs=lost_here)


def test_the_whole_pool_is_at_the_mean_for_certain():
    pool = measure_pool(draw_pool("random", 6, 2, 0))
    assert float(expected_squared_distance(pool, 6)) == 0
    assert float(bounded_differences(pool, 6, delta=1e-9)) == 0
    assert float(tail_probability(pool, 1e-9, 6)) == 0
    assert float(tail_probability(pool, 0.0, 6)) == 1


def test_one_item_is_a_pool():
    pool = measure_pool([[1.0, 2.0]])
    assert pool == PoolMoments(1, 0.0, 0.0, 0.0, 0.0)
    assert float(bounded_differences(pool, 1, delta=0.05)) == 0
    assert [float(radius(pool, 3, delta=0.05)) for radius in RADII] == [0, 0, 0]


def test_sizes_may_be_numbers_lists_arrays_or_tensors():
    pool = measure_pool(draw_pool("random", 9, 2, 0))
    alone = [float(expected_distance(pool, n, 2)) for n in (1, 3)]
    for sizes in ([1, 3], np.array([1, 3]), torch.tensor([1, 3])):
        assert expected_distance(pool, sizes, 2).tolist() == alone
    assert expected_distance(pool, [[1], [2]], [1, 2, 3]).shape == (2, 3)


# Distances squared of two collections of one draw, for each way that the package draws them.
def from_draw_disjoint(pool: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
    return [c.numpy() for c in draw_disjoint(torch.arange(len(pool)), [2, 3], generator)]


def from_label_pools(pool: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
    labels = np.zeros(len(pool), dtype=np.int64)
    return [c.numpy() for c in pools_by_label(labels, None, 3)[0].draw(2, generator)]


def from_triples(pool: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
    seed = int(torch.randint(2**31, (), generator=generator))
    dataset = make_dataset([[len(pool)], [2]], is_natural=False)
    drawn = draw_disjoint_triples(dataset, 2, 1, seed=seed)
    items = drawn.first[0], drawn.second[0]
    if int(drawn.labels[0, 0]) == 1:
        return from_triples(pool, generator)
    place = np.cumsum(dataset.labels == 0) - 1
    return [place[chosen.numpy()] for chosen in items]


def from_query_gallery(pool: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
    seed = int(torch.randint(2**31, (), generator=generator))
    dataset = make_dataset([[len(pool)]], is_natural=False)
    drawn = draw_query_gallery(dataset, 3, seed=seed, max_per_label=1)
    return [drawn.query_items.numpy(), drawn.gallery_items.numpy()]


@pytest.mark.parametrize(
    "draw", [from_draw_disjoint, from_label_pools, from_triples, from_query_gallery]
)
def test_f3_collections_that_the_package_draws_are_apart_as_they_should_be(draw):
    pool = draw_pool("random", 6, 2, 5)
    moments, generator = measure_pool(pool), torch.Generator().manual_seed(0)
    squared = []
    for _ in range(3000):
        first, second = draw(pool, generator)
        assert len({*first, *second}) == len(first) + len(second)
        squared.append(((pool[first].mean(0) - pool[second].mean(0)) ** 2).sum())
    error = np.std(squared) / math.sqrt(len(squared))
    expected = float(expected_squared_distance(moments, len(first), len(second)))
    assert abs(np.mean(squared) - expected) < 4.5 * error
    # The draws are many enough to tell: collections with common items are farther off than that.
    common = float(
        expected_squared_distance(moments, len(first), len(second), with_replacement=True)
    )
    assert abs(np.mean(squared) - common) > 4.5 * error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pool: measure_pool(np.full((2, 2), np.nan)), "NaN"),
        (lambda pool: measure_pool(np.zeros((0, 2))), "at least one item"),
        (lambda pool: measure_pool(np.zeros((2, 2, 2))), r"\[items, dimensions\]; found"),
        (lambda pool: measure_pool([["a"]]), "real numbers"),
        (lambda pool: expected_distance(pool, 0), "at least 1; found 0"),
        (lambda pool: expected_distance(pool, 2.0), "whole numbers"),
        (lambda pool: expected_distance(pool, True), "whole numbers"),
        (lambda pool: expected_distance(pool, []), "whole numbers"),
        (lambda pool: expected_distance(pool, 1, [0]), "other must be"),
        (lambda pool: expected_distance(pool, [1, 2], [1, 2, 3]), "one shape"),
        (lambda pool: expected_distance(pool, 6), "6 items .* pool of 5"),
        (lambda pool: tail_probability(pool, 0.1, 3, 3), "6 items .* pool of 5"),
        (lambda pool: bounded_differences(pool, 3, delta=0.0), "delta must be"),
        (lambda pool: pinelis(pool, 3, delta=1.0), "delta must be"),
        (lambda pool: bernstein(pool, 3, delta=math.nan), "delta must be"),
        (lambda pool: bousquet(pool, -3, delta=0.1), "at least 1"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(call, message):
    pool = measure_pool(draw_pool("random", 5, 2, 0))
    with pytest.raises(InputError, match=message) as refused:
        call(pool)
    assert "\n" not in str(refused.value)
