from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep import bounds
from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from tests import bound_references as reference
from tests.bound_cases import column, draw_triple, triples_of_points
from tests.test_bounds_upper import scale_of, squared_error

STATEMENT = settings(max_examples=200, deadline=None)
seeds = st.integers(0, 2**32 - 1)
COORDINATEWISE = {"max": 1, "median": 1, "trimmed_mean": 1, "quantiles": 3, "gem": 1}


def embed(name: str, *collections: np.ndarray, **options) -> list[torch.Tensor]:
    """Embed collections by an aggregator of the package, in float64."""
    torch.manual_seed(0)
    aggregator = build_aggregator(name, collections[0].shape[1], **options).double()
    batch = CollectionBatch.from_list([torch.from_numpy(x) for x in collections])
    return list(aggregator(batch).detach())


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).norm()


def draw_weights(size: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng([seed, size])
    return generator.dirichlet(np.full(size, generator.choice([0.1, 1, 10])))


def weighted_variance(points: np.ndarray, weights: np.ndarray) -> float:
    centre = weights @ points
    return sum(p * math.dist(x, centre) ** 2 for p, x in zip(weights, points, strict=True))


@given(triples_of_points, seeds)
@STATEMENT
def test_a1_weighted_means_keep_to_their_bound_and_it_is_the_formula(points, seed):
    a, b, w = points
    alpha, beta = draw_weights(len(a), seed), draw_weights(len(b), seed + 1)
    found = bounds.weighted(bounds.measure(*points), alpha, beta)
    error = squared_error(points)
    assert bool(found.holds)
    assert float(found.value) == pytest.approx(
        math.dist(alpha @ a, beta @ b), rel=1e-9, abs=math.sqrt(error)
    )
    r = np.array(reference.radius(a, b, w))
    exact = alpha @ r**2 - weighted_variance(a, alpha) - weighted_variance(b, beta)
    assert float(found.bound) ** 2 == pytest.approx(max(0.0, exact), rel=1e-9, abs=error)
    assert float(found.bound) <= alpha @ r * (1 + 1e-9) + math.sqrt(error)


@given(triples_of_points)
@settings(max_examples=50, deadline=None)
def test_even_weights_give_the_bound_on_centroids(points):
    triples = bounds.measure(*points)
    even = [np.full(len(x), 1 / len(x)) for x in points[:2]]
    found, expected = bounds.weighted(triples, *even), bounds.q12(triples)
    close = {"rtol": 1e-9, "atol": 1e-7 * scale_of(points) + math.sqrt(squared_error(points))}
    torch.testing.assert_close(found.bound, expected.bound, **close)
    torch.testing.assert_close(found.value, expected.value, **close)


@given(triples_of_points, seeds)
@STATEMENT
def test_a2_uneven_weights_move_a_mean_by_their_variation(points, seed):
    a, b, _ = points
    alpha, beta = draw_weights(len(a), seed), draw_weights(len(b), seed + 1)
    found = bounds.total_variation(bounds.measure(*points), alpha, beta)
    assert bool(found.holds)
    offset = max(np.abs(x).max() for x in points)
    expected = math.dist(a.mean(axis=0), b.mean(axis=0))
    for x, p in ((a, alpha), (b, beta)):
        diameter = max(math.dist(y, z) for y in x for z in x)
        expected += sum(abs(q - 1 / len(x)) for q in p) / 2 * diameter
    close = {"rel": 1e-9, "abs": 1e-10 * scale_of(points) + 1e-15 * offset}
    assert float(found.bound) == pytest.approx(expected, **close)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8))
@STATEMENT
def test_a3_softmax_is_no_further_from_even_than_its_scores_allow(scores):
    weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
    variation = float((weights - 1 / len(scores)).abs().sum()) / 2
    assert variation <= bounds.softmax_variation(max(scores) - min(scores)) + 1e-12


@pytest.mark.parametrize("oscillation", [0.1, 1.0, 3.0, 8.0])
def test_a3_softmax_comes_as_near_as_one_likes(oscillation):
    num_high = round(10_000 / (1 + math.exp(oscillation / 2)))
    scores = torch.zeros(10_000, dtype=torch.float64)
    scores[:num_high] = oscillation
    variation = float((scores.softmax(0) - 1e-4).abs().sum()) / 2
    assert variation == pytest.approx(bounds.softmax_variation(oscillation), rel=1e-4)


@given(triples_of_points, seeds)
@STATEMENT
def test_a4_attention_keeps_to_the_bound_that_knows_no_weights(points, seed):
    a, b, _ = points
    triples, generator = bounds.measure(*points), np.random.default_rng(seed)
    kappa = generator.normal(size=a.shape[1]) / (scale_of(points) or 1.0)
    projection = generator.normal(size=(3, a.shape[1]))
    pooled = []
    for x in (a, b):
        scores = torch.from_numpy((x - a[0]) @ kappa)
        pooled.append(projection @ (scores.softmax(0).numpy() @ (x - a[0])))
    found = bounds.attention(
        triples,
        torch.tensor(math.dist(*pooled), dtype=torch.float64),
        score_lipschitz=float(np.linalg.norm(kappa)),
        value_norm=float(np.linalg.norm(projection, 2)),
    )
    assert bool(found.holds)
    both = np.concatenate([a, b])
    reach = np.linalg.norm(kappa) * max(math.dist(x, y) for x in both for y in both)
    mean = sum(reference.radius(*points)) / len(a)
    expected = math.exp(reach) * np.linalg.norm(projection, 2) * (1 + reach) * mean
    assert float(found.bound) == pytest.approx(expected, rel=1e-8, abs=1e-9 * scale_of(points))


@given(triples_of_points, seeds)
@STATEMENT
def test_t2c_every_convex_embedding_keeps_to_the_largest_radius(points, seed):
    a, b, w = points
    triples = bounds.measure(*points)
    alpha, beta = draw_weights(len(a), seed), draw_weights(len(b), seed + 1)
    value = torch.tensor(math.dist(alpha @ a, beta @ b), dtype=torch.float64)
    found, largest = bounds.convex(triples, value), bounds.convex(triples)
    assert bool(found.holds)
    assert bool(largest.holds)
    expected = max(reference.radius(a, b, w))
    close = {"rel": 1e-9, "abs": 1e-10 * scale_of(points)}
    assert float(found.bound) == pytest.approx(expected, **close)
    gamma = draw_weights(len(w), seed + 2)
    apart = torch.tensor(math.dist(alpha @ a, gamma @ w), dtype=torch.float64)
    between = bounds.hull_upper(triples, apart)
    assert bool(between.holds)
    largest_between = max(math.dist(x, v) for x in a for v in w)
    assert float(between.bound) == pytest.approx(largest_between, **close)


@given(triples_of_points)
@STATEMENT
def test_a8_the_geometric_median_keeps_to_the_bound_of_its_weights(points):
    a, b, _ = points
    torch.manual_seed(0)
    batch = CollectionBatch.from_list([torch.from_numpy(x) for x in (a, b)])
    median = build_aggregator("geometric_median", a.shape[1]).double()
    embeddings, weights = median(batch, return_weights=True)
    alpha, beta = weights[: len(a), 0], weights[len(a) :, 0]
    found = bounds.weighted(bounds.measure(*points), alpha, beta)
    value = distance(*embeddings)
    assert bool(found.holds)
    offset = max(np.abs(x).max() for x in points)
    assert float(found.value) == pytest.approx(
        float(value), rel=1e-6, abs=1e-6 * scale_of(points) + 1e-12 * offset
    )


@given(triples_of_points, st.sampled_from([1.0, 1.5, 2.0, 3.0, 6.0]))
@STATEMENT
def test_a7_generalised_means_keep_to_their_bound(points, power):
    scale = scale_of(points) or 1.0
    a, b, w = (np.abs(x - points[0][0]) / scale for x in points)
    found = bounds.gem(bounds.measure(a, b, w), power)
    means = [(x**power).mean(axis=0) ** (1 / power) for x in (a, b)]
    assert bool(found.holds)
    assert float(found.value) == pytest.approx(math.dist(*means), rel=1e-8, abs=1e-9)
    r = np.array(reference.radius(a, b, w)).clip(0)
    excess = max(0.0, 0.5 - 1 / power)
    expected = a.shape[1] ** excess * (r**power).mean() ** (1 / power)
    if len(a) == len(b) and power >= 2:
        expected = min(expected, len(a) ** excess * math.sqrt((r**2).mean()))
    assert float(found.bound) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", COORDINATEWISE)
@given(points=triples_of_points)
@settings(max_examples=60, deadline=None)
def test_a11_coordinatewise_embeddings_keep_to_their_bound(name, points):
    triples = bounds.measure(*(np.abs(x) for x in points))
    a, b = embed(name, *(np.abs(x) for x in points[:2]))
    found = bounds.coordinatewise(triples, distance(a, b), num_parts=COORDINATEWISE[name])
    assert bool(found.holds)
    expected = math.sqrt(COORDINATEWISE[name] * points[0].shape[1])
    expected *= max(reference.radius(*(np.abs(x) for x in points)))
    assert float(found.bound) == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale_of(points))


@given(triples_of_points)
@STATEMENT
def test_a12_mean_and_deviation_keep_to_their_bound(points):
    a, b = embed("mean_std", *points[:2])
    found = bounds.mean_std(bounds.measure(*points), distance(a, b))
    assert bool(found.holds)
    r = np.array(reference.radius(*points)).clip(0)
    expected = math.sqrt((r**2).mean())
    assert float(found.bound) == pytest.approx(expected, rel=1e-9, abs=1e-10 * scale_of(points))


@given(triples_of_points, seeds)
@STATEMENT
def test_a9_networks_of_mean_features_keep_to_their_bound(points, seed):
    generator = np.random.default_rng(seed)
    scale = scale_of(points) or 1.0
    points = [(x - points[0][0]) / scale for x in points]
    inner, outer = generator.normal(size=(6, points[0].shape[1])), generator.normal(size=(4, 6))
    linear = generator.normal(size=(4, points[0].shape[1]))
    features = [np.maximum(x @ inner.T, 0) for x in points]
    out = [
        linear @ x.mean(axis=0) + np.tanh(outer @ phi.mean(axis=0))
        for x, phi in zip(points, features, strict=True)
    ]
    found = bounds.deep_sets(
        bounds.measure(*features),
        torch.tensor(math.dist(*out[:2]), dtype=torch.float64),
        rho_lipschitz=float(np.linalg.norm(outer, 2)),
        items=bounds.measure(*points),
        linear_norm=float(np.linalg.norm(linear, 2)),
    )
    assert bool(found.holds)
    alone = bounds.q12(bounds.measure(*features)).bound * np.linalg.norm(outer, 2)
    both = alone + bounds.q12(bounds.measure(*points)).bound * np.linalg.norm(linear, 2)
    assert float(found.bound) == pytest.approx(float(both), rel=1e-9, abs=1e-9)


@given(triples_of_points)
@STATEMENT
def test_a10_directions_keep_to_their_bounds_above_and_below(points):
    centroids = [x.mean(axis=0) for x in points]
    if min(np.linalg.norm(c) for c in centroids) < 1e-5:
        return
    triples = bounds.measure(*points)
    found = bounds.normalized(bounds.q12(triples), *centroids[:2])
    assert bool(found.holds)
    lengths = [float(np.linalg.norm(c)) for c in centroids]
    identity = max(0.0, math.dist(*centroids[:2]) ** 2 - (lengths[0] - lengths[1]) ** 2)
    identity = math.sqrt(identity / lengths[0] / lengths[1])
    assert float(found.value) == pytest.approx(identity, rel=1e-6, abs=1e-5)
    expected = 2 * float(bounds.q12(triples).bound) / (lengths[0] + lengths[1])
    assert float(found.bound) == pytest.approx(expected, rel=1e-12)
    exact = bounds.LowerBound(triples.distance_other, triples.distance_other, triples.scale)
    for inner in (bounds.lb1(triples), bounds.margin_hull(triples), exact):
        lower = bounds.normalized_lower(inner, centroids[0], centroids[2])
        assert bool(lower.holds)
        squared = float(inner.bound) ** 2 - (lengths[0] - lengths[2]) ** 2
        squared = max(0.0, squared) / lengths[0] / lengths[2]
        assert float(lower.bound) ** 2 == pytest.approx(squared, rel=1e-6, abs=1e-9)


def test_a_direction_needs_a_length():
    triples = bounds.measure(column(-1, 1), column(1), column(3))
    with pytest.raises(InputError, match="too near to zero for a direction"):
        bounds.normalized(bounds.q12(triples), [0.0], [1.0])


def test_a_generalised_mean_leaves_the_hull():
    # CE5: so no bound on hulls is its bound.
    mean = embed("gem", np.eye(2), power=2.0)[0]
    assert float(mean.sum()) == pytest.approx(math.sqrt(2))  # the hull has sum 1 everywhere
    assert (float(mean.sum()) - 1) / math.sqrt(2) == pytest.approx(0.293, abs=1e-3)


def test_medians_have_no_bound_by_transport_that_fits_every_size():
    # CE6: the ratio of the distance of medians and of the transport is the size.
    for half in (1, 5, 20):
        a = column(*[0.0] * (half + 1), *[1.0] * half)
        b = column(*[0.0] * half, *[1.0] * (half + 1))
        moved = float(bounds.w1(bounds.measure(a, b, a)).bound)
        assert distance(*embed("median", a, b)) / moved == pytest.approx(2 * half + 1)


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([0.5, 0.5], "one for each item"),
        ([0.5, 0.5, 0.5], "sum to 1"),
        ([1.5, -0.5, 0.0], "at least 0"),
        ([math.nan, 0.5, 0.5], "NaN"),
    ],
)
def test_weights_that_are_none_are_refused(weights, problem):
    triples = bounds.measure(*draw_triple("random", 2, (3, 2, 2), 0))
    with pytest.raises(InputError, match=problem):
        bounds.weighted(triples, weights, [0.5, 0.5])
    with pytest.raises(InputError, match=problem):
        bounds.total_variation(triples, weights, [0.5, 0.5])


@pytest.mark.parametrize(("power", "shift"), [(0.5, 0), (math.inf, 0), (math.nan, 0), (3, -5)])
def test_generalised_means_without_a_bound_are_refused(power, shift):
    points = [np.abs(x) + shift for x in draw_triple("random", 2, (3, 2, 2), 0)]
    with pytest.raises(InputError, match="generalised mean takes"):
        bounds.gem(bounds.measure(*points), power)
