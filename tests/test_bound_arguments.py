"""What bounds take beside the points: margins, constants, weights; and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from setrep import bounds
from setrep.errors import InputError
from tests.bound_cases import column, draw_triple
from tests.test_bounds_aggregators import draw_weights

OF_ONE_SIDE = ("karimov", "margin_plus_max", "chamfer", "q1", "q12", "convex", "gem")
OF_BOTH_SIDES = ("symmetric", "symmetric_chamfer", "lb1", "lb0", "margin_hull")


@pytest.mark.parametrize("margin", [-1e6, -8.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*OF_ONE_SIDE, *OF_BOTH_SIDES])
def test_a_margin_that_is_none_of_these_collections_is_refused(name, margin):
    triples = bounds.measure(column(0, 1), column(3, 4), column(10))
    with pytest.raises(InputError, match=r"opposite sign") as caught:
        getattr(bounds, name)(triples, margin=margin)
    assert "\n" not in str(caught.value)


def test_a_margin_that_rounding_put_below_the_local_one_is_taken():
    triples = bounds.measure(column(1, 2), column(1), column(1))
    below = bounds.one_sided_margin(triples) - 1e-12
    assert float(bounds.convex(triples, margin=below).bound) == pytest.approx(1)
    assert float(bounds.gem(triples, 3.0, margin=below).bound) > 0


@pytest.mark.parametrize("bound", [bounds.mean_loss, bounds.batch_hard])
@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_a_loss_margin_is_a_number(bound, alpha):
    with pytest.raises(InputError, match="loss_margin must be finite, not"):
        bound(bounds.measure(column(0), column(1), column(2)), alpha)


def test_several_negatives_have_a_margin_each():
    triples = bounds.measure(column(0), column(1), column(2))
    with pytest.raises(InputError, match="a margin for each of 2 W; found 1"):
        bounds.multi_negative([triples, triples], [5.0])


def test_constants_of_networks_are_numbers_of_at_least_0():
    triples = bounds.measure(column(0), column(1), column(3))
    value = triples.distance_same
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="score_lipschitz must be finite and at least 0"):
            bounds.attention(triples, value, score_lipschitz=wrong)
        with pytest.raises(InputError, match="value_norm"):
            bounds.attention(triples, value, score_lipschitz=1.0, value_norm=wrong)
        with pytest.raises(InputError, match="rho_lipschitz"):
            bounds.deep_sets(triples, value, rho_lipschitz=wrong)
        with pytest.raises(InputError, match="linear_norm"):
            bounds.deep_sets(triples, value, rho_lipschitz=1.0, linear_norm=wrong)
        with pytest.raises(InputError, match="oscillation"):
            bounds.softmax_variation(wrong)


def test_weights_of_half_precision_are_brought_to_sum_1():
    points = draw_triple("random", 3, (7, 5, 4), seed=2)
    alpha, beta = draw_weights(7, 0), draw_weights(5, 1)
    triples = bounds.measure(*points)
    halves = [p.astype(np.float16) for p in (alpha, beta)]
    exact = [p.astype(np.float64) / p.astype(np.float64).sum() for p in halves]
    assert abs(float(halves[0].astype(np.float64).sum()) - 1) > 1e-6
    for bound in (bounds.weighted, bounds.total_variation):
        found, expected = bound(triples, *halves), bound(triples, *exact)
        torch.testing.assert_close(found.bound, expected.bound, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e200])
def test_directions_are_the_same_at_every_scale(unit):
    points = [unit * x for x in draw_triple("random", 3, (4, 4, 4), seed=1)]
    triples = bounds.measure(*points)
    a, b, w = (x.mean(axis=0) for x in points)
    upper = bounds.normalized(bounds.q12(triples), a, b)
    lower = bounds.normalized_lower(bounds.lb1(triples), a, w)
    for found, other in ((upper, b), (lower, w)):
        ends = [x / unit / np.linalg.norm(x / unit) for x in (a, other)]
        assert float(found.value) == pytest.approx(math.dist(*ends), rel=1e-12)
        assert bool(found.holds)
    assert 0 < float(upper.bound) < 100
