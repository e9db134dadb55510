from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.svm import SVC

from setrep import bounds
from setrep.bounds import HullCertificate, hull_bounds, hull_distance
from tests import exact_hulls
from tests.aggregator_cases import batch_of, build, draw, every_aggregator
from tests.bound_cases import SHAPES, column, draw_triple

STATEMENT = settings(max_examples=200, deadline=None)
EPSILON = np.finfo(float).eps


def draw_pair(shape: str, dim: int, sizes: tuple[int, int], seed: int) -> list[np.ndarray]:
    a, _, w = draw_triple(shape, dim, (sizes[0], 1, sizes[1]), seed)
    return [a, w]


def pairs_up_to(dim: int, size: int) -> st.SearchStrategy[list[np.ndarray]]:
    sizes = st.tuples(st.integers(1, size), st.integers(1, size))
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(draw_pair, st.sampled_from(SHAPES), st.integers(1, dim), sizes, seeds)


pairs = pairs_up_to(10, 7)
seeds = st.integers(0, 2**32 - 1)


def largest(*collections: np.ndarray) -> float:
    both = np.concatenate(collections) - collections[0][:1]
    unit = float(np.abs(both).max()) or 1.0
    return unit * float(np.linalg.norm(both / unit, axis=-1).max())


def is_between(found: HullCertificate, distance: float, scale: float) -> bool:
    return float(found.lower) - scale <= distance <= float(found.upper) + scale


@given(pairs_up_to(3, 3))
@STATEMENT
def test_t10_the_bounds_hold_in_rational_arithmetic_and_are_all_but_equal(points):
    found = hull_distance(*points)
    lower, upper = (Fraction(float(x)) for x in (found.lower, found.upper))
    assert lower**2 <= exact_hulls.squared_distance(*points) <= upper**2
    assert float(found.gap) <= 2e-14 * largest(*points)


@given(pairs_up_to(4, 5), seeds, st.booleans())
@STATEMENT
def test_t10_any_weights_and_direction_prove_what_they_say_in_rational_arithmetic(
    points, seed, is_aligned
):
    a, w = points
    generator = np.random.default_rng(seed)
    weights = [generator.dirichlet(np.full(len(x), 0.3)) for x in points]
    direction = generator.normal(size=a.shape[1])
    if is_aligned:
        direction = hull_distance(a, w).direction.numpy() + 1e-3 * direction
    # Lengths and sums of weights need not be 1 to the last digit.
    direction *= generator.uniform(1 - 9e-7, 1 + 9e-7) / np.linalg.norm(direction)
    weights = [p * generator.uniform(1 - 9e-7, 1 + 9e-7) for p in weights]
    lower, upper = (float(x) for x in hull_bounds(a, w, *weights, direction))
    (x, y), (u,) = (exact_hulls.exact(p) for p in points), exact_hulls.exact(direction[None])
    share = [[p / sum(q) for p in q] for q in exact_hulls.exact(np.array(weights, dtype=object))]
    apart = exact_hulls.minus(exact_hulls.mean(share[0], x), exact_hulls.mean(share[1], y))
    separation = min(exact_hulls.dot(u, p) for p in x) - max(exact_hulls.dot(u, p) for p in y)
    assert exact_hulls.dot(apart, apart) <= Fraction(upper) ** 2
    assert lower == 0 or Fraction(lower) ** 2 * exact_hulls.dot(u, u) <= separation**2
    assert lower == 0 or separation > 0
    lost = 4 * (a.shape[1] + len(a) + len(w) + 4) * EPSILON * largest(a, w)
    assert upper <= math.sqrt(exact_hulls.dot(apart, apart)) + lost
    assert lower >= float(separation) / np.linalg.norm(direction) - lost


@given(seeds)
@STATEMENT
def test_t10_the_bounds_hold_where_float64_has_few_digits_left(seed):
    generator = np.random.default_rng(seed)
    dim, n1, n3 = generator.integers([1, 1, 1], [4, 4, 4])
    a, w = generator.integers(-3, 4, (n1, dim)), generator.integers(-3, 4, (n3, dim)) + 2
    least = Fraction(5e-324)
    found = hull_distance(*(x * 5e-324 for x in (a, w)))
    lower, upper = (Fraction(float(x)) / least for x in (found.lower, found.upper))
    assert lower**2 <= exact_hulls.squared_distance(a, w) <= upper**2
    assert upper - lower <= 4


ROOT = math.sqrt(2)
KNOWN = {
    "points": ([[0, 0]], [[3, 4]], 5),
    "point and segment": ([[0, 0]], [[3, -1], [3, 1]], 3),
    "point and the end of a segment": ([[0, 0]], [[3, 4], [6, 8]], 5),
    "crossing segments": ([[-1, 0], [1, 0]], [[0, -1], [0, 1]], 0),
    "touching segments": ([[-1, 0], [1, 0]], [[0, 0], [0, 1]], 0),
    "parallel segments": ([[0, 0], [4, 0]], [[1, 2], [3, 2]], 2),
    "segments of one line": ([[0, 0], [1, 1]], [[3, 3], [2, 2]], ROOT),
    "triangles": ([[0, 0], [1, 0], [0, 1]], [[2, 2], [3, 2], [2, 3]], 1.5 * ROOT),
    "a point in a triangle": ([[0.25, 0.25]], [[0, 0], [1, 0], [0, 1]], 0),
    "a triangle in a triangle": ([[1, 1], [2, 1], [1, 2]], [[0, 0], [9, 0], [0, 9]], 0),
    "squares": ([[0, 0], [1, 0], [0, 1], [1, 1]], [[3, 0], [4, 0], [3, 1], [4, 1]], 2),
    "skew segments": ([[-1, 0, 0], [1, 0, 0]], [[0, -1, 3], [0, 1, 3]], 3),
    "intervals": ([[0], [1], [2]], [[7], [5]], 3),
    "overlapping intervals": ([[0], [2]], [[1], [5]], 0),
    "repeated items": ([[0, 0]] * 3, [[3, -1], [3, 1], [3, 1], [3, -1]], 3),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("unit", [1.0, 2.0**-1000, 1e-12, 1e9, 1e290])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_known_distances(name, unit, offset):
    a, w, distance = KNOWN[name]
    moved = [unit * (np.array(x, dtype=float) + offset) for x in (a, w)]
    found = hull_distance(*moved)
    scale = largest(*moved)
    assert is_between(found, unit * distance, 1e-11 * scale)
    assert float(found.gap) <= 2e-14 * scale
    assert (float(found.lower) > 0) == (distance > 0)
    if distance == 0:
        assert not bool(found.direction.any())


def distance_by_nnls(a: np.ndarray, w: np.ndarray) -> float:
    """Fit the differences of all pairs of items to nothing, with weights that are not negative."""
    differences = (a[:, None] - w[None]).reshape(-1, a.shape[1])
    scale = np.abs(differences).max() or 1.0
    system = np.vstack([differences.T / scale, np.ones(len(differences))])
    weights, _ = nnls(system, np.append(np.zeros(a.shape[1]), 1.0))
    return float(np.linalg.norm(weights / weights.sum() @ differences))


@given(pairs)
@STATEMENT
def test_the_distance_is_that_of_nonnegative_least_squares(points):
    found = hull_distance(*points)
    scale = 1e-9 * largest(*points)
    assert is_between(found, distance_by_nnls(*points), scale)
    assert float(found.gap) <= scale


@pytest.mark.parametrize("seed", range(10))
def test_the_distance_is_the_margin_of_a_support_vector_machine(seed):
    generator = np.random.default_rng(seed)
    dim, n1, n3 = generator.integers([3, 2, 2], [30, 20, 20])
    a, w = generator.normal(size=(n1, dim)), generator.normal(size=(n3, dim)) + 6 / math.sqrt(dim)
    labels = np.repeat([1, -1], [n1, n3])
    machine = SVC(kernel="linear", C=1e8, tol=1e-8).fit(np.concatenate([a, w]), labels)
    found = hull_distance(a, w)
    assert float(found.lower) > 0.1
    assert 2 / np.linalg.norm(machine.coef_) == pytest.approx(float(found.lower), rel=1e-5)


@given(pairs, seeds)
@STATEMENT
def test_t10_no_two_points_of_the_hulls_are_nearer(points, seed):
    a, w = points
    generator = np.random.default_rng(seed)
    found = hull_distance(a, w)
    farthest = max(math.dist(x, y) for x in a for y in w)
    for concentration in (0.05, 1.0):
        x, y = (generator.dirichlet(np.full(len(p), concentration)) for p in points)
        apart = float(np.linalg.norm(x @ (a - a[0]) - y @ (w - a[0])))
        scale = 1e-13 * largest(a, w)
        assert float(found.lower) - scale <= apart <= farthest + scale


@every_aggregator
@given(sizes=st.tuples(*[st.integers(1, 9)] * 2), seed=st.integers(0, 2**16), shift=seeds)
@settings(max_examples=10, deadline=None)
def test_t10_a_convex_aggregator_keeps_the_distance_of_the_hulls(name, options, sizes, seed, shift):
    aggregator = build(name, options, seed)
    if not aggregator.is_convex:
        return
    a, w = draw(list(sizes), seed)
    w = w + 2 * torch.randn(4, generator=torch.Generator().manual_seed(shift)).double()
    first, second = aggregator(batch_of(a, w)).detach()
    assert float(hull_distance(a, w).lower) <= float((first - second).norm()) + 1e-10


@given(pairs, seeds, st.integers(-300, 300), st.sampled_from([0.0, 1.0, 1e4]))
@STATEMENT
def test_moving_turning_scaling_and_swapping_leave_the_distance(points, seed, exponent, offset):
    a, w = points
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.normal(size=(a.shape[1], a.shape[1])))
    scale = largest(a, w)
    unit = 2.0**exponent
    found = hull_distance(a, w)
    same = {
        "moved": (hull_distance(a + offset * scale, w + offset * scale), 1.0, 1 + offset),
        "turned": (hull_distance((a - a[0]) @ turn, (w - a[0]) @ turn), 1.0, 1.0),
        "scaled": (hull_distance(unit * a, unit * w), unit, 0.0),
        "swapped": (hull_distance(w, a), 1.0, 1.0),
        "reordered": (hull_distance(a[::-1].copy(), w[::-1].copy()), 1.0, 1.0),
        "repeated": (hull_distance(np.concatenate([a, a]), w), 1.0, 1.0),
    }
    for name, (other, factor, inexact) in same.items():
        error = 1e-13 * inexact * scale
        assert abs(float(other.lower) / factor - float(found.lower)) <= error, name
        assert abs(float(other.upper) / factor - float(found.upper)) <= error, name


@given(pairs, seeds)
@STATEMENT
def test_an_item_inside_the_hull_changes_nothing_and_any_other_brings_it_no_farther(points, seed):
    a, w = points
    generator = np.random.default_rng(seed)
    before = hull_distance(a, w)
    inside = a[0] + generator.dirichlet(np.ones(len(a))) @ (a - a[0])
    scale = 1e-12 * largest(a, w)  # far from the origin coordinates have fewer digits
    after = hull_distance(np.concatenate([a, inside[None]]), w)
    assert abs(float(after.upper) - float(before.upper)) <= scale
    outside = a[0] + generator.normal(size=a.shape[1]) * largest(a, w)
    beyond = hull_distance(np.concatenate([a, outside[None]]), w)
    assert float(beyond.lower) <= float(before.upper)


@given(seeds)
@STATEMENT
def test_t9_a_negative_margin_parts_the_hulls(seed):
    generator = np.random.default_rng(seed)
    dim, n1, n3 = generator.integers([1, 1, 1], [12, 7, 7])
    apart = generator.normal(size=dim)
    apart *= generator.uniform(0, 8) / np.linalg.norm(apart)
    a, w = generator.normal(size=(n1, dim)), generator.normal(size=(n3, dim)) + apart
    triples = bounds.measure(a, a, w)
    of_a, of_w = (
        [max(math.dist(x, y) for y in points) for x in points] for points in (a, w)
    )  # D_i, D'_k
    margins = [far - min(math.dist(x, y) for y in w) for x, far in zip(a, of_a, strict=True)]
    margins += [far - min(math.dist(x, y) for x in a) for y, far in zip(w, of_w, strict=True)]
    gamma = max(0.0, -max(margins))
    least = math.sqrt(gamma**2 + gamma * (min(of_a) + min(of_w)))
    found = hull_distance(a, w)
    assert gamma <= least * (1 + 1e-12)
    assert least <= float(found.upper) * (1 + 1e-12)
    assert float(bounds.margin_hull(triples).bound) <= float(found.upper) * (1 + 1e-12)


def test_t9_is_attained_by_single_items():
    assert float(bounds.margin_hull(bounds.measure(column(0), column(0), column(3))).bound) == 3
    assert float(hull_distance(column(0), column(3)).lower) == pytest.approx(3, abs=1e-13)


def test_with_a_margin_above_zero_hulls_may_meet():
    size = 12
    corners = np.eye(2 * size)
    a, w = (x - x.mean(axis=0) for x in (corners[:size], corners[size:]))
    margin = float(bounds.inter_class_margin(bounds.measure(a, a, w)))
    assert 0 < margin < 0.1
    assert float(hull_distance(a, w).upper) < 1e-13
