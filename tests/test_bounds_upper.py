from __future__ import annotations

import itertools
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

CHAIN = (bounds.q12, bounds.q1, bounds.chamfer, bounds.margin_plus_max, bounds.karimov)
CHAIN_NAMES = ("q12", "q1", "chamfer")
LINEAR = (bounds.symmetric_chamfer, bounds.mean_distance, bounds.w1)
EVERY = (*CHAIN, *LINEAR, bounds.symmetric, bounds.mean_loss, bounds.batch_hard)
STATEMENT = settings(max_examples=200, deadline=None)
alphas = st.sampled_from([0.0, 0.3, -0.5, 2.0, 100.0])


def scale_of(points: list[np.ndarray]) -> float:
    """Return the largest distance of any two points, which rounding goes with."""
    every = np.concatenate(points)
    return max(math.dist(x, y) for x in every for y in every)


def squared_error(points: list[np.ndarray]) -> float:
    sizes = sum(len(x) for x in points)
    of_input = max(np.abs(x).max() for x in points) * np.finfo(float).eps
    return 1e-14 * (sizes + points[0].shape[1]) * scale_of(points) ** 2 + 100 * of_input**2


@given(triples_of_points)
@STATEMENT
def test_every_bound_equals_its_formula(points):
    triples, expected = bounds.measure(*points), reference.upper_bounds(*points)
    close = {"rel": 1e-9, "abs": 1e-10 * scale_of(points)}
    for name in ("karimov", "margin_plus_max", "chamfer", "mean_distance", "symmetric_chamfer"):
        found = getattr(bounds, name)(triples).bound
        assert float(found) == pytest.approx(expected[name], **close), name
    for name in ("q1", "q12", "symmetric"):
        found = float(getattr(bounds, name)(triples).bound) ** 2
        exact = max(0.0, expected[f"{name} squared"])
        assert found == pytest.approx(exact, rel=1e-9, abs=squared_error(points)), name


@given(triples_of_points, alphas)
@STATEMENT
def test_bounds_from_losses_equal_their_formulas(points, alpha):
    a, b, w = points
    triples = bounds.measure(*points)
    alpha *= scale_of(points)
    close = {"rel": 1e-9, "abs": 1e-10 * scale_of(points)}
    between = sum(math.dist(x, v) for x in a for v in w) / len(a) / len(w)
    expected = between - alpha + reference.mean_loss(a, b, w, alpha)
    assert float(bounds.mean_loss(triples, alpha).bound) == pytest.approx(expected, **close)
    nearest = sum(reference.nearest(x, w) for x in a) / len(a)
    expected = nearest - alpha + reference.batch_hard_loss(a, b, w, alpha)
    assert float(bounds.batch_hard(triples, alpha).bound) == pytest.approx(expected, **close)


@given(triples_of_points)
@settings(max_examples=100, deadline=None)
def test_w1_is_the_least_cost_of_all_plans(points):
    a, b, _ = points
    found = bounds.w1(bounds.measure(*points))
    close = {"rel": 1e-7, "abs": 1e-9 * scale_of(points)}
    assert float(found.bound) == pytest.approx(reference.transport(a, b), **close)


@given(triples_of_points)
@STATEMENT
def test_t1_t2_t3_every_bound_holds_and_the_chain_is_in_order(points):
    triples = bounds.measure(*points)
    for bound in EVERY:
        assert bool(bound(triples).holds), bound.__name__
    found = [bound(triples) for bound in CHAIN]
    for tighter, looser in itertools.pairwise(found):
        assert bool(tighter.bound <= looser.bound + looser.tolerance)


@given(triples_of_points)
@STATEMENT
def test_t2_the_linear_chain_is_in_order(points):
    a, b, w = points
    triples = bounds.measure(*points)
    margin = float(bounds.one_sided_margin(triples))
    chain = [
        float(triples.distance_same),
        float(bounds.w1(triples).bound),
        float(bounds.mean_distance(triples).bound),
        sum(reference.farthest(x, b) for x in a) / len(a),
        float(bounds.chamfer(triples).bound),
        margin + float(bounds.w1(bounds.measure(a, w, b)).bound),
        float(bounds.margin_plus_max(triples).bound),
    ]
    if len(a) == len(w):
        matched = sum(math.dist(x, v) for x, v in zip(a, w, strict=True)) / len(a)
        chain.insert(6, margin + matched)
    for smaller, larger in itertools.pairwise(chain):
        assert smaller <= larger + 1e-9 * abs(larger) + 1e-10 * scale_of(points)


@given(triples_of_points)
@STATEMENT
def test_t3_the_identity_of_huygens(points):
    a, b, _ = points
    triples = bounds.measure(*points)
    pairs = sum(math.dist(x, z) ** 2 for x in a for z in b) / len(a) / len(b)
    identity = pairs - reference.variance(a) - reference.variance(b)
    same = float(triples.distance_same) ** 2
    assert same == pytest.approx(identity, rel=1e-9, abs=squared_error(points))
    for name, x in (("spread_a", a), ("spread_b", b), ("spread_w", points[2])):
        squared = float(getattr(triples, name)) ** 2
        assert squared == pytest.approx(reference.variance(x), rel=1e-9, abs=squared_error(points))


@given(triples_of_points)
@STATEMENT
def test_t4_pairing_against_each_other_is_below_either_chamfer(points):
    a, b, w = points
    triples = bounds.measure(*points)
    margin = float(bounds.symmetric_margin(triples))
    chamfers = [sum(reference.nearest(x, w) for x in y) / len(y) for y in (a, b)]
    found = float(bounds.symmetric_chamfer(triples).bound)
    assert found <= margin + min(chamfers) + 1e-10 * scale_of(points)
    assert float(bounds.w1(triples).bound) <= found + 1e-9 * found + 1e-10 * scale_of(points)


@given(triples_of_points, st.integers(1, 4))
@STATEMENT
def test_t5_several_negative_collections_bound_no_looser_than_all_together(points, parts):
    a, b, w = points
    pieces = [piece for piece in np.array_split(w, parts) if len(piece)]
    found = bounds.multi_negative([bounds.measure(a, b, piece) for piece in pieces])
    together = bounds.q12(bounds.measure(a, b, w))
    assert bool(found.holds)
    assert bool(found.bound <= together.bound + together.tolerance + found.tolerance)
    radii = np.min([reference.radius(a, b, piece) for piece in pieces], axis=0)
    exact = float(np.mean(radii**2)) - reference.variance(a) - reference.variance(b)
    assert float(found.bound) ** 2 == pytest.approx(
        max(0.0, exact), rel=1e-9, abs=squared_error(points)
    )


@given(triples_of_points, alphas)
@STATEMENT
def test_t6_losses_bound_the_mean_distances(points, alpha):
    a, b, _ = points
    triples = bounds.measure(*points)
    alpha *= scale_of(points)
    rounding = 1e-9 * abs(alpha) + 1e-10 * scale_of(points)
    mean, hard = bounds.mean_loss(triples, alpha), bounds.batch_hard(triples, alpha)
    assert float(bounds.mean_distance(triples).bound) <= float(mean.bound) + rounding
    farthest = sum(reference.farthest(x, b) for x in a) / len(a)
    assert farthest <= float(hard.bound) + rounding
    assert float(triples.distance_same) <= min(float(mean.bound), float(hard.bound)) + rounding
    if alpha >= -float(bounds.one_sided_margin(triples)):
        assert float(hard.bound) <= float(bounds.chamfer(triples).bound) + rounding


@given(triples_of_points, st.integers(0, 2**32 - 1))
@STATEMENT
def test_t7_no_weights_of_the_balls_give_a_false_bound(points, seed):
    a, b, w = points
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(len(a), 0.5))
    r = np.array(reference.radius(a, b, w))
    centre = weights @ a
    spread = sum(p * math.dist(x, centre) ** 2 for p, x in zip(weights, a, strict=True))
    rest = weights @ r**2 - spread - reference.variance(b)
    bound = math.dist(a.mean(axis=0), centre) + math.sqrt(max(0.0, rest) + squared_error(points))
    assert float(bounds.measure(*points).distance_same) <= bound + 1e-10 * scale_of(points)


@pytest.mark.parametrize("dim", [2, 3])
def test_t2_sliced_transport_over_its_constant_lies_between(dim):
    generator = np.random.default_rng(dim)
    a, b = generator.normal(size=(4, 2)), generator.normal(size=(6, 2)) + 0.5
    if dim == 3:
        a, b = (np.concatenate([x, np.zeros((len(x), 1))], axis=1) for x in (a, b))
    beta = math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))
    angles = (np.arange(2000) + 0.5) * math.pi / 2000
    in_plane = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    of_angle = [
        reference.transport(a[:, :2] @ u[:, None], b[:, :2] @ u[:, None]) for u in in_plane[::20]
    ]
    # On the sphere a direction's share in the plane of the points has mean length pi / 4.
    sliced = float(np.mean(of_angle)) * (1 if dim == 2 else math.pi / 4)
    triples = bounds.measure(a, b, a)
    assert float(triples.distance_same) <= sliced / beta * (1 + 1e-3)
    assert sliced / beta <= float(bounds.w1(triples).bound) * (1 + 1e-3)


def test_q12_and_w1_are_incomparable():
    # CE7: either may be the tighter one.
    first = bounds.measure(column(0, 0), column(-1, 1), column(-1, 1))
    assert float(bounds.w1(first).bound) == 1
    assert float(bounds.q12(first).bound) == pytest.approx(0, abs=1e-6)
    second = bounds.measure(column(0, 1), column(0, 1), column(5))
    assert float(bounds.w1(second).bound) == 0
    assert float(bounds.q12(second).bound) == pytest.approx(math.sqrt(2))


def test_the_quadratic_bounds_are_attained_where_the_linear_one_is():
    triples = bounds.measure(column(0, 1, 2, 5), column(-4, -4, -4, -4), column(-3))
    for bound in (bounds.q12, bounds.q1, bounds.chamfer):
        assert float(bound(triples).bound) == pytest.approx(6, rel=1e-12)
        assert float(triples.distance_same) == 6


def test_a_loss_margin_far_above_the_distances_rounds_and_is_not_called_a_violation():
    for seed in range(50):
        apart = np.random.default_rng(seed).uniform(0.1, 1.0)
        triples = bounds.measure(column(0), column(apart), column(apart))  # attained at any margin
        for bound in (bounds.mean_loss, bounds.batch_hard):
            for alpha in (-1e7, 1e7, 1e12, 1e290):
                assert bool(bound(triples, alpha).holds), (bound, alpha)
            assert float(bound(triples, 1e290).bound) == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize(
    ("size", "dim", "far"), [(20, 1408, 1e3), (100, 128, 10.0), (500, 64, 1.0)]
)
def test_the_order_of_the_bounds_survives_many_items_where_they_are_equal(size, dim, far):
    a = np.zeros((size, dim))
    a[-1, 0] = 1.0
    w = np.zeros((1, dim))
    w[0, 0] = -far
    triples = bounds.measure(a, np.zeros((1, dim)), w)
    q12, q1, chamfer = (float(getattr(bounds, name)(triples).bound) for name in CHAIN_NAMES[:3])
    assert q12 <= q1 <= chamfer + 1e-12 * far
    assert chamfer == pytest.approx(1 / size, abs=1e-9 * far)


def near_zero(seed: int) -> list[np.ndarray]:
    """Return A on a sphere about the one item of B, its centroid barely off it: all attained."""
    generator = np.random.default_rng(seed)
    apart = 10.0 ** generator.uniform(-13, -6)
    around = math.sqrt(1 - apart**2)
    items = np.array([[apart, around, 0], [apart, -around, 0], [0, 0, 0], [0, 0, 1.5]])
    rotation = np.linalg.qr(generator.normal(size=(3, 3))).Q
    items = items @ rotation + generator.choice([0.0, 10.0])
    return [items[:2], items[2:3], items[3:]]


@pytest.mark.parametrize("name", ["q1", "q12", "symmetric", "weighted"])
def test_quadratic_bounds_hold_where_their_square_is_all_rounding(name):
    even = np.full((1, 2), 0.5), np.ones((1, 1))
    for seed in range(200):
        triples = bounds.measure(*(x[None] for x in near_zero(seed)))
        more = even if name == "weighted" else ()
        found = getattr(bounds, name)(triples, *more)
        assert bool(found.holds.all()), (seed, found)
        assert float(found.bound) < 1e-5


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
@given(points=triples_of_points, exponent=st.integers(-450, 450))
@settings(max_examples=30, deadline=None)
def test_scaling_the_points_scales_every_bound(bound, points, exponent):
    unit = 2.0**exponent
    before, after = bounds.measure(*points), bounds.measure(*(unit * x for x in points))
    torch.testing.assert_close(bound(after).bound, unit * bound(before).bound, rtol=1e-12, atol=0)
    assert bool(bound(after).holds)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
def test_many_triples_at_once_equal_each_by_itself(bound):
    generator = np.random.default_rng(0)
    a, b, w = (generator.normal(size=(2, 3, size, 5)) for size in (4, 3, 6))
    together = bound(bounds.measure(a, b, w))
    assert together.slack.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = bound(bounds.measure(a[i, j], b[i, j], w[i, j]))
        torch.testing.assert_close(together.slack[i, j], alone.slack)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 + 0.1, -7e-13])
def test_equal_points_give_zero_and_undefined_tightness(bound, value):
    points = [np.full((size, 5), value) for size in (3, 2, 4)]
    found = bound(bounds.measure(*points))
    assert float(found.value) == float(found.bound) == 0
    assert bool(found.holds)
    assert math.isnan(float(found.tightness))


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.__name__)
def test_a_large_offset_costs_no_precision(bound):
    generator = np.random.default_rng(3)
    points = [40 * generator.integers(-20, 20, size=(20, 64)) / 16 for _ in range(3)]
    near, far = bounds.measure(*points), bounds.measure(*(1e4 + x for x in points))
    torch.testing.assert_close(bound(far).bound, bound(near).bound, rtol=1e-11, atol=0)


def test_a_margin_of_a_whole_label_may_replace_the_local_one():
    triples = bounds.measure(*draw_triple("random", 3, (4, 4, 4), seed=1))
    for bound, local in (
        *((bound, bounds.one_sided_margin(triples)) for bound in CHAIN),
        (bounds.symmetric, bounds.symmetric_margin(triples)),
        (bounds.symmetric_chamfer, bounds.symmetric_margin(triples)),
    ):
        torch.testing.assert_close(bound(triples, margin=local).bound, bound(triples).bound)
        assert float(bound(triples, margin=float(local) + 50).slack) > float(bound(triples).slack)


def test_the_plan_of_w1_can_be_checked_without_the_solver():
    triples = bounds.measure(*draw_triple("random", 3, (4, 6, 2), seed=1))
    found = bounds.w1(triples)
    torch.testing.assert_close(bounds.transport_cost(triples, found.plan), found.bound)
    even = torch.full_like(found.plan, 1 / 24)
    cost = bounds.transport_cost(triples, even)
    torch.testing.assert_close(cost, bounds.mean_distance(triples).bound)
    for wrong in (found.plan * 0.9, -found.plan, found.plan * math.nan, found.plan[:, :5]):
        with pytest.raises(InputError, match="plan"):
            bounds.transport_cost(triples, wrong)


def test_several_negatives_must_share_the_first_two_collections():
    a, b, w = draw_triple("random", 3, (4, 4, 4), seed=1)
    with pytest.raises(InputError, match="the same A and B"):
        bounds.multi_negative([bounds.measure(a, b, w), bounds.measure(a, b + 1, w)])
    with pytest.raises(InputError, match="found none"):
        bounds.multi_negative([])
