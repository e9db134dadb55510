from __future__ import annotations

import itertools
import math
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.bounds import losses
from setrep.bounds.loss_gaps import (
    Estimate,
    draw_counts,
    measure_biased_loss,
    measure_debiased_negatives,
    measure_debiased_positives,
    measure_published_debiased_positives,
)
from setrep.bounds.loss_limits import debiased_negatives_limits, debiased_positives_limits
from setrep.bounds.mixture_gaps import (
    mixture_biased_loss_gap,
    mixture_debiased_negatives_gap,
    mixture_debiased_positives_gap,
)
from setrep.bounds.mixtures import FiniteMixture
from setrep.errors import InputError
from tests.mixture_cases import Loops, draw_mixture, generic, mean, mixtures, small_mixtures

STATEMENT = settings(max_examples=200, deadline=None)
ERRORS = NormalDist().inv_cdf(1 - 1e-9)  # standard errors that a normal law exceeds so rarely
NEXT_ORDER = 20  # what the next term of a limit may be, over the number of samples
SIZES = (64, 256, 1024, 4096, 16384)
num_samples = st.sampled_from([1, 2, 4, 16, 64, 512, 10**4, 10**9])
seeds = st.integers(0, 2**31)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def poles(temperature: float = 1.0) -> FiniteMixture:
    """Two classes at opposite poles: the mean over negatives is at the floor."""
    return FiniteMixture.from_embeddings(
        [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], [0, 0, 1, 1], temperature
    )


def is_below(found: Estimate, bound: float) -> bool:
    rounding = 1e-11 * (1 + abs(found.value)) + 1e-9 * abs(bound)
    return found.value - ERRORS * found.standard_error <= bound + rounding


def is_about(found: Estimate, exact: float) -> bool:
    return abs(found.value - exact) <= ERRORS * found.standard_error + 1e-11 * (1 + abs(exact))


def slope(sizes, values) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def test_counts_are_those_of_a_multinomial_law():
    for categories, total in ((1, 4), (2, 3), (3, 2), (5, 3)):
        counts = draw_counts(categories, total, 20000, generator(categories))
        assert counts.shape == (20000, categories)
        seen = dict.fromkeys(itertools.product(range(total + 1), repeat=categories), 0)
        for row in counts.long().tolist():
            seen[tuple(row)] += 1
        for row, times in seen.items():
            chance = 0.0
            if sum(row) == total:
                ways = math.factorial(total) / math.prod(map(math.factorial, row))
                chance = ways / categories**total
            error = ERRORS * math.sqrt(20000 * chance * (1 - chance))
            assert abs(times - 20000 * chance) <= error, row


def test_counts_of_very_many_samples_have_the_right_moments():
    total, draws = 10**10, 20000
    counts = draw_counts(7, total, draws, generator())
    assert bool((counts.sum(1) == total).all())
    variance = total / 7 * (1 - 1 / 7)
    error = ERRORS * math.sqrt(variance / draws)
    assert float((counts.mean(0) - total / 7).abs().max()) <= error
    # The fourth moment of a normal law: the variance of squares is twice the squared variance.
    error = ERRORS * variance * math.sqrt(2 / draws)
    assert float(((counts - total / 7).square().mean(0) - variance).abs().max()) <= error


@given(small_mixtures, st.integers(1, 2), st.integers(1, 2), seeds)
@settings(max_examples=40, deadline=None)
def test_what_is_measured_is_the_mean_over_all_draws(mixture, n, m, seed):
    loops = Loops(mixture)
    draws = generator(seed)
    found = measure_debiased_negatives(mixture, n, m, 400, draws)
    gaps = loops.negatives_gaps(n, m)
    assert is_about(found.signed, mean(gaps))
    assert is_about(found.absolute, mean(map(abs, gaps)))
    for with_pair in (False, True):
        found = measure_debiased_positives(mixture, n, m, 400, draws, with_pair=with_pair)
        gaps = loops.positives_gaps(n, m, with_pair)
        assert is_about(found.signed, mean(gaps))
        assert is_about(found.absolute, mean(map(abs, gaps)))
    found = measure_published_debiased_positives(mixture, n, 400, draws)
    gaps = loops.published_positives_gaps(n)
    assert is_about(found.signed, mean(gaps))
    assert is_about(found.absolute, mean(map(abs, gaps)))
    ratios = zip(loops.means["positives"], loops.means["negatives"], strict=True)
    exact = mean(min(0.0, math.log(e_plus / e_minus)) for e_plus, e_minus in ratios)
    exact += loops.loss("negatives", n) - loops.loss("everyone", n)
    assert is_about(measure_biased_loss(mixture, n, 400, draws), exact)


@given(small_mixtures, st.integers(1, 3))
@STATEMENT
def test_the_biased_loss_keeps_to_l1_over_all_draws(mixture, n):
    loops = Loops(mixture)
    lacking = loops.biased_limit(n) - loops.loss("everyone", n)
    of_mixture = mixture_biased_loss_gap(mixture, n)
    assert -1e-11 <= lacking <= of_mixture * (1 + 1e-9) + 1e-11
    assert of_mixture <= losses.biased_loss_gap(mixture.temperature, n) * (1 + 1e-9)
    unbiased = loops.loss("negatives", n)
    limit = loops.unbiased_limit(n)
    assert limit - losses.biased_loss_gap(mixture.temperature, n) <= unbiased <= limit + 1e-11
    ratios = zip(loops.means["positives"], loops.means["negatives"], strict=True)
    floor = mean(min(0.0, math.log(e_plus / e_minus)) for e_plus, e_minus in ratios)
    assert unbiased + floor - loops.loss("everyone", n) <= of_mixture + 1e-11


def mean_loss(positives: list[float], negatives: list[float], n: int) -> float:
    """Return the loss of one anchor with n negatives, over all counts of each value."""
    (value, times), *rest = Counter(round(h, 12) for h in negatives).items()
    others = [(h, count / len(negatives)) for h, count in rest]
    total = []
    for counts in itertools.product(range(n + 1), repeat=len(others)):
        left = n - sum(counts)
        if left < 0:
            continue
        log_chance = math.lgamma(n + 1) - math.lgamma(left + 1)
        log_chance += left * math.log(times / len(negatives))
        h = left * value
        for count, (its_h, share) in zip(counts, others, strict=True):
            log_chance += count * math.log(share) - math.lgamma(count + 1)
            h += count * its_h
        total.append(math.exp(log_chance) * mean(math.log1p(h / of) for of in positives))
    return math.fsum(total)


@pytest.mark.parametrize(
    ("temperature", "num_far", "least"), [(2.0, 3, 0.36), (1.0, 7, 0.31), (0.5, 15, 0.18)]
)
def test_l1_of_one_anchor_is_above_a_share_of_its_constant(temperature, num_far, least):
    """Positives at either end, negatives where they have the same mean and no deviation.

    The proof is for each anchor by itself, so L1 holds for one; here its left side is no less than
    the given share of the bound, and a constant smaller than that would be false.
    """
    h = (math.exp(1 / temperature) + num_far * math.exp(-1 / temperature)) / (1 + num_far)
    cosine = temperature * math.log(h)
    points = [[1.0, 0.0]] + num_far * [[-1.0, 0.0]]
    points += (1 + num_far) * [[cosine, math.sqrt(1 - cosine**2)]]
    labels = (1 + num_far) * [0] + (1 + num_far) * [1]
    loops = Loops(FiniteMixture.from_embeddings(points, labels, temperature))
    assert loops.means["positives"][0] == pytest.approx(loops.means["negatives"][0], rel=1e-12)
    shares = []
    for n in (1, 4, 16, 64):
        value = mean_loss(loops.positives(0), loops.negatives(0), n)
        value -= mean_loss(loops.positives(0), loops.everyone(0), n)
        shares.append(value / losses.biased_loss_gap(temperature, n))
    assert min(shares) > 0
    assert least <= max(shares) <= 1


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.2, 0.1, 0.07])
def test_l1_has_a_mixture_where_its_left_side_is_above_0(temperature):
    """Two triangles that make a regular hexagon: random mixtures never have it above 0."""
    turns = math.pi / 3 * np.array([0, 2, 4, 1, 3, 5])
    points = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    mixture = FiniteMixture.from_embeddings(points, [0, 0, 0, 1, 1, 1], temperature)
    loops = Loops(mixture)
    ratios = zip(loops.means["positives"], loops.means["negatives"], strict=True)
    exact = mean(min(0.0, math.log(e_plus / e_minus)) for e_plus, e_minus in ratios)
    exact += loops.loss("negatives", 1) - loops.loss("everyone", 1)
    of_mixture = mixture_biased_loss_gap(mixture, 1)
    assert 0 < exact <= of_mixture <= losses.biased_loss_gap(temperature, 1)
    if temperature < 0.25:
        assert exact > of_mixture / 250
    found = measure_biased_loss(mixture, 1, 20000, generator())
    assert is_about(found, exact)
    assert found.value > ERRORS * found.standard_error
    assert is_below(found, of_mixture)


@given(small_mixtures, st.integers(1, 2), st.integers(1, 2))
@STATEMENT
def test_debiased_negatives_keep_to_l3_over_all_draws_even_with_the_positive_itself(mixture, n, m):
    loops, tau = Loops(mixture), mixture.tau_plus
    for gaps, num_positives in (
        (loops.negatives_gaps(n, m), m),
        (loops.negatives_gaps_with_own_positive(n), 1),
    ):
        size = mean(map(abs, gaps))
        of_mixture = mixture_debiased_negatives_gap(mixture, n, num_positives)
        from_deviations = losses.debiased_negatives_gap(
            mixture.temperature,
            tau,
            n,
            num_positives,
            deviation=mixture.everyone.deviation,
            positive_deviation=mixture.positives.deviation,
        )
        uniform = losses.debiased_negatives_gap(mixture.temperature, tau, n, num_positives)
        rounding = 1e-9 * uniform
        assert size <= of_mixture + 1e-11
        assert of_mixture <= from_deviations + rounding
        assert from_deviations <= uniform + rounding


@given(mixtures, num_samples, num_samples, seeds)
@STATEMENT
def test_debiased_negatives_keep_to_l3(mixture, n, m, seed):
    found = measure_debiased_negatives(mixture, n, m, 60, generator(seed))
    t, tau = mixture.temperature, mixture.tau_plus
    deviations = (mixture.everyone.deviation, mixture.positives.deviation)
    from_deviations = losses.debiased_negatives_gap(
        t, tau, n, m, deviation=deviations[0], positive_deviation=deviations[1]
    )
    assert abs(found.signed.value) <= found.absolute.value
    assert is_below(found.absolute, mixture_debiased_negatives_gap(mixture, n, m))
    assert is_below(found.absolute, from_deviations)
    assert is_below(found.absolute, losses.debiased_negatives_gap(t, tau, n, m))
    if t >= 1:  # the constant of temperature 1 serves any higher one
        assert is_below(found.absolute, losses.published_debiased_negatives_gap(tau, n, m))


@given(mixtures, num_samples, num_samples, st.booleans(), seeds)
@STATEMENT
def test_debiased_positives_keep_to_l5_as_corrected(mixture, n, n_minus, with_pair, seed):
    t, tau = mixture.temperature, mixture.tau_plus
    found = measure_debiased_positives(
        mixture, n, n_minus, 60, generator(seed), with_pair=with_pair
    ).absolute
    from_deviations = losses.debiased_positives_gap(
        t,
        tau,
        n,
        n_minus,
        deviation=mixture.everyone.deviation,
        negative_deviation=mixture.negatives.deviation,
        with_pair=with_pair,
    )
    uniform = losses.debiased_positives_gap(t, tau, n, n_minus, with_pair=with_pair)
    assert is_below(found, from_deviations)
    assert from_deviations <= uniform * (1 + 1e-9)
    if not with_pair:
        of_mixture = mixture_debiased_positives_gap(mixture, n, n_minus)
        assert is_below(found, of_mixture)
        assert of_mixture <= from_deviations + 1e-9 * uniform


@given(mixtures, num_samples, seeds)
@STATEMENT
def test_the_biased_loss_keeps_to_l1(mixture, n, seed):
    found = measure_biased_loss(mixture, n, 60, generator(seed))
    assert is_below(found, losses.biased_loss_gap(mixture.temperature, n))
    assert is_below(found, mixture_biased_loss_gap(mixture, n))
    if mixture.temperature >= 1:
        assert is_below(found, losses.published_biased_loss_gap(n))


@given(small_mixtures, st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_debiased_positives_keep_to_l5_with_the_negatives_of_one_labelled_batch(mixture, n):
    """N' is then the number of items of other classes among the N, and 1/sqrt(N') its mean."""
    loops = Loops(mixture)
    sizes, inverse_roots = [], []
    for x in loops.points:
        e_plus, e_minus = loops.means["positives"][x], loops.means["negatives"][x]
        for drawn in itertools.product(loops.points, repeat=n):
            true = [loops.h[x][y] for y in drawn if loops.labels[y] != loops.labels[x]]
            if true:  # else there is nobody to tell apart: given that there is somebody
                p = mean(loops.h[x][y] for y in drawn)
                loss = loops.positives_loss(p, mean(true), len(true))
                sizes.append(abs(loss - math.log1p(len(true) * e_minus / e_plus)))
                inverse_roots.append(len(true) ** -0.5)
    share = len(sizes) / (len(loops.points) * len(loops.points) ** n)
    half = losses.half_range(mixture.temperature)
    bound = half / loops.tau_plus * (n**-0.5 + mean(inverse_roots) * share)
    assert mean(sizes) * share <= bound * (1 + 1e-9)


def test_the_mean_size_of_the_gap_falls_with_the_root_of_the_samples():
    """On a generic mixture, where the mean of the gap falls with the samples themselves."""
    mixture = generic(5, 4, 3, 1.5, 20240601)
    found = [measure_debiased_negatives(mixture, n, n, 6000, generator(n)) for n in SIZES]
    assert -0.55 <= slope(SIZES, [gap.absolute.value for gap in found]) <= -0.45
    limits = debiased_negatives_limits(mixture)
    last = found[-1].absolute
    error = ERRORS * last.standard_error * 128 + limits.absolute / 128
    assert last.value * 128 == pytest.approx(limits.absolute, abs=error)
    for n, gap in zip(SIZES[1:], found[1:], strict=True):
        error = ERRORS * gap.signed.standard_error * n + abs(limits.signed) * NEXT_ORDER / n
        assert n * gap.signed.value == pytest.approx(limits.signed, abs=error)
    early = [abs(gap.signed.value) for gap in found[:2]]
    assert slope(SIZES[:2], early) < -0.8


@pytest.mark.parametrize("ratio", [0.25, 1.0, 16.0])
def test_the_limits_of_debiased_negatives_count_the_positives(ratio):
    mixture, n = generic(3, 4, 3, 1.0, 4), 2**16
    found = measure_debiased_negatives(mixture, n, int(n / ratio), 4000, generator(1)).absolute
    expected = debiased_negatives_limits(mixture, ratio).absolute
    error = ERRORS * found.standard_error * math.sqrt(n) + expected / math.sqrt(n)
    assert found.value * math.sqrt(n) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_the_mean_size_of_the_gap_of_debiased_positives_falls_alike(ratio):
    mixture = generic(2, 4, 3, 1.0, 8)
    found = [
        measure_debiased_positives(mixture, n, int(n / ratio), 4000, generator(n)) for n in SIZES
    ]
    assert -0.55 <= slope(SIZES, [gap.absolute.value for gap in found]) <= -0.45
    limits = debiased_positives_limits(mixture, ratio)
    last = found[-1].absolute
    error = ERRORS * last.standard_error * 128 + limits.absolute / 128
    assert last.value * 128 == pytest.approx(limits.absolute, abs=error)
    gap = measure_debiased_positives(mixture, 512, int(512 / ratio), 200000, generator(7)).signed
    error = ERRORS * gap.standard_error * 512 + abs(limits.signed) * NEXT_ORDER / 512
    assert 512 * gap.value == pytest.approx(limits.signed, abs=error)


def test_at_the_floor_the_mean_gap_falls_with_the_root_only():
    mixture = poles()
    found = [measure_debiased_negatives(mixture, n, n, 20000, generator(n)) for n in SIZES]
    assert -0.55 <= slope(SIZES[2:], [gap.signed.value for gap in found[2:]]) <= -0.42
    limits = debiased_negatives_limits(mixture)
    assert limits.absolute == pytest.approx((math.e**2 - 1) / math.sqrt(2 * math.pi))
    assert limits.signed == math.inf
    gap = measure_debiased_negatives(mixture, 10**8, 10**8, 20000, generator()).absolute
    assert is_about(Estimate(gap.value * 1e4, gap.standard_error * 1e4), limits.absolute)
    assert found[-1].clamped_share == pytest.approx(0.5, abs=0.03)
    # The bound of the mixture is then within 1.26 of what is measured.
    assert mixture_debiased_negatives_gap(mixture, 10**8, 10**8) <= 1.26 * gap.value


def test_the_constant_of_temperature_1_does_not_become_one_of_every_temperature():
    """With e^{3/(2t)} for e^{3/2} the bound is false, and that of L3 is not."""
    t, n = 0.2, 10**10
    found = measure_debiased_negatives(poles(t), n, n, 20000, generator()).absolute
    naive = math.exp(1.5 / t - 1.5) * losses.published_debiased_negatives_gap(0.5, n, n)
    assert naive == pytest.approx(0.0680, abs=1e-4)
    assert found.value == pytest.approx(0.0779, abs=0.002)
    assert found.value - ERRORS * found.standard_error > naive
    assert is_below(found, losses.debiased_negatives_gap(t, 0.5, n, n))
    assert losses.debiased_negatives_gap(t, 0.5, n, n) == pytest.approx(0.330, abs=1e-3)


def test_the_published_theorem_of_debiased_positives_fails_and_the_corrected_one_does_not():
    mixture = generic(2, 4, 3, 4.0, 11)
    loops = Loops(mixture)
    pairs = zip(loops.means["positives"], loops.means["negatives"], strict=True)
    limit = abs(mean(math.log(e_plus / e_minus) for e_plus, e_minus in pairs))
    is_violated = []
    for n in (64, 1024, 16384, 262144):
        found = measure_published_debiased_positives(mixture, n, 400, generator(n)).signed
        size = Estimate(abs(found.value), found.standard_error)
        is_violated.append(
            size.value - ERRORS * size.standard_error
            > losses.published_debiased_positives_gap(0.5, n)
        )
        corrected = measure_debiased_positives(mixture, n, n, 400, generator(n)).absolute
        assert is_below(corrected, mixture_debiased_positives_gap(mixture, n, n))
    assert size.value == pytest.approx(limit, abs=1e-3)
    assert limit > 5 * losses.published_debiased_positives_gap(0.5, 262144)
    assert is_violated[-1]
    assert not is_violated[0]
    assert is_violated == sorted(is_violated)


@given(mixtures.filter(lambda mixture: mixture.temperature >= 0.2), seeds)
@settings(max_examples=60, deadline=None)
def test_the_published_loss_tends_to_log_of_n_whatever_the_embeddings(mixture, seed):
    n = 2**40
    found = measure_published_debiased_positives(mixture, n, 2, generator(seed)).signed
    expected = math.log(n + 1) - mixture.debiased_positives_limit(n)
    assert found.value == pytest.approx(expected, abs=1e-4)
    ratio = float((mixture.positives.log_mean - mixture.negatives.log_mean).mean())
    assert found.value == pytest.approx(ratio, abs=1e-4)


def test_the_cost_does_not_grow_with_the_number_of_samples_and_draws_repeat():
    mixture = draw_mixture("random", 3, 4, 5, 0, 0.5)
    first = measure_debiased_negatives(mixture, 10**12, 10**12, 100, generator(3))
    assert first == measure_debiased_negatives(mixture, 10**12, 10**12, 100, generator(3))
    assert first != measure_debiased_negatives(mixture, 10**12, 10**12, 100, generator(4))
    assert first.absolute.value < 1e-5


def test_draws_in_blocks_are_the_same(monkeypatch):
    mixture = draw_mixture("random", 3, 4, 5, 0, 0.5)

    def measured():
        return (
            measure_debiased_negatives(mixture, 30, 2, 50, generator()),
            measure_debiased_positives(mixture, 30, 20, 50, generator(), with_pair=True),
            measure_biased_loss(mixture, 30, 50, generator()),
        )

    whole = measured()
    monkeypatch.setattr("setrep.bounds.loss_gaps.NUMBERS_AT_ONCE", 7 * 12 * 4)
    for one, other in zip(whole, measured(), strict=True):
        for a, b in (
            ((one, other),)
            if isinstance(one, Estimate)
            else (
                (one.signed, other.signed),
                (one.absolute, other.absolute),
            )
        ):
            assert a.value == pytest.approx(b.value, rel=1e-12)
            assert a.standard_error == pytest.approx(b.standard_error, rel=1e-12)


@pytest.mark.parametrize("counts", [(0, 1, 10), (1, 0, 10), (1, 1, 1), (1, 1, 0), (2**60, 1, 9)])
def test_counts_out_of_range_are_refused(counts):
    mixture = poles()
    for measure in (measure_debiased_negatives, measure_debiased_positives):
        with pytest.raises(InputError, match=r"at least [12]"):
            measure(mixture, *counts, generator())
