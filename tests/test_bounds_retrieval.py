"""R1 to R3: errors of retrieval, against every query that can be drawn."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from setrep.bounds import calibration
from setrep.bounds import cells as cells_of
from setrep.bounds.calibration import clopper_pearson, is_error, measure_errors
from setrep.bounds.cells import measure_cells, to_gallery
from setrep.bounds.change_factor import change_factor
from setrep.bounds.retrieval import (
    certify_retrieval,
    chernoff,
    half_space,
    triangle,
    triangle_pairs,
)
from setrep.bounds.sampling import bounded_differences, expected_distance, measure_pool
from setrep.errors import InputError
from tests.sampling_cases import draw_gallery, draws, galleries, probability_of_error

STATEMENT = settings(max_examples=200, deadline=None)
SIZES = (1, 3, 5, 10, 20)


def planes(gallery: np.ndarray, pool: np.ndarray, label: int) -> dict[int, np.ndarray]:
    """Return the distances of a pool from the planes between centroids, of those that differ."""
    found = {}
    for other, centre in enumerate(gallery):
        apart = math.dist(gallery[label], centre)
        if other != label and apart > 0:
            normal = (gallery[label] - centre) / apart
            found[other] = np.array(
                [float((x - gallery[label]) @ normal) + apart / 2 for x in pool]
            )
    return found


def half_space_loop(gallery: np.ndarray, pool: np.ndarray, label: int, factor: float) -> float:
    """Return R2 with exp(-2 g^2 / (w^2 factor)) for each other label."""
    sides = planes(gallery, pool, label)
    if len(sides) < len(gallery) - 1 or any(y.mean() <= 0 for y in sides.values()):
        return 1.0
    terms = [math.exp(-2 * (y.mean() / np.ptp(y)) ** 2 / factor) for y in sides.values()]
    return min(1.0, sum(terms))


def chernoff_grid(gallery: np.ndarray, pool: np.ndarray, label: int, n: int) -> float:
    """Return R3 with theta from 400 between 0 and 20 over the width."""
    total = 0.0
    for y in planes(gallery, pool, label).values():
        thetas = np.linspace(0, 20 / max(np.ptp(y), 1e-300), 400)
        scores = np.outer(thetas, -y)
        top = scores.max(1, keepdims=True)
        logs = top[:, 0] + np.log(np.exp(scores - top).mean(1))
        total += min(1.0, math.exp(n * min(0.0, logs.min())))
    return min(1.0, total)


def smallest_of(pools: list[np.ndarray]) -> int:
    return min(len(pool) for pool in pools)


@given(galleries, st.data())
@STATEMENT
def test_r1_r2_r3_hold_over_all_queries(case, data):
    gallery, pools = case
    n = data.draw(st.integers(1, smallest_of(pools)))
    found = certify_retrieval(gallery, pools, [n])
    level = data.draw(st.sampled_from([0.3, 0.05]))
    pairs = found.pairs(level)
    for label, pool in enumerate(pools):
        exact = probability_of_error(gallery, pool, label, n)
        for bound in (found.triangle, found.half_space, found.chernoff):
            assert exact["any"] <= float(bound[label, 0]) * (1 + 1e-9)
        certified = pairs[0, label].tolist()
        assert certified[label]
        for other, is_certified in enumerate(certified):
            assert not is_certified or exact[other] <= level
        if all(certified):
            assert exact["any"] <= level


@given(galleries, st.integers(1, 3))
@STATEMENT
def test_r1_r2_r3_hold_over_all_queries_drawn_with_replacement(case, n):
    gallery, pools = case
    found = certify_retrieval(gallery, pools, [n], with_replacement=True)
    for label, pool in enumerate(pools):
        exact = probability_of_error(gallery, pool, label, n, with_replacement=True)
        for bound in (found.triangle, found.half_space, found.chernoff):
            assert exact["any"] <= float(bound[label, 0]) * (1 + 1e-9)
        if bool(found.pairs(0.05)[0, label].all()):
            assert exact["any"] <= 0.05


@pytest.mark.parametrize("seed", range(8))
def test_r2_and_r3_are_above_exact_errors_that_are_small(seed):
    """Pools inside their cells, where bounds are far from 1 and a slip would show."""
    gallery, pools = draw_gallery("random", [12, 12, 12], 2, 2.0, seed)
    cells = measure_cells(gallery, pools)
    for n in (1, 2, 4):
        bounds = torch.minimum(half_space(cells, n), chernoff(cells, n))
        for label, pool in enumerate(pools):
            exact = probability_of_error(gallery, pool, label, n)["any"]
            assert exact <= float(bounds[label, 0]) + 1e-9


@given(galleries, st.data())
@STATEMENT
def test_r2_and_r3_equal_their_formulas(case, data):
    gallery, pools = case
    n = data.draw(st.integers(1, smallest_of(pools)))
    cells = measure_cells(gallery, pools)
    for label, pool in enumerate(pools):
        sides = planes(gallery, pool, label).values()
        unsure = 1e-9 * (np.abs(pool - gallery[label]).max() + np.ptp(gallery, axis=0).max())
        if any(abs(y.mean()) < unsure or np.ptp(y) < unsure for y in sides):
            continue  # where a sign hangs on rounding, a formula says nothing about float64
        found = float(chernoff(cells, n)[label, 0])
        if len(sides) < len(gallery) - 1:
            assert found == 1
        else:
            assert found <= chernoff_grid(gallery, pool, label, n) * (1 + 1e-9)
            is_inside = all(y.min() > unsure for y in sides)
            assert (found == 0) == is_inside or any(np.abs(y).min() <= unsure for y in sides)
        for is_with in (False, True):
            factor = float(change_factor(len(pool), n, with_replacement=is_with))
            if factor > 0:
                expected = half_space_loop(gallery, pool, label, factor)
                found = float(half_space(cells, n, with_replacement=is_with)[label, 0])
                assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("num_wrong", [1, 5, 20])
def test_r3_finds_the_best_theta(num_wrong):
    r"""For y of 1 and -1 the minimum is known: $2 \sqrt{p (1 - p)}$."""
    pool = np.ones((50, 1))
    pool[:num_wrong] = -1
    cells = measure_cells([[2.0], [-2.0]], [pool, -pool])
    p = num_wrong / 50
    for n in (1, 4, 30):
        expected = (2 * math.sqrt(p * (1 - p))) ** n
        assert chernoff(cells, n)[:, 0].tolist() == pytest.approx([expected] * 2, rel=1e-9)


def test_r2_of_one_plane_equals_a_number_worked_out_by_hand():
    """Distances 3, 3, 3, -1 have mean 2 and width 4; kappa(4, 2) = 4 (1/9 + 1/4) = 13/9."""
    pool = np.array([[3.0], [3.0], [3.0], [-1.0]])
    cells = measure_cells([[1.0], [-1.0]], [pool, -pool])
    expected = math.exp(-2 * 4 * 4 / (16 * 13 / 9))
    assert half_space(cells, 2)[:, 0].tolist() == pytest.approx([expected] * 2)
    expected = math.exp(-2 * 4 * 2 / 16)
    assert half_space(cells, 2, with_replacement=True)[0].tolist() == pytest.approx([expected])


def test_r1_equals_its_formula():
    gallery, pools = draw_gallery("random", [5, 6], 3, 20.0, 0)
    cells = measure_cells(gallery, pools)
    gap = min(float(y.mean()) for y in planes(gallery, pools[0], 0).values())
    pool = measure_pool(pools[0])
    excess = gap - float(expected_distance(pool, 3))
    expected = math.exp(-2 * excess**2 / (pool.diameter**2 * float(change_factor(5, 3))))
    assert excess > 0
    assert float(triangle(cells, 3)[0, 0]) == pytest.approx(expected)


@given(galleries)
@STATEMENT
def test_r1_the_triangle_inequality_says_no_more_than_the_gap(case):
    gallery, pools = case
    cells = measure_cells(gallery, pools)
    for label, pool in enumerate(pools):
        own = math.dist(pool.mean(0), gallery[label])
        for other, centre in enumerate(gallery):
            by_triangle = (math.dist(pool.mean(0), centre) - own) / 2
            lost = 1e-9 * (own + math.dist(gallery[label], centre) + np.abs(pool).max())
            assert by_triangle <= max(0.0, float(cells.gap[label, other])) + lost


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 2**32 - 1))
@STATEMENT
def test_r1_within_their_radii_certified_pairs_are_told_apart(num_labels, dim, seed):
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(num_labels, dim))
    query_radius, gallery_radius = generator.uniform(0, 0.4, size=(2, num_labels))
    pairs = triangle_pairs(means, query_radius, gallery_radius)
    off = generator.normal(size=(3, num_labels, dim))
    off /= np.linalg.norm(off, axis=-1, keepdims=True)
    centres = means + gallery_radius[:, None] * off[0]
    for label, other in pairs.nonzero().tolist():
        towards = means[other] - means[label]
        for direction in (off[1, label], towards / max(np.linalg.norm(towards), 1e-9)):
            query = means[label] + query_radius[label] * direction
            nearer = math.dist(query, centres[other]) <= math.dist(query, centres[label])
            assert label == other or not nearer
    assert bool(pairs.diagonal().all())


def test_r1_pairs_at_the_border_are_not_told_apart():
    means = [[0.0], [4.0]]
    assert triangle_pairs(means, [1.0, 1.0], [1.0, 1.0]).tolist() == [[True, False], [False, True]]
    assert bool(triangle_pairs(means, [0.9, 1.0], [1.0, 1.0])[0, 1])
    assert not bool(triangle_pairs(means, [0.9, 1.0], [1.0, 1.0])[1, 0])
    assert not bool(triangle_pairs(means, [0.9, 1.0], [1.0, 1.3])[0, 1])


def all_shares(num_items: int, n: int, with_replacement: bool) -> tuple[torch.Tensor, list[int]]:
    """Return the shares of the items in every query, and how often each of them is drawn."""
    every = list(draws(num_items, n, with_replacement))
    shares = torch.zeros(len(every), num_items, dtype=torch.float64)
    for row, (chosen, _) in zip(shares, every, strict=True):
        for item in chosen:
            row[item] += 1
    return shares / n, [weight for _, weight in every]


def measured_probability(
    gallery: np.ndarray, pools: list[np.ndarray], label: int, n: int, with_replacement: bool
) -> Fraction:
    """Return the share of all queries that `measure_errors` would count."""
    centres, items, _, unit = to_gallery(gallery, pools)
    shares, weights = all_shares(len(items[label]), n, with_replacement)
    is_wrong = is_error(shares, items[label] / unit, centres / unit, label)
    return Fraction(sum(itertools.compress(weights, is_wrong.tolist())), sum(weights))


@st.composite
def offset_galleries(draw):
    """Galleries of any shape, some with a label or an item that is very far off."""
    gallery, pools = draw(galleries)
    gallery, pools = gallery.copy(), [pool.copy() for pool in pools]
    far = draw(st.sampled_from([0.0, 1e7, 1e14]))
    label = draw(st.integers(0, len(pools) - 1))
    if draw(st.booleans()):
        gallery[label] += far
        pools[label] += far
    else:
        pools[label][0] += far
    return gallery, pools


@given(offset_galleries(), st.integers(1, 3), st.booleans())
@STATEMENT
def test_what_is_measured_of_all_queries_is_never_above_a_bound(case, n, is_with):
    """Whatever rounding does to a tie: the certificate counts what the measurement does."""
    gallery, pools = case
    n = n if is_with else min(n, smallest_of(pools))
    found = certify_retrieval(gallery, pools, [n], with_replacement=is_with)
    for label, pool in enumerate(pools):
        measured = measured_probability(gallery, pools, label, n, is_with)
        # A tie stays an error, however far its items are from the first label.
        assert measured >= probability_of_error(gallery, pool, label, n, is_with)["any"]
        for bound in (found.triangle, found.half_space, found.chernoff):
            assert measured <= float(bound[label, 0]) * (1 + 1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e9])
@pytest.mark.parametrize("num_items", [1, 4])
def test_what_is_measured_within_rounding_of_a_plane_is_what_the_certificate_counts(
    scale, num_items
):
    gallery, certain = scale * np.array([[1.0], [-1.0]]), []
    for distance in 1e-15 * np.arange(-10, 300):
        pools = [np.full((num_items, 1), sign * scale * distance) for sign in (1, -1)]
        bound = float(certify_retrieval(gallery, pools, [1]).bound[0, 0])
        measured = float(measured_probability(gallery, pools, 0, 1, False))
        assert measured in (0.0, 1.0)
        assert measured <= bound
        certain.append((measured, bound))
    assert certain[:11] == [(1.0, 1.0)] * 11  # on the plane or beyond it
    assert certain[-1] == (0.0, 0.0)
    assert (0.0, 1.0) in certain  # between the two allowances


@pytest.mark.parametrize("far", [1e6, 1e14, -1e14])
@pytest.mark.parametrize("is_with", [False, True])
def test_a_label_far_off_makes_no_errors_of_the_others(far, is_with):
    gallery, pools = [[0.0], [1.0], [far]], [[[0.3], [0.2]], [[1.0], [0.9]], [[far], [far]]]
    found = certify_retrieval(gallery, pools, [1, 2], with_replacement=is_with)
    generator = torch.Generator().manual_seed(0)
    errors = measure_errors(gallery, pools, [1, 2], generator=generator, with_replacement=is_with)
    assert found.bound.tolist() == [[0.0, 0.0]] * 3
    assert errors.num_errors.tolist() == [[0, 0]] * 3


def test_an_item_far_off_makes_no_errors_of_queries_without_it():
    gallery, pools = [[0.0], [1.0]], [[[0.3], [-1e14]], [[1.0], [0.9]]]
    generator = torch.Generator().manual_seed(0)
    errors = measure_errors(gallery, pools, [1], generator=generator)
    assert errors.num_errors.tolist() == [[0], [0]]


def test_only_r1_looks_at_all_distances_of_a_pool(monkeypatch):
    gallery, pools = draw_gallery("random", [30, 40, 50], 2, 3.0, 1)

    def refuse(points):
        raise AssertionError("a pool was measured")

    monkeypatch.setattr(cells_of, "measure_pool", refuse)
    found = certify_retrieval(gallery, pools, [2, 20])
    assert float(found.bound.min()) < 0.1
    assert found.smallest_size(1.0) == 2
    assert "tensor" in repr(found)
    for ask in (lambda: found.triangle, found.pairs):
        with pytest.raises(AssertionError, match="a pool was measured"):
            ask()
    monkeypatch.undo()
    cells = measure_cells(gallery, pools)
    assert torch.equal(found.triangle, triangle(cells, [2, 20]))
    assert found.cells.moments == tuple(measure_pool(pool) for pool in pools)


def one_plane(first: list[float], second: list[float]):
    pools = [np.array(first)[:, None], np.array(second)[:, None]]
    return measure_cells([[1.0], [-1.0]], pools)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([0.0, 0.0, 0.0], 1.0),  # ties
        ([-1.0, 0.5, 0.5], 1.0),  # mean on the plane
        ([-2.0, 1.0, 0.5], 1.0),  # mean beyond it
        ([0.5, 0.5, 0.5], 0.0),  # no width
    ],
)
@pytest.mark.parametrize("is_with", [False, True])
def test_degenerate_pools_have_known_errors(first, expected, is_with):
    cells = one_plane(first, [-1.0, -1.0, -1.0])
    for n in (1, 2, 3):
        bounds = [
            half_space(cells, n, with_replacement=is_with),
            triangle(cells, n, with_replacement=is_with),
            chernoff(cells, n),
        ]
        assert [bound.tolist() for bound in bounds] == [[[expected], [0.0]]] * 3


def test_the_whole_pool_is_no_error_if_its_mean_is_inside():
    cells = one_plane([-0.5, 1.0, 1.0], [-1.0, -1.0])
    assert float(half_space(cells, 2)[0, 0]) > 0
    found = certify_retrieval([[1.0], [-1.0]], [[[-0.5], [1.0], [1.0]]] * 2, [1, 3])
    assert found.half_space[0, 1] == found.triangle[0, 1] == 0
    assert found.half_space[1, 1] == found.triangle[1, 1] == 1


def test_r3_knows_that_items_all_inside_are_never_an_error():
    cells = one_plane([0.1, 5.0], [-5.0, 0.1])
    found = chernoff(cells, 1)[:, 0].tolist()
    assert found[0] == 0
    assert 0.5 <= found[1] < 1  # half of the items are beyond the plane


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e9])
def test_one_centroid_of_two_labels_is_always_an_error(offset, scale):
    generator = np.random.default_rng(0)
    gallery = scale * (np.array([[1.0, 2.0], [1.0, 2.0], [30.0, 2.0]]) + offset)
    pools = [x + scale * generator.normal(size=(8, 2)) for x in gallery]
    found = certify_retrieval(gallery, pools, [1, 4, 8])
    for bound in (found.triangle, found.half_space, found.chernoff):
        assert bound[:2].tolist() == [[1, 1, 1]] * 2
    assert found.bound[2].tolist() == [0, 0, 0]
    assert found.pairs()[:, :2, :2].tolist() == [[[True, False], [False, True]]] * 3
    errors = measure_errors(
        gallery, pools, [1, 4], num_queries=50, generator=torch.Generator().manual_seed(0)
    )
    assert errors.num_errors.tolist() == [[50, 50], [50, 50], [0, 0]]


@given(galleries, st.sampled_from([1e-6, 0.5, 3.0, 1e5]), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_bounds_ignore_scale_place_and_the_order_of_labels_and_items(case, scale, seed):
    gallery, pools = case
    generator = np.random.default_rng(seed)
    spread = max(np.ptp(np.concatenate([gallery, *pools]), axis=0).max(), 1e-300)
    turn, _ = np.linalg.qr(generator.normal(size=(gallery.shape[1],) * 2))
    sides = [y for k, pool in enumerate(pools) for y in planes(gallery, pool, k).values()]
    largest = np.abs(np.concatenate([gallery, *pools])).max()
    unsure = max(1e-6 * spread, 1e-12 * largest)
    if any(min(*np.abs(y), abs(y.mean()), np.ptp(y)) < unsure for y in sides):
        return  # where a bound jumps, rounding decides on which side it is
    cells = measure_cells(gallery, pools)
    labels = generator.permutation(len(pools))
    moved = [scale * (pools[label] @ turn + spread) for label in labels]
    moved = [generator.permutation(pool) for pool in moved]
    after = measure_cells(scale * (gallery[labels] @ turn + spread), moved)
    close = {"rtol": 1e-4, "atol": 1e-6}
    n = [1, smallest_of(pools)]
    for bound in (triangle, half_space):
        torch.testing.assert_close(bound(after, n), bound(cells, n)[labels], **close)
    torch.testing.assert_close(chernoff(after, 3), chernoff(cells, 3)[labels], **close)


@given(galleries)
@settings(max_examples=100, deadline=None)
def test_bounds_are_probabilities_and_fall_as_queries_grow(case):
    gallery, pools = case
    n = list(range(1, smallest_of(pools) + 1))
    for is_with in (False, True):
        found = certify_retrieval(gallery, pools, n, with_replacement=is_with)
        for bound in (found.triangle, found.half_space, found.chernoff):
            assert bool(((bound >= 0) & (bound <= 1)).all())
            assert bool((bound.diff(dim=1) <= 1e-9).all())
        pairs = found.pairs()
        assert bool((pairs[:-1] <= pairs[1:]).all())
        assert torch.equal(found.bound, torch.minimum(found.half_space, found.chernoff))
        assert torch.equal(found.delta, found.bound.amax(0))
    cells = measure_cells(gallery, pools)
    assert bool((cells.log_moment <= 0).all())
    assert bool((cells.width >= 0).all())


@given(galleries)
@settings(max_examples=100, deadline=None)
def test_drawing_without_replacement_never_bounds_worse(case):
    gallery, pools = case
    cells = measure_cells(gallery, pools)
    n = list(range(1, smallest_of(pools) + 1))
    for bound in (triangle, half_space):
        assert bool((bound(cells, n) <= bound(cells, n, with_replacement=True) + 1e-9).all())


def test_pairs_are_those_whose_gap_is_above_the_radius():
    gallery, pools = draw_gallery("random", [30, 40, 50], 2, 3.0, 1)
    found = certify_retrieval(gallery, pools, [2, 20])
    pairs = found.pairs(0.1)
    cells = measure_cells(gallery, pools)
    for column, n in enumerate((2, 20)):
        for label, pool in enumerate(pools):
            kept = bounded_differences(measure_pool(pool), n, delta=0.1)
            assert torch.equal(pairs[column, label], cells.gap[label] > kept)
    assert int(pairs[1].sum()) > 3


def test_the_smallest_size_is_the_first_that_will_do():
    gallery, pools = draw_gallery("random", [60, 60, 60], 4, 0.8, 2)
    found = certify_retrieval(gallery, pools, range(1, 61))
    for delta in (0.5, 0.05, 1e-4):
        n = found.smallest_size(delta)
        assert n is not None
        assert n > 1
        assert float(found.delta[n - 1]) <= delta < float(found.delta[n - 2])
    assert certify_retrieval(gallery, pools, [1, 2]).smallest_size(1e-9) is None
    backwards = certify_retrieval(gallery, pools, range(60, 0, -1))
    assert backwards.smallest_size(0.05) == found.smallest_size(0.05)


@pytest.mark.parametrize("is_with", [False, True])
@pytest.mark.parametrize("shape", ["random", "lattice"])
@pytest.mark.parametrize("at_once", [2**22, 300])
def test_measured_errors_are_those_of_all_queries(is_with, shape, at_once, monkeypatch):
    monkeypatch.setattr(calibration, "DRAWS_AT_ONCE", at_once)
    gallery, pools = draw_gallery(shape, [5, 7, 6], 2, 1.0, 4)
    generator = torch.Generator().manual_seed(0)
    found = measure_errors(
        gallery, pools, [1, 2, 4], generator=generator, num_queries=3000, with_replacement=is_with
    )
    lower, upper = found.limits(1 - 1e-4)
    for label, pool in enumerate(pools):
        for column, n in enumerate((1, 2, 4)):
            exact = probability_of_error(gallery, pool, label, n, is_with)["any"]
            assert float(lower[label, column]) <= exact <= float(upper[label, column])
    assert 0 < int(found.num_errors.sum()) < 3000 * 9


def test_measured_errors_repeat_with_the_generator():
    gallery, pools = draw_gallery("random", [9, 9], 2, 0.5, 4)
    counts = [
        measure_errors(gallery, pools, [3], generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(counts[0].num_errors, counts[1].num_errors)
    assert not torch.equal(counts[0].num_errors, counts[2].num_errors)


def test_of_several_centroids_of_a_label_the_first_stands_for_it_and_all_are_rivals_of_others():
    generator = np.random.default_rng(0)
    gallery, labels = generator.normal(size=(7, 3)), [1, 0, 2, 1, 0, 1, 2]
    itself = [labels.index(label) for label in range(3)]
    pools = [gallery[row] + generator.normal(size=(9, 3)) for row in itself]
    cells = measure_cells(gallery, pools, labels)
    drawn = torch.Generator().manual_seed(0)
    errors = measure_errors(gallery, pools, [2], generator=drawn, labels=labels)
    low, high = errors.limits(0.9999)
    own = {"gap": np.inf, "width": 0.0, "log_moment": -np.inf}
    for label in range(3):
        rivals = [row for row in range(7) if labels[row] != label]
        alone = [pools[label], *[np.ones((1, 3))] * len(rivals)]
        expected = measure_cells(gallery[[itself[label], *rivals]], alone)
        for name, constant in own.items():
            found = getattr(cells, name)[label]
            torch.testing.assert_close(found[rivals], getattr(expected, name)[0, 1:])
            assert {float(found[row]) for row in range(7) if row not in rivals} == {constant}
        means = [(x + y) / 2 for x, y in itertools.combinations(pools[label], 2)]
        apart = np.linalg.norm(gallery - np.array(means)[:, None], axis=2)
        rate = (apart[:, rivals].min(axis=1) <= apart[:, itself[label]]).mean()
        assert 0.05 < rate < 0.95
        assert low[label, 0] <= rate <= high[label, 0]
    certificate = certify_retrieval(gallery, pools, [2], labels=labels)
    torch.testing.assert_close(certificate.half_space, half_space(cells, 2))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_limits_are_those_of_clopper_and_pearson(confidence):
    counts = torch.tensor([0, 1, 17, 999, 1000])
    lower, upper = clopper_pearson(counts, 1000, confidence)
    for k, low, high in zip(counts.tolist(), lower.tolist(), upper.tolist(), strict=True):
        expected = binomtest(k, 1000).proportion_ci(confidence, method="exact")
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert (float(lower[0]), float(upper[-1])) == (0.0, 1.0)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return gallery and pools of half the digits, in 32 dimensions fitted on the other half."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    data, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    is_fitted = np.random.default_rng(0).random(len(labels)) < 0.5
    pca = decomposition.PCA(32, random_state=0).fit(data[is_fitted])
    points, held_out = pca.transform(data), np.flatnonzero(~is_fitted)
    generator = np.random.default_rng(7)
    gallery, pools, means = [], [], []
    for label in range(10):
        items = generator.permutation(held_out[labels[held_out] == label])
        gallery.append(points[items[:10]].mean(0))
        pools.append(points[items[10:]])
        means.append(points[items])
    return np.stack(gallery), pools, means


def test_digits_have_the_bounds_that_they_should(digits):
    gallery, pools, _ = digits
    found = certify_retrieval(gallery, pools, SIZES)
    expected = [1.0, 0.874, 0.645, 0.235, 0.023]
    assert found.half_space.mean(0).tolist() == pytest.approx(expected, abs=5e-4)
    grids = [
        np.mean([chernoff_grid(gallery, pools[label], label, n) for label in range(10)])
        for n in SIZES
    ]
    assert grids == pytest.approx([0.710, 0.182, 0.0496, 0.0029, 0.00002], abs=5e-4)
    means = found.chernoff.mean(0).tolist()
    assert means[1:] == pytest.approx(grids[1:], rel=5e-3, abs=5e-6)
    assert all(mean <= grid for mean, grid in zip(means, grids, strict=True))
    assert found.smallest_size(0.05) == 10


def test_digits_are_mistaken_less_often_than_bounded(digits):
    gallery, pools, _ = digits
    bounds = certify_retrieval(gallery, pools, SIZES)
    generator = torch.Generator().manual_seed(0)
    errors = measure_errors(gallery, pools, SIZES, num_queries=2000, generator=generator)
    lower, _ = errors.limits()
    for bound in (bounds.triangle, bounds.half_space, bounds.chernoff):
        assert bool((lower <= bound).all())
    rates = errors.num_errors.sum(0) / 20_000
    assert rates.tolist() == pytest.approx([0.138, 0.0215, 0.0052, 0.0002, 0], abs=4e-3)


@pytest.mark.parametrize(("n", "expected"), [(10, 0), (100, 0), (1000, 90), (10_000, 90)])
def test_digits_are_told_apart_by_the_triangle_inequality_only_in_large_collections(
    digits, n, expected
):
    _, _, items = digits
    radius = torch.stack(
        [
            bounded_differences(measure_pool(of), n, delta=0.05 / 11, with_replacement=True)
            for of in items
        ]
    )
    pairs = triangle_pairs(np.stack([of.mean(0) for of in items]), radius, radius)
    assert int(pairs.sum()) - 10 == expected


TWO = (np.array([[1.0, 0.0], [-1.0, 0.0]]), [np.ones((4, 2)), np.ones((5, 2))])


def draw(num_queries: int):
    generator = torch.Generator()
    return measure_errors(*TWO, [2], generator=generator, num_queries=num_queries)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_cells(TWO[0], TWO[1][:1]), "found shape .* 1 pools"),
        (lambda: measure_cells(TWO[0][:1], TWO[1][:1]), "two or more labels"),
        (lambda: measure_cells(*TWO, [0, 0]), r"Each of 2 pools .* of labels \[0\]"),
        (lambda: measure_cells(*TWO, [0]), "and 1 labels"),
        (lambda: measure_cells(TWO[0], [TWO[1][0], np.ones((3, 3))]), "Pool 1 must be"),
        (lambda: measure_cells(TWO[0], [TWO[1][0], np.full((3, 2), np.nan)]), "pool 1 holds NaN"),
        (lambda: measure_cells(TWO[0], [TWO[1][0], np.ones((0, 2))]), "pool 1 .* one item"),
        (lambda: measure_cells(np.ones((2, 2, 2)), TWO[1]), "labels, dimensions"),
        (lambda: certify_retrieval(*TWO, [1, 5]), "5 items .* pool of 4"),
        (lambda: certify_retrieval(*TWO, [0]), "at least 1"),
        (lambda: certify_retrieval(*TWO, []), "whole numbers"),
        (lambda: certify_retrieval(*TWO, [1]).pairs(1.0), "between 0 and 1"),
        (lambda: half_space(measure_cells(*TWO), 5), "5 items .* pool of 4"),
        (lambda: triangle(measure_cells(*TWO), 5), "5 items .* pool of 4"),
        (lambda: chernoff(measure_cells(*TWO), 0.5), "whole numbers"),
        (lambda: triangle_pairs(TWO[0], [1.0], [1.0, 1.0]), "one radius for each label"),
        (lambda: triangle_pairs([0.0], [1.0], [1.0]), "must be of shape"),
        (lambda: draw(0), "num_queries must be at least 1"),
        (lambda: clopper_pearson(torch.tensor([3]), 2), "counts from 0"),
        (lambda: clopper_pearson(torch.tensor([1]), 2, 1.0), "confidence"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_a_tie_is_an_error_of_the_reference_too():
    gallery, pool = np.array([[1.0], [-1.0]]), np.array([[1.0], [-1.0], [2.0]])
    assert probability_of_error(gallery, pool, 0, 2)["any"] == Fraction(1, 3)
    assert probability_of_error(gallery, pool, 0, 2, with_replacement=True)["any"] == Fraction(3, 9)
