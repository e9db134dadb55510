"""Aggregators without parameters equal slow loops written from their definitions."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import segments
from tests.aggregator_cases import DIM, batch_of, draw, same


def centroid(items: np.ndarray) -> np.ndarray:
    total = np.zeros(items.shape[1])
    for item in items:
        total += item
    return total / len(items)


def sum_(items: np.ndarray) -> np.ndarray:
    return centroid(items) * len(items)


def largest(items: np.ndarray) -> np.ndarray:
    return np.array([max(column) for column in items.T.tolist()])


def directional_mean(items: np.ndarray) -> np.ndarray:
    resultant = sum_(np.array([x / math.sqrt(sum(t * t for t in x)) for x in items]))
    return resultant / math.sqrt(sum(t * t for t in resultant))


def geometric_median(items: np.ndarray, steps: int = 10, smoothing: float = 1e-3) -> np.ndarray:
    point = centroid(items)
    spread = math.sqrt(sum(float((x - point) @ (x - point)) for x in items) / len(items))
    for _ in range(steps):
        distances = [math.sqrt(float((x - point) @ (x - point))) for x in items]
        weights = [1 / max(d, smoothing * spread, 1e-15) for d in distances]
        point = sum(w * x for w, x in zip(weights, items, strict=True)) / sum(weights)
    return point


def trimmed_mean(items: np.ndarray, trim: Fraction = Fraction(1, 10)) -> np.ndarray:
    """Copy every item so often that a whole number of copies is cut from each end."""
    cut = trim * len(items)
    copies = cut.denominator
    out = []
    for column in items.T.tolist():
        ordered = sorted(column * copies)
        drop = int(cut * copies)
        out.append(math.fsum(ordered[drop : len(ordered) - drop]) / (len(ordered) - 2 * drop))
    return np.array(out)


def median(items: np.ndarray) -> np.ndarray:
    out = []
    for column in items.T.tolist():
        ordered, half = sorted(column), len(column) // 2
        out.append((ordered[half] + ordered[-half - 1]) / 2)
    return np.array(out)


def quantiles(items: np.ndarray) -> np.ndarray:
    found = np.quantile(items, (0.25, 0.5, 0.75), axis=0, method="averaged_inverted_cdf")
    return found.reshape(-1)


def gem(items: np.ndarray, power: float = 3.0) -> np.ndarray:
    columns = items.T.tolist()
    means = [sum(max(x, 1e-6) ** power for x in column) / len(column) for column in columns]
    return np.array([mean ** (1 / power) for mean in means])


def mean_std(items: np.ndarray) -> np.ndarray:
    mean = centroid(items)
    variance = centroid(np.array([(x - mean) ** 2 for x in items]))
    return np.concatenate([mean, np.sqrt(variance)])


def concat(items: np.ndarray) -> np.ndarray:
    return np.concatenate([centroid(items), largest(items)])


REFERENCES = {
    "centroid": centroid,
    "sum": sum_,
    "max": largest,
    "directional_mean": directional_mean,
    "geometric_median": geometric_median,
    "trimmed_mean": trimmed_mean,
    "median": median,
    "quantiles": quantiles,
    "gem": gem,
    "mean_std": mean_std,
    "concat": concat,
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    at_a_time=st.sampled_from([1, 2**18]),
)
@settings(max_examples=20, deadline=None)
def test_an_aggregator_equals_its_loop(name, sizes, seed, at_a_time):
    collections = draw(sizes, seed)
    expected = np.stack([REFERENCES[name](items.numpy()) for items in collections])
    with patch.object(segments, "_CACHED_AT_A_TIME", at_a_time):
        found = build_aggregator(name, DIM)(batch_of(*collections))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("trim", [Fraction(0), Fraction(1, 3), Fraction(49, 100)])
def test_a_trimmed_mean_of_any_share_equals_its_loop(trim):
    collections = draw([1, 2, 3, 10, 31], seed=1)
    expected = np.stack([trimmed_mean(items.numpy(), trim) for items in collections])
    found = build_aggregator("trimmed_mean", DIM, trim=float(trim))(batch_of(*collections))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 7.3])
def test_a_generalised_mean_of_any_power_equals_its_loop(power):
    collections = [c.abs() for c in draw([1, 2, 30], seed=1)]
    expected = np.stack([gem(items.numpy(), power) for items in collections])
    found = build_aggregator("gem", DIM, power=power)(batch_of(*collections))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_high_power_in_float32_stays_finite_and_near_the_largest():
    values = torch.tensor([[1e-6, 1e4], [2e-6, 3e4], [-1.0, 2e4]], requires_grad=True)
    found = build_aggregator("gem", 2, power=200.0)(batch_of(values))
    found.sum().backward()
    torch.testing.assert_close(found, values.amax(dim=0, keepdim=True), rtol=0.01, atol=0)
    assert bool(values.grad.isfinite().all())
    assert values.grad[2, 0] == 0


def test_many_steps_reach_the_point_of_least_total_distance():
    for seed, items in enumerate(draw([3, 8, 15], seed=2)):
        x = items.numpy()
        best = minimize(
            lambda z, x=x: np.linalg.norm(x - z, axis=1).sum(), x.mean(axis=0), tol=1e-12
        )
        options = {"num_iterations": 500, "smoothing": 1e-6}
        found = build_aggregator("geometric_median", DIM, **options)(batch_of(items))[0]
        total = np.linalg.norm(x - found.numpy(), axis=1).sum()
        assert total <= best.fun * (1 + 1e-6), seed


def test_a_step_that_hits_an_item_goes_on():
    values = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    values.requires_grad_()
    assert not values.detach().mean(dim=0).any()  # the fourth item, which is not the median
    found = build_aggregator("geometric_median", 2, num_iterations=30)(batch_of(values))
    torch.testing.assert_close(found.detach(), torch.tensor([[-1.0, 0.0]]), atol=1e-2, rtol=0)
    found.sum().backward()
    assert bool(values.grad.isfinite().all())


def test_outliers_move_the_geometric_median_less_than_the_centroid():
    items = draw([40], seed=3)[0]
    spoilt = items.clone()
    spoilt[:8] += 50.0
    moved = {}
    for name in ("centroid", "geometric_median", "median", "trimmed_mean"):
        options = {"trim": 0.25} if name == "trimmed_mean" else {}
        before, after = build_aggregator(name, DIM, **options)(batch_of(items, spoilt))
        moved[name] = float((before - after).norm())
    robust = (moved["geometric_median"], moved["median"], moved["trimmed_mean"])
    assert max(robust) < 0.1 * moved["centroid"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_that_cancel_out_have_the_zero_vector_and_no_gradient(dtype):
    third = math.pi * 2 / 3
    angles = torch.tensor([0.0, third, 2 * third], dtype=dtype)
    values = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
    found = build_aggregator("directional_mean", 2)(batch_of(values))
    assert not found.any()
    found.sum().backward()
    assert not values.grad.any()


def test_an_item_that_is_zero_has_no_direction_and_no_gradient():
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = build_aggregator("directional_mean", 2)(batch_of(values))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]))
    found[0, 0].backward()
    assert not values.grad[1].any()
    assert bool(values.grad.isfinite().all())


def test_the_lengths_of_items_do_not_matter_to_their_mean_direction():
    items = draw([7], seed=4)[0]
    aggregator = build_aggregator("directional_mean", DIM)
    lengths = torch.arange(1, 8).double().unsqueeze(1)
    assert same(aggregator(batch_of(items * lengths)), aggregator(batch_of(items)))


@pytest.mark.parametrize(("name", "options"), [("median", {}), ("trimmed_mean", {"trim": 1 / 3})])
def test_coordinates_taken_apart_leave_the_hull_of_three_unit_vectors(name, options):
    found = build_aggregator(name, 3, **options)(batch_of(torch.eye(3)))
    torch.testing.assert_close(found, torch.zeros(1, 3))


def test_parts_may_be_any_aggregators_and_are_joined_in_their_order():
    batch = batch_of(*draw([2, 5], seed=5))
    names = ("max", "mean_std", "attention")
    found = build_aggregator("concat", DIM, parts=names).double()(batch)
    parts = [build_aggregator(name, DIM).double()(batch) for name in names]
    assert torch.equal(found, torch.cat(parts, dim=1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "geometric_median",
            {"num_iterations": 0},
            "num_iterations must be a whole number of at least 1",
        ),
        ("geometric_median", {"smoothing": 0.0}, "smoothing from 0"),
        ("trimmed_mean", {"trim": 0.5}, "not 0.5. The aggregator median"),
        ("trimmed_mean", {"trim": -0.1}, "not -0.1"),
        ("quantiles", {"quantiles": ()}, "one or more numbers from 0 to 1"),
        ("quantiles", {"quantiles": (0.5, 1.5)}, r"not \[0.5, 1.5\]"),
        ("quantiles", {"interpolation": "cubic"}, "not 'cubic'"),
        ("gem", {"power": 0.0}, "positive power, not 0.0"),
        ("gem", {"power": math.inf}, "The aggregator max"),
        ("concat", {"parts": ()}, "a list of names"),
        ("concat", {"parts": "max"}, "not 'max'"),
        ("concat", {"parts": ("maxx",)}, "Did you mean 'max'"),
    ],
)
def test_an_option_out_of_range_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        build_aggregator(name, DIM, **options)


def test_standard_deviations_far_from_the_origin_are_right():
    items = draw([50], seed=6)[0].float()
    found = build_aggregator("mean_std", DIM)(CollectionBatch(items + 1e3, torch.tensor([0, 50])))
    expected = items.double().std(dim=0, unbiased=False).float()
    torch.testing.assert_close(found[0, DIM:], expected, rtol=1e-3, atol=0)
