from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from setrep.bounds import losses
from setrep.bounds.empirical_losses import (
    add_pair,
    debiased_negatives_losses,
    debiased_positives_losses,
    grouped_positives,
)
from setrep.bounds.loss_bounds import is_kept, loss_bounds
from setrep.bounds.mixture_gaps import (
    limit_gap,
    log_gap,
    mixture_biased_loss_gap,
    mixture_debiased_negatives_gap,
    mixture_debiased_positives_gap,
)
from setrep.bounds.mixtures import FiniteMixture
from setrep.errors import InputError
from setrep.losses import DebiasedNegativesLoss, DebiasedPositivesLoss
from tests.mixture_cases import Loops, deviation, generic, mean, mixtures

STATEMENT = settings(max_examples=200, deadline=None)
temperatures = st.floats(0.01, 50)
counts = st.integers(1, 10**6)
priors = st.floats(0.001, 0.95)
SOFTPLUS = math.exp(-20)  # what it drops beyond its threshold
POLES = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]


def product_of_kappa(r: float, b: float) -> float:
    return (math.log(r) - 1 + 1 / r) * (b - r) / (r - 1)


def largest_product(temperature: float) -> float:
    """The maximum of L1, from a grid and a search about its best point."""
    b = math.exp(2 / temperature)
    log_r = np.linspace(0, 2 / temperature, 502)[1:-1].tolist()
    best = max(log_r, key=lambda x: product_of_kappa(math.exp(x), b))
    step = log_r[1] - log_r[0]
    found = minimize_scalar(
        lambda x: -product_of_kappa(math.exp(x), b),
        bounds=(max(best - step, step / 2), min(best + step, 2 / temperature)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return -found.fun


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(2, 0.177), (1, 1.051), (0.5, 11.14), (0.2, 4762), (0.1, 1.049e8), (0.07, 5.54e11)],
)
def test_kappa_has_the_known_values(temperature, expected):
    assert losses.kappa(temperature) == pytest.approx(expected, rel=3e-3)


@given(st.floats(0.003, 20))
@STATEMENT
def test_kappa_is_above_its_maximum_by_less_than_a_five_hundredth(temperature):
    exact = largest_product(temperature)
    assert exact <= losses.kappa(temperature) <= 1.002 * exact
    widest = math.expm1(2 / temperature)
    assert losses.kappa(temperature) / widest <= widest / 8 * (1 + 1e-9)
    # What it has to be for many negatives.
    assert losses.kappa(temperature) >= math.sinh(1 / temperature) ** 2 / 2


def test_the_remainder_is_its_integral_or_a_little_more():
    for z in (0.0, 1e-9, 1e-5, 9e-4, 1.1e-3, 0.1, 1.0, 50.0, 1e4):
        edges = 1 - np.geomspace(1e-9, 1, 4000)[::-1]  # closer together where it is steep
        steps = [(start, end) for start, end in itertools.pairwise(edges)] + [(edges[-1], 1.0)]
        integral = 0.0
        for start, end in steps:
            middle = (start + end) / 2
            for at, weight in ((start, 1), (middle, 4), (end, 1)):
                integral += weight * (end - start) / 6 * (1 - at) / (1 + z - at * z) ** 2
        found = float(losses.remainder(torch.tensor(z, dtype=torch.float64)))
        assert found == pytest.approx(z * integral, rel=2e-3 if z < 1e-3 else 1e-6)
        assert found >= z * integral * (1 - 1e-6)


def test_constants_beyond_float64_are_infinite_and_none_overflows():
    for temperature in (0.002, 1e-300):
        assert losses.kappa(temperature) == math.inf
        assert losses.biased_loss_gap(temperature, 7) == math.inf
        assert losses.debiased_negatives_gap(temperature, 0.0, 7, 7) == math.inf
        assert losses.debiased_negatives_gap(temperature, 0.1, 7, 7, deviation=0.0) == math.inf
        assert losses.debiased_positives_gap(temperature, 0.1, 7, 7, with_pair=True) == math.inf
    nothing = {"deviation": 0.0, "positive_deviation": [0.0, 0.0]}
    assert losses.debiased_negatives_gap(1e-300, 0.1, 7, 7, **nothing) == 0
    assert losses.asymptotic_gap(1e-300) == math.inf
    for temperature in (1e6, 1e200):
        assert 0 < losses.kappa(temperature) <= 0.5001 / temperature / temperature + 5e-324
    assert losses.kappa(1e6) == pytest.approx(0.5e-12, rel=1e-5)


@given(
    st.floats(0.2, 5),
    st.sampled_from([1, 2, 8, 64, 1024]),
    st.floats(1e-4, 1 - 1e-4),
    st.floats(0, 1),
)
@STATEMENT
def test_what_the_loss_lacks_to_its_limit_with_two_values_of_h_is_below_kappa(t, n, q, share):
    """J = E[log((h + N mu) / (h + sum u))], exact, for negatives at either end of their range."""
    low, high = math.exp(-1 / t), math.exp(1 / t)
    mu = q * high + (1 - q) * low
    lacking = {}
    for h in (0.0, share * high + (1 - share) * low):
        total = 0.0
        for k in range(n + 1):
            choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            chance = math.exp(choices + k * math.log(q) + (n - k) * math.log1p(-q))
            total += chance * math.log((h + n * mu) / (h + k * high + (n - k) * low))
        lacking[h] = total
    for value in lacking.values():
        assert value <= losses.biased_loss_gap(t, n) + 1e-10
        variance = q * (1 - q) * (high - low) ** 2
        assert value <= math.exp(2 / t) * variance / (2 * n) + 1e-10
        if t >= 1:  # the constant of temperature 1 serves any higher one
            assert value <= losses.published_biased_loss_gap(n)


def test_kappa_is_attained_within_a_factor_of_two():
    for t, factor in ((1.0, 1.6), (0.5, 1.75)):
        b, n = math.exp(2 / t), 4096
        mu = 2 * b / (b + 1)  # in units of the least h
        q = (mu - 1) / (b - 1)
        lacking = 0.0
        for k in range(n + 1):
            choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            chance = math.exp(choices + k * math.log(q) + (n - k) * math.log1p(-q))
            lacking += chance * math.log(mu / ((k * b + n - k) / n))
        assert losses.biased_loss_gap(t, n) <= factor * lacking


@given(temperatures, priors, counts, counts, st.lists(st.floats(0, 1), min_size=1, max_size=5))
@STATEMENT
def test_the_bounds_equal_their_formulas(t, tau, n, m, shares):
    low, high = math.exp(-1 / t), math.exp(1 / t)
    spread = [share * (high - low) / 2 for share in shares]
    half = (high - low) / 2
    found = losses.debiased_negatives_gap(t, tau, n, m)
    expected = high / (1 - tau) * (half / math.sqrt(n) + tau * half / math.sqrt(m))
    assert found == pytest.approx(expected, rel=1e-9)
    found = losses.debiased_negatives_gap(
        t, tau, n, m, deviation=spread, positive_deviation=np.array(spread[:1])
    )
    expected = mean(spread) / math.sqrt(n) + tau * spread[0] / math.sqrt(m)
    assert found == pytest.approx(high / (1 - tau) * expected, rel=1e-9, abs=1e-300)
    found = losses.debiased_positives_gap(t, tau, n, m)
    expected = high / tau * (half / math.sqrt(n) + half / math.sqrt(m))
    assert found == pytest.approx(expected, rel=1e-9)
    paired = losses.debiased_positives_gap(t, tau, n, m, with_pair=True)
    expected += high / tau * 2 * (high - low) / (n + 2)
    assert paired == pytest.approx(expected, rel=1e-9)
    found = losses.debiased_positives_gap(
        t, tau, n, m, deviation=torch.tensor(spread, dtype=torch.float64), negative_deviation=0.0
    )
    expected = high / tau * mean(spread) / math.sqrt(n)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert losses.biased_loss_gap(t, n) == losses.kappa(t) / n
    assert losses.asymptotic_gap(t) == pytest.approx(1 / (2 * t**2))


@given(priors, counts, counts)
@STATEMENT
def test_at_temperature_1_the_published_bounds_of_debiased_negatives_are_implied(tau, n, m):
    ratio = losses.debiased_negatives_gap(1, tau, n, m)
    ratio /= losses.published_debiased_negatives_gap(tau, n, m)
    assert ratio == pytest.approx((math.e**2 - 1) / 2 / (math.e**1.5 * math.sqrt(math.pi / 2)))
    expected = math.e**1.5 / (1 - tau) * math.sqrt(math.pi / 2) * (n**-0.5 + tau * m**-0.5)
    assert losses.published_debiased_negatives_gap(tau, n, m) == pytest.approx(expected)
    assert losses.biased_loss_gap(1, n) <= losses.published_biased_loss_gap(n)
    assert losses.published_biased_loss_gap(n) == pytest.approx(
        math.e**1.5 * math.sqrt(math.pi / (2 * n))
    )
    expected = (1 + (1 - tau) / tau) * math.sqrt(math.pi / (2 * n))
    expected += (1 + 1 / tau) * math.sqrt(math.pi / (2 * n + 2))
    assert losses.published_debiased_positives_gap(tau, n) == pytest.approx(math.e**1.5 * expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.kappa(0.0), "finite number above 0, not 0.0"),
        (lambda: losses.kappa(math.nan), "finite number above 0, not nan"),
        (lambda: losses.asymptotic_gap(-1.0), "finite number above 0"),
        (lambda: losses.biased_loss_gap(1, 0), "num_negatives must be a whole number"),
        (lambda: losses.biased_loss_gap(1, 2.5), "num_negatives must be .* found 2.5"),
        (lambda: losses.biased_loss_gap(1, True), "num_negatives must be a whole number"),
        (lambda: losses.debiased_negatives_gap(1, 1.0, 2, 2), "tau_plus must be a probability"),
        (lambda: losses.debiased_positives_gap(1, 0.0, 2, 2), "divide by tau_plus"),
        (lambda: losses.published_debiased_positives_gap(0.0, 2), "divide by tau_plus"),
        (
            lambda: losses.debiased_negatives_gap(1, 0.1, 2, 2, deviation=2.0),
            "deviation must hold standard deviations of h .* found a mean of 2",
        ),
        (
            lambda: losses.debiased_negatives_gap(1, 0.1, 2, 2, positive_deviation=[1.0, -0.5]),
            "positive_deviation must hold standard deviations",
        ),
        (
            lambda: losses.debiased_positives_gap(1, 0.1, 2, 2, negative_deviation=[]),
            "negative_deviation must hold standard deviations",
        ),
        (
            lambda: losses.debiased_positives_gap(1, 0.1, 2, 2, deviation=[math.nan]),
            "deviation holds NaN",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@given(mixtures, st.integers(1, 10**6))
@STATEMENT
def test_the_expectations_of_a_mixture_equal_their_sums(mixture, n):
    loops = Loops(mixture)
    for of in ("everyone", "positives", "negatives"):
        found, h = getattr(mixture, of), [getattr(loops, of)(x) for x in loops.points]
        np.testing.assert_allclose(found.mean, loops.means[of], rtol=1e-12)
        error = 1e-13 * max(map(max, h))
        exact = [deviation(of_x) for of_x in h]
        np.testing.assert_allclose(found.deviation, exact, rtol=1e-9, atol=error)
    e_p = mixture.tau_plus * mixture.positives.mean + (1 - mixture.tau_plus) * (
        mixture.negatives.mean
    )
    np.testing.assert_allclose(mixture.everyone.mean, e_p, rtol=1e-12)
    assert mixture.tau_plus == loops.tau_plus
    assert mixture.unbiased_limit(n) == pytest.approx(loops.unbiased_limit(n), rel=1e-10)
    assert mixture.biased_limit(n) == pytest.approx(loops.biased_limit(n), rel=1e-10)
    found = mixture.debiased_positives_limit(n)
    assert found == pytest.approx(loops.positives_limit(n), rel=1e-10)


@given(mixtures, st.integers(1, 10**6))
@STATEMENT
def test_the_limit_of_debiased_positives_is_below_that_of_the_unbiased_loss_by_little(mixture, n):
    loops, found = Loops(mixture), limit_gap(mixture, n)
    exact = loops.unbiased_limit(n) - loops.positives_limit(n)
    bound = loops.over_pairs(lambda x, h: math.log(loops.means["positives"][x] / h))
    rounding = 1e-11 * float(found.scale)
    assert float(found.value) == pytest.approx(exact, abs=rounding)
    assert float(found.bound) == pytest.approx(bound, abs=rounding)
    assert bool(found.holds)
    assert float(found.value) >= -rounding
    assert float(found.bound) <= losses.asymptotic_gap(mixture.temperature) + rounding
    if all(max(h) - min(h) <= 1e-12 * max(h) for h in map(loops.positives, loops.points)):
        assert float(found.value) == pytest.approx(0, abs=rounding)


def test_the_limits_of_the_unbiased_loss_and_of_debiased_positives_differ():
    found = [float(limit_gap(generic(3, 6, 3, 0.8, 1, t), 10**6).value) for t in (1.0, 0.1)]
    assert found[0] > 0.05
    assert found[1] > 2


@given(mixtures, st.integers(1, 10**6))
@STATEMENT
def test_the_bound_of_l1_from_the_mixture_equals_its_formula_and_is_below_kappa(mixture, n):
    loops, terms = Loops(mixture), []
    for x in loops.points:
        h = loops.everyone(x)
        least, spread = min(h), deviation(h)
        r = mean(h) / least
        if r - 1 < 1e-3:  # where it is bounded by a half
            terms.append(0.5 * (spread / least) ** 2)
        else:
            terms.append((math.log(r) - 1 + 1 / r) * (spread / least / (r - 1)) ** 2)
    found = mixture_biased_loss_gap(mixture, n)
    assert found == pytest.approx(mean(terms) / n, rel=1e-8, abs=1e-25)
    assert found <= losses.biased_loss_gap(mixture.temperature, n) * (1 + 1e-9)


@given(
    st.lists(st.floats(-30, 60), min_size=1, max_size=8),
    st.floats(1e-6, 1),
    st.floats(0, 3),
    st.floats(1e-9, 10),
)
@STATEMENT
def test_the_gap_of_a_logarithm_is_bounded_by_the_deviation(values, floor, excess, scale):
    """T(s, g) for X of any few values about a mean at or above the floor."""
    assume(abs(excess - losses.NEAR_ZERO) > 1e-9)  # rounding may decide between the two sides
    g = floor * (1 + excess)
    values = [g + scale * (value - mean(values)) for value in values]
    exact = mean(abs(math.log(max(value, floor) / g)) for value in values)
    s = deviation(values)
    of_s = torch.tensor([s], dtype=torch.float64).log()
    bound = float(log_gap(of_s, torch.tensor([g], dtype=torch.float64).log(), math.log(floor)))
    drift = abs(mean(values) - g) / floor  # rounding has moved the mean
    assert exact <= bound * (1 + 1e-9) + 2 * drift + 1e-12
    assert bound <= s / floor * (1 + 1e-9) + 1e-12
    if g / floor - 1 > 1e-3:
        assert bound == pytest.approx(slow_log_gap(s, g, floor), rel=1e-9, abs=1e-12)


def slow_log_gap(s: float, g: float, a: float) -> float:
    half, r = s / (2 * g), g / a
    below = [math.log(r), half, half + (s / a) ** 2 / 2]
    if r - 1 > 1e-3:
        below[1] = half * r * math.log(r) / (r - 1)
        below[2] = half + (math.log(r) - 1 + 1 / r) * (s / a / (r - 1)) ** 2
    return math.log1p(half) + min(below)


@given(mixtures, st.integers(1, 10**6), st.integers(1, 10**6))
@STATEMENT
def test_the_bounds_of_a_mixture_equal_their_formulas(mixture, n, m):
    loops, tau, a = Loops(mixture), mixture.tau_plus, math.exp(-1 / mixture.temperature)
    of_negatives, of_positives = [], []
    for x in loops.points:
        sigma_p, sigma_plus, sigma_minus = (
            deviation(h) for h in (loops.everyone(x), loops.positives(x), loops.negatives(x))
        )
        e_plus, e_minus = loops.means["positives"][x], loops.means["negatives"][x]
        s = (sigma_p / math.sqrt(n) + tau * sigma_plus / math.sqrt(m)) / (1 - tau)
        of_negatives.append(slow_log_gap(s, e_minus, a))
        s = (sigma_p / math.sqrt(n) + (1 - tau) * sigma_minus / math.sqrt(m)) / tau
        of_positives.append(
            slow_log_gap(s, e_plus, a) + slow_log_gap(sigma_minus / math.sqrt(m), e_minus, a)
        )
    found = mixture_debiased_negatives_gap(mixture, n, m)
    assert found == pytest.approx(mean(of_negatives), rel=1e-7, abs=1e-9)
    found = mixture_debiased_positives_gap(mixture, n, m)
    assert found == pytest.approx(mean(of_positives), rel=1e-7, abs=1e-9)


def cosines(num, seed):
    return np.random.default_rng(seed).uniform(-1, 1, num)


@given(
    st.sampled_from([0.1, 0.5, 1.0]),
    st.integers(2, 100),
    st.integers(1, 9),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
@STATEMENT
def test_grouping_positives_gives_no_more_than_combining_losses(t, n, m, share, seed):
    v, u = cosines(m, seed), cosines(n, seed + 1)
    tau = 2 / (n + 2) + share * (0.9 - 2 / (n + 2)) + 1e-12

    def loss(hv):
        h = [math.exp(x / t) for x in u]
        p, p_minus = (sum(h) + hv + math.exp(1 / t)) / (n + 2), mean(h)
        numerator = p - (1 - tau) * p_minus
        return -math.log(numerator / (p + (n * tau - (1 - tau)) * p_minus))

    found = grouped_positives(v, u, t, tau)
    single = [math.exp(x / t) for x in v]
    assert float(found.value) == pytest.approx(loss(mean(single)), rel=1e-8)
    assert float(found.bound) == pytest.approx(mean(loss(hv) for hv in single), rel=1e-8)
    assert bool(found.holds)


def test_grouping_equal_positives_changes_nothing_and_different_ones_do():
    others = cosines(20, 0)
    equal = grouped_positives([0.3, 0.3], others, 0.5, 0.1)
    assert float(equal.value) == pytest.approx(float(equal.bound), rel=1e-14)
    batch = grouped_positives(
        np.array([[0.9, -0.9], [0.1, 0.1]]), np.tile(others, (2, 1)), 0.5, 0.1
    )
    assert batch.value.shape == (2,)
    assert float(batch.slack[0]) > 1e-4
    assert batch.holds.tolist() == [True, True]


def test_grouping_is_refused_where_the_numerator_may_vanish():
    with pytest.raises(InputError, match=r"tau_plus of at least 0\.1667"):
        grouped_positives([0.3], cosines(10, 0), 0.5, 0.1)
    with pytest.raises(InputError, match="positives must hold cosines"):
        grouped_positives([1.5], cosines(10, 0), 0.5, 0.5)
    with pytest.raises(InputError, match="others must hold cosines"):
        grouped_positives([0.5], [], 0.5, 0.5)


POINTS = np.random.default_rng(5).normal(size=(15, 4)) + np.repeat(np.eye(4)[:3], 5, axis=0)
POINTS = torch.from_numpy(POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True))
LABELS = torch.arange(3).repeat_interleave(5)


def draw_batch(num_extra, seed):
    """Draw an anchor, positives of its class, and the rows of 7 other items in two views.

    The two rows of an item are of one class, as a batch has one label for both.
    """
    generator = torch.Generator().manual_seed(seed)
    x, *positives = torch.randint(5, (2 + num_extra,), generator=generator).tolist()
    classes = torch.randint(3, (7,), generator=generator)
    others = 5 * classes + torch.randint(5, (2, 7), generator=generator)
    return x, positives, others, torch.cat([torch.tensor([0]), classes])


def views_of(x, positives, others):
    """Views of 8 items, the first of which is x, then its positives. N = 14."""
    rows = [torch.cat([torch.tensor([x]), others[0]])]
    rows += [torch.cat([torch.tensor([v]), others[1]]) for v in positives]
    return [POINTS[of_view] for of_view in rows]


def log_mean(mixture, x, items):
    return mixture.logits[x, items].logsumexp(0) - math.log(len(items))


@given(st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_loss_of_debiased_negatives_is_the_one_that_the_bound_is_of(t, num_extra, seed):
    mixture = FiniteMixture.from_embeddings(POINTS, LABELS, t)
    x, (v, *extra), others, _ = draw_batch(num_extra, seed)
    expected = []
    for anchor, positive in ((x, v), (v, x)):  # the batch has both as anchors
        loss, _ = debiased_negatives_losses(
            mixture.logits[anchor, positive],
            log_mean(mixture, anchor, others.flatten()),
            log_mean(mixture, anchor, torch.tensor([positive, *extra])),
            14,
            mixture.tau_plus,
            t,
        )
        expected.append(float(loss))
    module = DebiasedNegativesLoss(t, tau_plus=mixture.tau_plus)
    found = module(*views_of(x, [v, *extra], others), anchors=torch.tensor([0]))
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(mean(expected), rel=1e-10, abs=SOFTPLUS)


@pytest.mark.parametrize("estimator", ["mean", "sum", "consistent"])
@given(t=st.sampled_from([0.1, 0.5, 1.0]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_loss_of_debiased_positives_is_the_one_that_the_bound_is_of(estimator, t, seed):
    mixture = FiniteMixture.from_embeddings(POINTS, LABELS, t)
    x, (v,), others, labels = draw_batch(0, seed)
    rows = others.flatten()
    negatives = rows[LABELS[rows] != 0] if estimator == "consistent" else rows
    if len(negatives) == 0:
        return
    expected = []
    for anchor, positive in ((x, v), (v, x)):
        log_p = log_mean(mixture, anchor, rows)
        log_p = add_pair(log_p, mixture.logits[anchor, positive], 14, t)
        if estimator == "sum":
            log_p = log_p + math.log(16 / 14)
        log_n = log_mean(mixture, anchor, negatives)
        loss, _ = debiased_positives_losses(log_p, log_n, len(negatives), mixture.tau_plus, t)
        expected.append(float(loss))
    module = DebiasedPositivesLoss(t, tau_plus=mixture.tau_plus, estimator=estimator)
    found = module(*views_of(x, [v], others), labels=labels, anchors=torch.tensor([0]))
    assert float(found) == pytest.approx(mean(expected), rel=1e-10, abs=SOFTPLUS)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.07])
def test_the_rows_of_a_report_are_plain_numbers_that_hold(temperature):
    mixture = generic(4, 5, 8, 1.0, 3, temperature)
    generator = torch.Generator().manual_seed(0)
    rows = loss_bounds(mixture, 62, 2, generator, num_draws=50)
    names = [row.name for row in rows]
    published = ["L1, as published", "L3, as published"]
    assert [name for name in names if name in published] == (published if temperature == 1 else [])
    assert [name for name in names if name not in published] == [
        *("L1", "L1, of this mixture"),
        *("L3", "L3, from deviations", "L3, of this mixture"),
        *("L4", "L4, of this mixture", "L4, from below"),
        *("L5", "L5, from deviations", "L5, of this mixture"),
    ]
    for row in rows:
        assert row.holds, row
        assert row.standard_error >= 0
        assert (row.num_negatives, row.temperature, row.tau_plus) == (62, temperature, 0.25)
        assert json.loads(json.dumps(asdict(row), allow_nan=False)) == asdict(row)
    bounds = {row.name: row.bound for row in rows}
    for statement in ("L3", "L5"):
        of_mixture = bounds[f"{statement}, of this mixture"]
        assert of_mixture <= bounds[f"{statement}, from deviations"] <= bounds[statement]
    assert bounds["L1, of this mixture"] <= bounds["L1"]
    again = loss_bounds(mixture, 62, 2, torch.Generator().manual_seed(0), num_draws=50)
    assert again == rows


def test_a_value_above_its_bound_by_more_than_errors_is_called_so():
    assert is_kept(1.0, 0.0, 1.0)
    assert is_kept(1.04, 0.01, 1.0)
    assert not is_kept(1.05, 0.01, 1.0)
    assert not is_kept(1.0 + 1e-6, 0.0, 1.0)
    assert not is_kept(math.nan, 0.0, 1.0)


@pytest.mark.parametrize(
    ("embeddings", "labels", "temperature", "message"),
    [
        (POLES, [0, 0, 1, 1], 0.0, "finite number above 0"),
        (POLES, [0, 0, 1, 1], 0.001, "use one of at least 0.0029"),
        (POLES, [0, 0, 0, 1], 1.0, "all of one size; found 2 of 1 to 3"),
        (POLES, [0, 0, 0, 0], 1.0, "two classes or more"),
        (POLES, [0, 1], 1.0, "need as many labels"),
        (POLES, [[0], [0], [1], [1]], 1.0, "need as many labels"),
        (np.full((4, 2), math.nan), [0, 0, 1, 1], 1.0, "holds NaN"),
        (2 * np.eye(4), [0, 0, 1, 1], 1.0, "norm 1, but one has 2"),
        (1e-12 * np.eye(4), [0, 0, 1, 1], 1.0, "norm 1, but one has 1e-12"),
        (1e4 + np.eye(4), [0, 0, 1, 1], 1.0, "norm 1"),
        (np.zeros((4, 2)), [0, 0, 1, 1], 1.0, "norm 1, but one has 0"),
        (np.zeros((0, 2)), [], 1.0, "at least one item"),
        (np.ones((2, 2, 1)), [0, 1], 1.0, "must be .points, dim."),
        ([["a"], ["b"]], [0, 1], 1.0, "real numbers"),
    ],
)
def test_embeddings_that_are_no_mixture_are_refused(embeddings, labels, temperature, message):
    with pytest.raises(InputError, match=message) as error:
        FiniteMixture.from_embeddings(embeddings, labels, temperature)
    assert "\n" not in str(error.value)


def test_a_mixture_does_not_depend_on_the_order_of_its_points_or_the_names_of_its_classes():
    order = torch.tensor([14, 0, 7, 3, 9, 1, 12, 5, 4, 10, 2, 13, 8, 6, 11])
    names = np.array(["ant", "bee", "cat"])[LABELS.numpy()]
    mixture = FiniteMixture.from_embeddings(POINTS, LABELS, 0.5)
    shuffled = FiniteMixture.from_embeddings(POINTS[order], names[order], 0.5)
    for i, j in itertools.product(range(15), repeat=2):
        cosine = sum(a * b for a, b in zip(*POINTS[[i, j]].tolist(), strict=True))
        assert float(mixture.logits[i, j]) == pytest.approx(cosine / 0.5, abs=1e-12)
    for of in ("everyone", "positives", "negatives"):
        found = getattr(shuffled, of).log_mean
        np.testing.assert_allclose(found, getattr(mixture, of).log_mean[order], atol=1e-12)
    assert shuffled.unbiased_limit(9) == pytest.approx(mixture.unbiased_limit(9), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_of_embeddings_is_divided_away(dtype):
    mixture = FiniteMixture.from_embeddings(POINTS.to(dtype), LABELS, 0.07)
    assert mixture.logits.dtype == torch.float64
    assert float(mixture.logits.amax()) == 1 / 0.07
    np.testing.assert_array_equal(mixture.logits.diagonal(), 1 / 0.07)
    exact = FiniteMixture.from_embeddings(POINTS, LABELS, 0.07)
    error = 4 * torch.finfo(dtype).eps / 0.07
    assert float((mixture.logits - exact.logits).abs().max()) < error
    longer = FiniteMixture.from_embeddings(1.005 * POINTS, LABELS, 0.07)
    np.testing.assert_allclose(longer.logits, exact.logits, atol=1e-12)


def test_equal_embeddings_have_no_deviation_and_no_gap():
    mixture = FiniteMixture.from_embeddings(np.tile([[0.6, 0.8]], (6, 1)), [0, 0, 1, 1, 2, 2], 0.05)
    for of in (mixture.everyone, mixture.positives, mixture.negatives):
        assert float(of.deviation.max()) <= 1e-12 * math.exp(20)
    rows = loss_bounds(mixture, 30, 1, torch.Generator().manual_seed(0), num_draws=10)
    assert all(row.holds for row in rows)
    assert max(abs(row.value) for row in rows) < 1e-9
