"""Certificates of the distance of hulls: what is refused, and how well the solver does."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from setrep.bounds import HullCertificate, hull, hull_bounds, hull_distance, nearest_points
from setrep.errors import InputError
from tests.bound_cases import column

FIELDS = [field.name for field in fields(HullCertificate)]


def draw_pairs(*shape: int, size_a: int = 4, size_w: int = 6, dim: int = 5, seed: int = 0):
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(*shape, size_a, dim))
    return a, generator.normal(size=(*shape, size_w, dim)) + 2


def test_a_certificate_passes_its_own_check_and_is_proved_by_what_it_holds():
    a, w = draw_pairs(2, 3)
    found = hull_distance(a, w)
    checked = found.check(a, w)
    assert [getattr(checked, name).shape for name in FIELDS[:2]] == [(2, 3)] * 2
    torch.testing.assert_close(checked.lower, found.lower, rtol=1e-13, atol=0)
    torch.testing.assert_close(checked.upper, found.upper, rtol=1e-13, atol=0)
    lengths = found.direction.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    nearest_a = torch.einsum("...n,...nd->...d", found.weights_a, torch.from_numpy(a))
    nearest_w = torch.einsum("...n,...nd->...d", found.weights_w, torch.from_numpy(w))
    towards = found.lower.unsqueeze(-1) * found.direction
    torch.testing.assert_close(nearest_a - nearest_w, towards, rtol=0, atol=1e-12)


def test_a_certificate_kept_in_half_the_digits_still_proves_nearly_the_same():
    a, w = draw_pairs(20)
    found = hull_distance(a, w)
    kept = {name: getattr(found, name).float() for name in FIELDS[2:]}
    lower, upper = hull_bounds(a, w, kept["weights_a"], kept["weights_w"], kept["direction"])
    assert bool((lower <= found.upper).all())
    assert bool((upper >= found.lower).all())
    torch.testing.assert_close(lower, upper, rtol=1e-5, atol=0)


def tampered(found: HullCertificate, name: str, change: float) -> HullCertificate:
    values = getattr(found, name).clone()
    values.view(-1)[values.abs().argmax()] += change
    return replace(found, **{name: values})


TAMPERED = {
    "a lower bound too high": ("lower", 1e-9, "claim a distance"),
    "an upper bound too low": ("upper", -1e-9, "claim a distance"),
    "a lower bound of NaN": ("lower", torch.nan, "claim a distance"),
    "weights above 1 in sum": ("weights_a", 1e-3, "sum to 1"),
    "weights below 1 in sum": ("weights_w", -1e-3, "sum to 1"),
    "a weight of NaN": ("weights_w", torch.nan, "NaN"),
    "a longer direction": ("direction", 1.0, "length 1, or zero"),
    "an infinite direction": ("direction", torch.inf, "infinity"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_certificate_is_refused(case):
    name, change, message = TAMPERED[case]
    a, w = draw_pairs(3)
    wrong = tampered(hull_distance(a, w), name, change)
    with pytest.raises(InputError, match=message):
        wrong.check(a, w)


def test_a_negative_weight_is_refused_though_the_sum_is_1():
    with pytest.raises(InputError, match="weights_w must be at least 0"):
        hull_bounds([[0.0]], [[2.0], [3.0]], [1.0], [3.0, -2.0], [-1.0])


def test_a_certificate_that_claims_more_than_it_proves_is_refused():
    a, w = draw_pairs(3)
    found = hull_distance(a, w)
    even = torch.full_like(found.weights_a, 1 / found.weights_a.shape[-1])
    turned = found.direction.roll(1, dims=-1)
    for wrong in (
        replace(found, weights_a=even),
        replace(found, direction=turned),
        replace(found, direction=-found.direction),
        replace(found, direction=torch.zeros_like(turned)),
    ):
        with pytest.raises(InputError, match="3 of 3 pairs claim"):
            wrong.check(a, w)
    other = a.copy()
    other[1] += 0.01
    with pytest.raises(InputError, match="1 of 3 pairs claim"):
        found.check(other, w)


def test_a_claim_beyond_what_is_proved_by_a_rounding_passes():
    a, w = draw_pairs(3)
    found = hull_distance(a, w)
    infinite = torch.full_like(found.lower, torch.inf)
    wider = torch.nextafter(found.lower, infinite), torch.nextafter(found.upper, -infinite)
    replace(found, lower=wider[0], upper=wider[1]).check(a, w)


def test_a_certificate_that_claims_less_passes_and_is_returned_with_what_it_proves():
    a, w = draw_pairs(3)
    found = hull_distance(a, w)
    modest = replace(found, lower=found.lower / 2, upper=found.upper * 2)
    assert bool((modest.check(a, w).gap < 1e-12).all())


def test_a_certificate_of_other_pairs_is_refused():
    a, w = draw_pairs(3)
    found = hull_distance(a, w)
    with pytest.raises(InputError, match=r"weights_a must be of shape \(2, 4\)"):
        found.check(a[:2], w[:2])
    with pytest.raises(InputError, match=r"direction must be of shape \(3, 5\)"):
        hull_bounds(a, w, found.weights_a, found.weights_w, found.direction[:, :4])
    with pytest.raises(InputError, match=r"\(1,\) lower and \(3,\) upper bounds for \(3,\) pairs"):
        replace(found, lower=found.lower[:1]).check(a, w)


@pytest.mark.parametrize(
    ("a", "w", "message"),
    [
        ([[0.0, 1.0]], [[0.0]], "must agree in all but the number of items"),
        ([[[0.0]]], [[0.0]], "must agree in all but the number of items"),
        ([[0.0]], [[np.nan]], "w holds NaN"),
        (np.zeros((0, 3)), np.zeros((2, 3)), "at least one item"),
        ([["x"]], [[0.0]], "must hold real numbers"),
        ([0.0], [0.0], "must be of shape"),
    ],
)
def test_points_that_make_no_pair_are_refused(a, w, message):
    with pytest.raises(InputError, match=message):
        hull_distance(a, w)


def test_tensors_of_any_kind_and_lists_will_do():
    a, w = draw_pairs()
    half = torch.from_numpy(a).half().requires_grad_(), torch.from_numpy(w).half()
    found = hull_distance(*half)
    exact = hull_distance(*(x.detach().double().tolist() for x in half))
    assert found.lower.dtype == torch.float64
    assert not found.lower.requires_grad
    torch.testing.assert_close(found.lower, exact.lower, rtol=0, atol=0)


@pytest.mark.parametrize("at_once", [1, 150, 10**6])
def test_many_pairs_at_once_equal_each_by_itself(at_once, monkeypatch):
    monkeypatch.setattr(hull, "NUMBERS_AT_ONCE", at_once)
    a, w = draw_pairs(3, 4)
    w[0, :, 0] = a[0].mean(axis=-2)  # so that some hulls meet
    together = hull_distance(a, w)
    assert int((together.lower > 0).sum()) == 8
    assert not bool(together.direction[0].any())
    for i, j in np.ndindex(3, 4):
        alone = hull_distance(a[i, j], w[i, j])
        assert abs(float(alone.lower - together.lower[i, j])) < 1e-13
        assert abs(float(alone.upper - together.upper[i, j])) < 1e-13
        assert together.weights_a[i, j].shape == (4,)
        assert together.direction[i, j].shape == (5,)


@pytest.mark.parametrize(("n1", "n3"), [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("dim", [1, 7])
def test_points_that_are_all_one_are_at_no_distance(n1, n3, dim):
    found = hull_distance(np.full((n1, dim), 0.1), np.full((n3, dim), 0.1))
    assert float(found.lower) == float(found.upper) == 0
    assert not bool(found.direction.any())
    assert float(found.weights_a.sum()) == float(found.weights_w.sum()) == 1
    found.check(np.full((n1, dim), 0.1), np.full((n3, dim), 0.1))


def test_single_items_are_at_their_distance():
    found = hull_distance(column(1), column(-2))
    assert float(found.lower) <= 3 <= float(found.upper)
    assert float(found.gap) < 1e-13
    assert found.direction.tolist() == [1.0]


def repeated(generator: np.random.Generator, noise: float) -> list[np.ndarray]:
    a, w = generator.normal(size=(2, 100, 7, 10))
    both = [x[:, generator.integers(0, 7, 20)] for x in (a, w + 1)]
    return [x + noise * generator.normal(size=x.shape) for x in both]


def near(generator: np.random.Generator, distance: float) -> list[np.ndarray]:
    """Draw hulls on either side of a plane, many items at that distance from it."""
    turn, _ = np.linalg.qr(generator.normal(size=(20, 20)))
    a, w = generator.normal(size=(2, 100, 15, 20))
    for x, side in ((a, 1), (w, -1)):
        x[..., 0] = side * distance * (1 + (generator.random(x.shape[:-1]) < 0.3))
    return [a @ turn, w @ turn]


def clustered(generator: np.random.Generator, size: float) -> list[np.ndarray]:
    a, w = generator.normal(size=(2, 100, 10, 6))
    scales = size ** generator.integers(0, 2, size=(2, 100, 10, 1))
    return [a * scales[0], w * scales[1] + 0.5]


def graded(generator: np.random.Generator, ratio: float) -> list[np.ndarray]:
    a, w = generator.normal(size=(2, 100, 10, 12)) * ratio ** np.arange(12)
    return [a, w]


HARD = [
    *[(repeated, noise) for noise in (0, 1e-15, 1e-12, 1e-9, 1e-5)],
    *[(near, distance) for distance in (1e-3, 1e-6, 1e-9, 1e-12, 0)],
    *[(clustered, size) for size in (1e-3, 1e-8, 1e-14)],
    *[(graded, ratio) for ratio in (0.3, 0.1, 0.01)],
]


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize(
    ("draw", "size"), HARD, ids=[f"{draw.__name__}-{size:g}" for draw, size in HARD]
)
def test_the_solver_closes_the_gap_on_hard_hulls(draw, size, offset):
    a, w = draw(np.random.default_rng(0), size)
    a, w = a + offset, w + offset
    reach = torch.cdist(torch.from_numpy(a), torch.from_numpy(w)).amax((-2, -1))
    assert bool((hull_distance(a, w).gap <= 1e-11 * reach).all())


def test_large_collections_far_from_the_origin_are_solved():
    generator = np.random.default_rng(0)
    a, w = 1e4 + 7 * generator.normal(size=(2, 8, 20, 1408))
    found = hull_distance(a, w)
    assert bool((found.lower > 50).all())
    assert bool((found.gap <= 1e-11 * found.lower).all())
    a, w = generator.normal(size=(2, 1, 100, 300))
    assert float(hull_distance(a, w).gap) < 1e-11


@pytest.mark.parametrize("dim", [39, 8])  # in 8 dimensions the hulls meet
def test_the_solver_needs_few_steps(dim):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(200, 40, dim, dtype=torch.float64, generator=generator)
    full = nearest_points.nearest_points(points, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_points, "STEPS_PER_ITEM", 1)
        for found, expected in zip(nearest_points.nearest_points(points, 20), full, strict=True):
            assert torch.equal(found, expected)


def test_bounds_hold_however_early_the_solver_stops():
    a, w = draw_pairs(50, size_a=10, size_w=10)
    found = hull_distance(a, w)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_points, "STEPS_PER_ITEM", 0)
        early = hull_distance(a, w)
    assert bool((early.lower <= found.upper).all())
    assert bool((early.upper >= found.lower).all())
    assert bool((early.gap > 1e-3).any())
    early.check(a, w)
