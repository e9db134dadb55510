from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep import bounds
from setrep.errors import InputError
from tests import bound_references as reference
from tests.bound_cases import column, draw_triple, triples_of_points
from tests.test_bounds_upper import scale_of, squared_error

EVERY = (bounds.lb1, bounds.lb0, bounds.margin_hull, bounds.score_gap)
DISTANCES = EVERY[:3]
STATEMENT = settings(max_examples=200, deadline=None)


@given(triples_of_points)
@STATEMENT
def test_every_lower_bound_equals_its_formula(points):
    a, _, w = points
    triples, expected = bounds.measure(*points), reference.lower_bounds(a, w)
    for bound in DISTANCES:
        found = float(bound(triples).bound) ** 2
        exact = max(0.0, expected[bound.__name__])
        error = squared_error(points)
        assert found == pytest.approx(exact, rel=1e-9, abs=error), bound.__name__
    value, bound = reference.score_gap(*points)
    found = bounds.score_gap(triples)
    assert float(found.value) == pytest.approx(value, rel=1e-9, abs=squared_error(points))
    assert float(found.bound) == pytest.approx(bound, rel=1e-9, abs=squared_error(points))


@given(triples_of_points)
@STATEMENT
def test_t8_t9_t11_every_lower_bound_holds_and_they_are_in_order(points):
    a, _, w = points
    triples = bounds.measure(*points)
    for bound in EVERY:
        assert bool(bound(triples).holds), bound.__name__
    lb1, lb0, hull = (bound(triples) for bound in DISTANCES)
    assert bool(lb0.bound <= lb1.bound + lb1.tolerance)
    assert bool(hull.bound <= lb0.bound + lb0.tolerance + math.sqrt(squared_error(points)))
    means = reference.lower_bounds(a, w)["means"]
    assert means <= float(lb0.bound) ** 2 + 1e-9 * means + squared_error(points)
    gamma = max(0.0, -float(bounds.inter_class_margin(triples)))
    assert gamma <= float(hull.bound) + float(hull.tolerance)


@given(triples_of_points, st.integers(0, 2**32 - 1))
@STATEMENT
def test_t9_no_two_points_of_the_hulls_are_nearer(points, seed):
    a, b, w = points
    generator = np.random.default_rng(seed)
    for triple in ((a, b, w), (a, b, 50 + 5 * w)):
        triples = bounds.measure(*triple)
        x = generator.dirichlet(np.full(len(a), 0.3)) @ a
        y = generator.dirichlet(np.full(len(w), 0.3)) @ triple[2]
        found = bounds.margin_hull(triples)
        assert float(found.bound) <= math.dist(x, y) * (1 + 1e-9) + 1e-10 * scale_of(list(triple))


def separated(seed: int) -> list[np.ndarray]:
    """Draw collections of which many have all triplets satisfied."""
    generator = np.random.default_rng(seed)
    dim, sizes = int(generator.integers(2, 14)), generator.integers(1, 7, 3)
    spreads, apart = generator.uniform(0.2, 1.2, 3), generator.normal(size=dim)
    apart *= generator.uniform(0.5, 3) / np.linalg.norm(apart)
    a, b, w = (generator.normal(size=(size, dim)) for size in sizes)
    return [a * spreads[0], b * spreads[1] * 0.3 + 0.8 * apart, w * spreads[2] - apart]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=500, deadline=None)
def test_t11_with_all_triplets_satisfied_the_corrected_score_is_right(seed):
    a, b, w = points = separated(seed)
    triples = bounds.measure(*points)
    margin = float(bounds.one_sided_margin(triples))
    if margin < 0:
        found = bounds.score_gap(triples)
        mean = sum(reference.farthest(x, b) for x in a) / len(a)
        least = margin**2 - 2 * margin * mean
        assert 0 < least <= float(found.bound) + squared_error(points)
        assert float(found.value) > 0
        if least > reference.variance(w) - reference.variance(b):
            assert float(triples.distance_same) < float(triples.distance_other)


def test_many_separated_draws_have_satisfied_triplets():
    negative = [bounds.one_sided_margin(bounds.measure(*separated(seed))) < 0 for seed in range(99)]
    assert sum(map(bool, negative)) > 20


def test_one_sided_margins_give_no_lower_bound():
    # CE3: anchors in A alone are satisfied, and the centroids are one.
    angles = np.arange(3) * 2 * math.pi / 3
    a, w = np.zeros((3, 2)), np.stack([np.cos(angles), np.sin(angles)], axis=1)
    triples = bounds.measure(a, a, w)
    assert float(bounds.one_sided_margin(triples)) == pytest.approx(-1)
    assert float(triples.distance_other) == pytest.approx(0, abs=1e-12)
    for bound in DISTANCES:
        with pytest.raises(InputError, match=r"at least that of the collections, 0\.73"):
            bound(triples, margin=-1.0)
    assert all(bool(bound(triples).holds) for bound in EVERY)


def test_all_triplets_satisfied_and_centroids_still_rank_the_wrong_collection_first():
    # CE4: the corrected score is right where the plain distance of centroids is wrong.
    a = np.array([[-0.5, 0.72, 0], [-0.5, 0.72, 1e-3]])
    b = np.array([[0.5, 0.72, 0], [0.5, 0.72, 1e-3]])
    w = np.array([[0, 0, 0.5], [0, 0, -0.5]])
    both = np.concatenate([a, b])
    assert float(bounds.inter_class_margin(bounds.measure(both, both, w))) == pytest.approx(
        -0.0087, abs=1e-4
    )
    triples = bounds.measure(a, b, w)
    assert float(triples.distance_other) < float(triples.distance_same)
    found = bounds.score_gap(triples)
    assert float(found.value) > float(found.bound) > 0
    corrected = float(triples.distance_same) ** 2 + reference.variance(b)
    assert corrected == pytest.approx(1.0, abs=1e-3)


def test_two_simplices_leave_nothing_to_a_margin_above_zero():
    # T8 is sharp: orthogonal unit simplices about one centroid, at a small positive margin.
    size = 12
    corners = np.eye(2 * size) / math.sqrt(2)
    a, w = (x - x.mean(axis=0) for x in (corners[:size], corners[size:]))
    triples = bounds.measure(a, a, w)
    margin = float(bounds.inter_class_margin(triples))
    assert margin == pytest.approx(1 - math.sqrt(1 - 1 / size))
    assert float(triples.distance_other) == pytest.approx(0, abs=1e-12)
    expected = reference.lower_bounds(a, w)
    assert expected["lb0"] == pytest.approx(0, abs=1e-12)
    assert expected["lb1"] == pytest.approx(0, abs=1e-12)
    assert all(bool(bound(triples).holds) for bound in EVERY)


def test_single_items_attain_the_bounds():
    triples = bounds.measure(column(0), column(0), column(3))
    for bound in DISTANCES:
        assert float(bound(triples).bound) == pytest.approx(3, rel=1e-12)
        assert float(bound(triples).tightness) == pytest.approx(1)


@pytest.mark.parametrize("bound", DISTANCES, ids=lambda bound: bound.__name__)
@given(points=triples_of_points, exponent=st.integers(-450, 450))
@settings(max_examples=30, deadline=None)
def test_scaling_the_points_scales_every_lower_bound(bound, points, exponent):
    unit = 2.0**exponent
    before, after = bounds.measure(*points), bounds.measure(*(unit * x for x in points))
    torch.testing.assert_close(bound(after).bound, unit * bound(before).bound, rtol=1e-12, atol=0)
    assert bool(bound(after).holds)


@given(points=triples_of_points, exponent=st.integers(-200, 200))
@settings(max_examples=30, deadline=None)
def test_scaling_the_points_squares_into_the_gap_of_scores_and_its_tolerance(points, exponent):
    unit = 2.0**exponent
    before = bounds.score_gap(bounds.measure(*points))
    after = bounds.score_gap(bounds.measure(*(unit * x for x in points)))
    for name in ("value", "bound", "tolerance"):
        found, expected = getattr(after, name), unit**2 * getattr(before, name)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
def test_many_triples_at_once_equal_each_by_itself(bound):
    generator = np.random.default_rng(0)
    a, b, w = (generator.normal(size=(2, 3, size, 5)) for size in (4, 3, 6))
    w = w + np.array([0, 5, 30])[:, None, None]
    together = bound(bounds.measure(a, b, w))
    for i, j in np.ndindex(2, 3):
        alone = bound(bounds.measure(a[i, j], b[i, j], w[i, j]))
        torch.testing.assert_close(together.slack[i, j], alone.slack)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
def test_equal_points_give_zero_and_undefined_tightness(bound):
    found = bound(bounds.measure(*[np.full((size, 5), 0.1) for size in (3, 2, 4)]))
    assert float(found.value) == float(found.bound) == 0
    assert bool(found.holds)
    assert math.isnan(float(found.tightness))


def test_squares_that_leave_float64_are_refused():
    triples = bounds.measure(*(1e160 * x for x in draw_triple("random", 3, (2, 2, 2), 0)))
    with pytest.raises(InputError, match="have no squares in float64"):
        bounds.score_gap(triples)
