"""The bounds on losses beside what is measured on one mixture: plain numbers for a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import SupportsIndex

import torch

from setrep.bounds.bound import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from setrep.bounds.loss_gaps import (
    Estimate,
    measure_biased_loss,
    measure_debiased_negatives,
    measure_debiased_positives,
)
from setrep.bounds.loss_limits import debiased_negatives_limits, debiased_positives_limits
from setrep.bounds.losses import (
    asymptotic_gap,
    biased_loss_gap,
    debiased_negatives_gap,
    debiased_positives_gap,
    published_biased_loss_gap,
    published_debiased_negatives_gap,
    to_count,
)
from setrep.bounds.mixture_gaps import (
    limit_gap,
    mixture_biased_loss_gap,
    mixture_debiased_negatives_gap,
    mixture_debiased_positives_gap,
)
from setrep.bounds.mixtures import FiniteMixture

FALSE_ALARM = 1e-6  # how likely a bound that is attained exactly is called violated
NUM_STANDARD_ERRORS = NormalDist().inv_cdf(1 - FALSE_ALARM)


@dataclass(frozen=True)
class LossBound:
    """A measured value, its standard error over draws, and its bound.

    `approximation` is what the value tends to for many samples, to first order, where that is
    known; it is no bound.
    """

    name: str
    value: float
    standard_error: float
    bound: float
    holds: bool
    conditions: str
    temperature: float
    tau_plus: float
    num_negatives: int
    num_positives: int | None = None
    num_draws: int | None = None
    approximation: float | None = None


def is_kept(value: float, standard_error: float, bound: float) -> bool:
    """Say whether a value is below its bound, but for errors of the draws and rounding.

    A mean over draws may be above by as many standard errors as a normal law exceeds with
    probability `FALSE_ALARM`.
    """
    allowed = NUM_STANDARD_ERRORS * standard_error
    rounding = RELATIVE_TOLERANCE * abs(bound) + ABSOLUTE_TOLERANCE * max(1, abs(value))
    return value <= bound + allowed + rounding


def loss_bounds(
    mixture: FiniteMixture,
    num_negatives: SupportsIndex,
    num_positives: SupportsIndex,
    generator: torch.Generator,
    num_draws: SupportsIndex = 200,
) -> list[LossBound]:
    """Measure the losses on a mixture and set them beside their bounds (L1, L3, L4, L5).

    Debiased positives draw `num_negatives` unlabelled items and as many negatives. Rows named by a
    statement alone hold for every mixture of this temperature and prior, "from deviations" and
    "of this mixture" for this one. Those "as published" are for temperature 1, and left out at any
    other; debiased positives as published are not among them, as that theorem does not hold.

    Raises:
        InputError: a count is out of range.
    """
    n, m = to_count(num_negatives, "num_negatives"), to_count(num_positives, "num_positives")
    draws = to_count(num_draws, "num_draws")
    return [
        *biased_rows(mixture, n, draws, generator),
        *debiased_negatives_rows(mixture, n, m, draws, generator),
        *limit_rows(mixture, n),
        *debiased_positives_rows(mixture, n, draws, generator),
    ]


def biased_rows(
    mixture: FiniteMixture, num_negatives: int, num_draws: int, generator: torch.Generator
) -> list[LossBound]:
    """Set the biased loss beside L1."""
    found = measure_biased_loss(mixture, num_negatives, num_draws, generator)
    conditions = "unbiased loss + E[0 ^ log(E+/E-)] - biased loss"
    bounds = {
        "L1": biased_loss_gap(mixture.temperature, num_negatives),
        "L1, of this mixture": mixture_biased_loss_gap(mixture, num_negatives),
    }
    if mixture.temperature == 1:
        bounds["L1, as published"] = published_biased_loss_gap(num_negatives)
    counts = {"num_negatives": num_negatives, "num_draws": num_draws}
    return [row(mixture, name, found, bounds[name], conditions, counts) for name in bounds]


def debiased_negatives_rows(
    mixture: FiniteMixture, n: int, m: int, num_draws: int, generator: torch.Generator
) -> list[LossBound]:
    """Set debiased negatives beside L3."""
    found = measure_debiased_negatives(mixture, n, m, num_draws, generator)
    prior = (mixture.temperature, mixture.tau_plus)
    from_deviations = debiased_negatives_gap(
        *prior,
        n,
        m,
        deviation=mixture.everyone.deviation,
        positive_deviation=mixture.positives.deviation,
    )
    bounds = {
        "L3": debiased_negatives_gap(*prior, n, m),
        "L3, from deviations": from_deviations,
        "L3, of this mixture": mixture_debiased_negatives_gap(mixture, n, m),
    }
    counts = {"num_negatives": n, "num_positives": m, "num_draws": num_draws}
    limit = debiased_negatives_limits(mixture, n / m).absolute / math.sqrt(n)
    conditions = "debiased negatives: mean |loss - limit|; samples independent given the anchor"
    rows = [
        row(mixture, name, found.absolute, bounds[name], conditions, counts, limit)
        for name in bounds
    ]
    if mixture.temperature == 1:
        mean = Estimate(abs(found.signed.value), found.signed.standard_error)
        published = published_debiased_negatives_gap(mixture.tau_plus, n, m)
        conditions = "debiased negatives: |mean of loss - limit|"
        rows.append(row(mixture, "L3, as published", mean, published, conditions, counts))
    return rows


def limit_rows(mixture: FiniteMixture, num_negatives: int) -> list[LossBound]:
    """Set the limit of debiased positives beside L4: exact sums."""
    found = limit_gap(mixture, num_negatives)
    above = Estimate(float(found.value), 0.0)
    below = Estimate(-float(found.value), 0.0)
    what = "limit of the unbiased loss - limit of debiased positives, exact"
    swapped = "limit of debiased positives - limit of the unbiased loss, exact"
    counts = {"num_negatives": num_negatives}
    return [
        row(mixture, "L4", above, asymptotic_gap(mixture.temperature), what, counts),
        row(mixture, "L4, of this mixture", above, float(found.bound), what, counts),
        row(mixture, "L4, from below", below, 0.0, swapped, counts),
    ]


def debiased_positives_rows(
    mixture: FiniteMixture, n: int, num_draws: int, generator: torch.Generator
) -> list[LossBound]:
    """Set debiased positives, with unlabelled items apart from negatives, beside L5."""
    found = measure_debiased_positives(mixture, n, n, num_draws, generator).absolute
    prior = (mixture.temperature, mixture.tau_plus)
    from_deviations = debiased_positives_gap(
        *prior,
        n,
        n,
        deviation=mixture.everyone.deviation,
        negative_deviation=mixture.negatives.deviation,
    )
    bounds = {
        "L5": debiased_positives_gap(*prior, n, n),
        "L5, from deviations": from_deviations,
        "L5, of this mixture": mixture_debiased_positives_gap(mixture, n, n),
    }
    counts = {"num_negatives": n, "num_draws": num_draws}
    limit = debiased_positives_limits(mixture).absolute / math.sqrt(n)
    conditions = (
        "debiased positives: mean |loss - limit|; as many unlabelled items as negatives, "
        "negatives of other labels, with a floor"
    )
    return [row(mixture, name, found, bounds[name], conditions, counts, limit) for name in bounds]


def row(
    mixture: FiniteMixture,
    name: str,
    found: Estimate,
    bound: float,
    conditions: str,
    counts: dict[str, int],
    approximation: float | None = None,
) -> LossBound:
    """Judge one bound."""
    return LossBound(
        name=name,
        value=found.value,
        standard_error=found.standard_error,
        bound=bound,
        holds=is_kept(found.value, found.standard_error, bound),
        conditions=conditions,
        temperature=mixture.temperature,
        tau_plus=mixture.tau_plus,
        num_negatives=counts["num_negatives"],
        num_positives=counts.get("num_positives"),
        num_draws=counts.get("num_draws"),
        approximation=approximation,
    )
