from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep import bounds
from setrep.errors import InputError
from tests.bound_cases import column, draw_triple, margin_over_all_triplets, triples_of_points

VECTORS = json.loads((Path(__file__).parent / "vectors" / "bounds.json").read_text())["triples"]
UPPER_BOUNDS = (bounds.karimov, bounds.margin_plus_max, bounds.chamfer)


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["case"])
def test_margins_and_bounds_agree_with_the_reference_values(row):
    triples = bounds.measure(row["a"], row["b"], row["w"])
    found = {
        "distance_same": triples.distance_same,
        "distance_other": triples.distance_other,
        "max_distance": triples.max_distance,
        "one_sided": bounds.one_sided_margin(triples),
        "symmetric": bounds.symmetric_margin(triples),
        "inter_class": bounds.inter_class_margin(triples),
        **{bound.__name__: bound(triples).bound for bound in UPPER_BOUNDS},
        "symmetric_chamfer": bounds.symmetric_chamfer(triples).bound,
        "w1": bounds.w1(triples).bound,
    }
    scale = float(triples.scale)
    for name, value in found.items():
        assert float(value) == pytest.approx(row[name], rel=1e-9, abs=1e-11 * scale), name
    squares = {
        "q1": (bounds.q1, row["q1"] ** 2),
        "q12": (bounds.q12, row["q12"] ** 2),
        "symmetric_bound": (bounds.symmetric, row["symmetric_bound"] ** 2),
        "lb1": (bounds.lb1, max(0.0, row["lb1_squared"])),
        "lb0": (bounds.lb0, max(0.0, row["lb0_squared"])),
    }
    for name, (bound, square) in squares.items():
        found_square = float(bound(triples).bound) ** 2
        assert found_square == pytest.approx(square, rel=1e-9, abs=1e-12 * scale**2), name
    hull = bounds.hull_distance(row["a"], row["w"])
    low, high = row["hull"]
    assert float(hull.lower) <= high + 1e-9 * scale
    assert low - 1e-9 * scale <= float(hull.upper) <= high + 1e-6 * scale


@given(triples_of_points)
@settings(max_examples=100, deadline=None)
def test_the_margin_is_the_largest_violation_over_all_triplets(points):
    a, b, w = points
    triples = bounds.measure(a, b, w)
    close = {"rel": 1e-9, "abs": 1e-9 * float(triples.scale)}
    forward, backward = margin_over_all_triplets(a, b, w), margin_over_all_triplets(b, a, w)
    assert float(bounds.one_sided_margin(triples)) == pytest.approx(forward, **close)
    assert float(bounds.symmetric_margin(triples)) == pytest.approx(max(forward, backward), **close)
    within = max(margin_over_all_triplets(a, a, w), margin_over_all_triplets(w, w, a))
    assert float(bounds.inter_class_margin(triples)) == pytest.approx(within, **close)


@given(triples_of_points)
@settings(max_examples=200, deadline=None)
def test_every_bound_holds_and_none_is_below_a_tighter_one(points):
    triples = bounds.measure(*points)
    chain = [bound(triples) for bound in (bounds.chamfer, bounds.margin_plus_max, bounds.karimov)]
    assert all(bool(bound.holds) for bound in chain)
    for tighter, looser in itertools.pairwise(chain):
        assert bool(tighter.bound <= looser.bound + looser.tolerance)


@given(triples_of_points, st.integers(-900, 900))
@settings(max_examples=100, deadline=None)
def test_scaling_the_points_scales_the_bounds(points, exponent):
    unit = 2.0**exponent
    before, after = bounds.measure(*points), bounds.measure(*(unit * x for x in points))
    for bound in UPPER_BOUNDS:
        torch.testing.assert_close(after.distance_same, unit * before.distance_same)
        torch.testing.assert_close(
            bound(after).bound, unit * bound(before).bound, rtol=1e-12, atol=0
        )
        assert bool(bound(after).holds)


@given(triples_of_points, st.integers(-1000, 1000))
@settings(max_examples=100, deadline=None)
def test_moving_the_points_does_not_move_the_bounds(points, offset):
    before, after = bounds.measure(*points), bounds.measure(*(x + offset for x in points))
    for bound in UPPER_BOUNDS:
        error = (bound(after).bound - bound(before).bound).abs()
        assert float(error) <= 1e-9 * max(1.0, float(before.scale))


def test_many_triples_at_once_equal_each_by_itself():
    generator = np.random.default_rng(0)
    a, b, w = (generator.normal(size=(2, 3, size, 5)) for size in (4, 2, 6))
    together = bounds.measure(a, b, w)
    for bound in UPPER_BOUNDS:
        assert bound(together).slack.shape == (2, 3)
        for i, j in np.ndindex(2, 3):
            alone = bounds.measure(a[i, j], b[i, j], w[i, j])
            torch.testing.assert_close(bound(together).slack[i, j], bound(alone).slack)


def test_margins_from_the_same_collection_make_the_theorem_false():
    # CE1: why the margin must cover cross-collection positives.
    a, b, w = column(0, 0.1), column(10, 10.1), column(2)
    triples = bounds.measure(a, b, w)
    within = max(margin_over_all_triplets(x, x, w) for x in (a, b))
    assert within == pytest.approx(-1.8)
    assert float(triples.distance_same) == pytest.approx(10)
    assert 2 * max(within, float(triples.max_distance)) < 10
    with pytest.raises(InputError, match="at least that of the collections"):
        bounds.karimov(triples, margin=within)
    assert bool(bounds.karimov(triples).holds)


def test_the_largest_distance_alone_does_not_bound_the_centroids():
    # CE2: a table of max d without the margin does not verify the theorem.
    triples = bounds.measure(column(0), column(100), column(1))
    assert float(triples.distance_same) == 100 > 2 * float(triples.max_distance) == 2
    assert float(bounds.one_sided_margin(triples)) == 99
    assert bool(bounds.karimov(triples).holds)


def test_a_margin_of_a_whole_label_may_replace_the_local_one():
    triples = bounds.measure(*draw_triple("random", 3, (4, 4, 4), seed=1))
    local = bounds.one_sided_margin(triples)
    for bound in UPPER_BOUNDS:
        torch.testing.assert_close(bound(triples, margin=local).bound, bound(triples).bound)
        assert float(bound(triples, margin=float(local) + 50).slack) > float(bound(triples).slack)


def test_the_theorem_is_attained():
    triples = bounds.measure(column(0), column(2), column(-1))
    for bound in UPPER_BOUNDS:
        assert float(bound(triples).slack) == 0
        assert float(bound(triples).tightness) == 1


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 + 0.1, -7e-13])
def test_equal_points_give_zero_and_undefined_tightness(size, value):
    points = np.full((size, 5), value)
    triples = bounds.measure(points, points, np.full((3, 5), value))
    for bound in UPPER_BOUNDS:
        result = bound(triples)
        assert float(result.value) == float(result.bound) == 0
        assert bool(result.holds)
        assert math.isnan(float(result.tightness))


def test_a_collection_far_from_the_origin_keeps_its_distances():
    generator = np.random.default_rng(3)
    points = [40 * generator.integers(-20, 20, size=(20, 64)) / 16 for _ in range(3)]
    near = bounds.measure(*points)
    far = bounds.measure(*(1e4 + x for x in points))
    for bound in UPPER_BOUNDS:
        torch.testing.assert_close(bound(far).bound, bound(near).bound, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_every_number_type_is_measured_in_float64(dtype):
    generator = torch.Generator().manual_seed(0)
    a, b, w = (torch.randint(-9, 9, (4, 3), generator=generator).to(dtype) for _ in range(3))
    triples = bounds.measure(a.requires_grad_() if a.is_floating_point() else a, b, w)
    expected = bounds.measure(a.detach().double(), b.double(), w.double())
    assert triples.a_b.dtype == torch.float64
    torch.testing.assert_close(bounds.chamfer(triples).bound, bounds.chamfer(expected).bound)


def test_read_only_arrays_and_nested_lists_are_accepted():
    a = column(0, 1)
    a.setflags(write=False)
    assert float(bounds.measure(a, [[2.0]], [[-1.0]]).distance_same) == 1.5


@pytest.mark.parametrize(
    ("name", "a", "w", "problem"),
    [
        ("no items", np.zeros((0, 2)), np.zeros((1, 2)), "a must be of shape"),
        ("no dimensions", np.zeros((1, 2)), np.zeros((1, 0)), "w must be of shape"),
        ("one axis", np.zeros(2), np.zeros((1, 2)), "a must be of shape"),
        ("NaN", np.full((1, 2), np.nan), np.zeros((1, 2)), "a holds NaN"),
        ("infinity", np.zeros((1, 2)), np.full((1, 2), -np.inf), "w holds NaN"),
        ("too large", np.zeros((1, 2)), np.full((1, 2), 1e301), "w holds NaN"),
        ("dimensions", np.zeros((1, 2)), np.zeros((1, 3)), "must agree"),
        ("leading axes", np.zeros((4, 1, 2)), np.zeros((1, 2)), "must agree"),
        ("complex", np.zeros((1, 2), dtype=complex), np.zeros((1, 2)), "real numbers"),
        ("complex tensor", torch.zeros(1, 2, dtype=torch.cfloat), np.zeros((1, 2)), "real numbers"),
        ("text", [["x", "y"]], np.zeros((1, 2)), "real numbers"),
        ("ragged", [[1.0, 2.0], [1.0]], np.zeros((1, 2)), "array of points"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_points_are_refused_in_one_line(name, a, w, problem):
    with pytest.raises(InputError, match=problem) as caught:
        bounds.measure(a, np.zeros((1, 2)), w)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "sign"), [(bounds.UpperBound, 1), (bounds.LowerBound, -1)])
@pytest.mark.parametrize(
    ("bound", "scale", "allowed"), [(3.0, 0.0, 3e-9), (-3.0, 0.0, 3e-9), (0.0, 5.0, 5e-11)]
)
def test_a_bound_is_violated_from_just_beyond_the_stated_tolerance(
    kind, sign, bound, scale, allowed
):
    bound, scale = (torch.tensor(x, dtype=torch.float64) for x in (bound, scale))
    for share, holds in ((0.0, True), (0.99, True), (1.01, False), (1e3, False)):
        found = kind(bound + sign * share * allowed, bound, scale)
        assert bool(found.holds) is holds, share


def test_an_infinite_bound_holds_from_above_and_never_from_below():
    one = torch.tensor(1.0, dtype=torch.float64)
    assert bool(bounds.UpperBound(one, torch.inf * one, one).holds)
    assert not bool(bounds.UpperBound(one, -torch.inf * one, one).holds)
    assert bool(bounds.LowerBound(one, -torch.inf * one, one).holds)
    assert not bool(bounds.LowerBound(one, torch.inf * one, one).holds)


def test_tightness_is_of_more_than_rounding_and_of_bounds_that_say_something():
    one = torch.tensor(1.0, dtype=torch.float64)
    assert float(bounds.UpperBound(one, 4 * one, one).tightness) == 0.25
    assert float(bounds.LowerBound(4 * one, one, one).tightness) == 0.25
    assert float(bounds.LowerBound(one, -one, one).tightness) == 0
    for kind in (bounds.UpperBound, bounds.LowerBound):
        assert math.isnan(kind(1e-10 * one, 1e-10 * one, one).tightness)
        assert float(kind(1e-8 * one, 1e-8 * one, one).tightness) == 1


def test_the_scale_is_the_largest_distance_between_any_two_of_the_collections():
    for order in itertools.permutations([[[0.0]], [[1.0]], [[-1.0]]]):
        assert float(bounds.measure(*order).scale) == 2
