"""How far losses of drawn items are from their limits, on a finite mixture.

Anchors and their positives are averaged exactly. Only how often each point is drawn is random, so
the cost does not grow with the number of samples. All anchors share a draw, which leaves the mean
over anchors what it is; standard errors are over draws, which are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, SupportsIndex

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from setrep.bounds.empirical_losses import (
    Losses,
    add_pair,
    debiased_negatives_losses,
    debiased_positives_losses,
    log_one_plus,
)
from setrep.bounds.losses import to_count
from setrep.bounds.mixture_gaps import log_ratio_of_means
from setrep.bounds.mixtures import FiniteMixture
from setrep.errors import InputError

NUMBERS_AT_ONCE = 2**21

Source = Literal["everyone", "positives", "negatives"]
LogMeans = Float64[Tensor, "draw point"]


@dataclass(frozen=True)
class Estimate:
    """A mean over independent draws, and its standard error."""

    value: float
    standard_error: float

    @classmethod
    def of_draws(cls, draws: Float64[Tensor, " draw"]) -> Estimate:
        """Average draws."""
        return cls(float(draws.mean()), float(draws.std()) / math.sqrt(len(draws)))


@dataclass(frozen=True)
class LossGap:
    """Loss of a draw minus its limit: mean size, mean, and how many estimates were at a floor."""

    absolute: Estimate
    signed: Estimate
    clamped_share: float


def measure_debiased_negatives(
    mixture: FiniteMixture,
    num_negatives: SupportsIndex,
    num_positives: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
) -> LossGap:
    """Measure the gap of debiased negatives (L3): negatives from everyone, positives apart.

    Raises:
        InputError: a count is out of range.
    """
    log_u = draw_log_means(mixture, "everyone", num_negatives, num_draws, generator)
    log_v = draw_log_means(mixture, "positives", num_positives, num_draws, generator)
    limits = mixture.log_ratio(mixture.negatives, num_negatives)

    def gaps(rows: slice) -> Losses:
        losses, is_clamped = debiased_negatives_losses(
            mixture.positive_logits,
            log_u[rows].unsqueeze(-1),
            log_v[rows].unsqueeze(-1),
            num_negatives,
            mixture.tau_plus,
            mixture.temperature,
        )
        return losses - limits, is_clamped

    return summarize(mixture, len(log_u), gaps)


def measure_debiased_positives(
    mixture: FiniteMixture,
    num_unlabelled: SupportsIndex,
    num_negatives: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
    *,
    with_pair: bool = False,
) -> LossGap:
    """Measure the gap of debiased positives (L5): unlabelled items and negatives drawn apart.

    `with_pair` takes the positive and the anchor into the mean over everyone.

    Raises:
        InputError: a count is out of range.
    """
    log_p = draw_log_means(mixture, "everyone", num_unlabelled, num_draws, generator)
    log_n = draw_log_means(mixture, "negatives", num_negatives, num_draws, generator)
    num_paired = num_unlabelled if with_pair else None
    return positives_gap(mixture, log_p, log_n, num_negatives, num_paired)


def measure_published_debiased_positives(
    mixture: FiniteMixture,
    num_negatives: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
) -> LossGap:
    r"""Measure the gap of debiased positives as published: one sample of negatives in both means.

    It has the floor that the paper lacks, which cannot bind where $(N + 2) \tau^+ \ge 1$.

    Raises:
        InputError: a count is out of range.
    """
    log_n = draw_log_means(mixture, "negatives", num_negatives, num_draws, generator)
    return positives_gap(mixture, log_n, log_n, num_negatives, num_negatives)


def positives_gap(
    mixture: FiniteMixture,
    log_everyone: LogMeans,
    log_negatives: LogMeans,
    num_negatives: SupportsIndex,
    num_paired: SupportsIndex | None,
) -> LossGap:
    """Return the gap of debiased positives, with a pair added to the mean over `num_paired`."""
    ratio = mixture.negatives.log_mean - mixture.positives.log_mean
    limits = log_one_plus(math.log(to_count(num_negatives, "num_negatives")) + ratio).unsqueeze(1)

    def gaps(rows: slice) -> Losses:
        log_p = log_everyone[rows].unsqueeze(-1)
        if num_paired is not None:
            log_p = add_pair(log_p, mixture.positive_logits, num_paired, mixture.temperature)
        losses, is_clamped = debiased_positives_losses(
            log_p,
            log_negatives[rows].unsqueeze(-1),
            num_negatives,
            mixture.tau_plus,
            mixture.temperature,
        )
        return losses - limits, is_clamped

    return summarize(mixture, len(log_everyone), gaps)


def measure_biased_loss(
    mixture: FiniteMixture,
    num_negatives: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
) -> Estimate:
    r"""Measure the left side of L1, which has less variance than either of its losses.

    $$ L_{Unbiased}^N + \mathbb{E}_x \Big[0 \wedge \log \frac{E_+}{E_-}\Big] - L_{Biased}^N $$

    Raises:
        InputError: a count is out of range.
    """
    biased = jensen_draws(mixture, "everyone", num_negatives, num_draws, generator)
    unbiased = jensen_draws(mixture, "negatives", num_negatives, num_draws, generator)
    limits = mixture.unbiased_limit(num_negatives) - mixture.biased_limit(num_negatives)
    return Estimate.of_draws(limits + log_ratio_of_means(mixture) + biased - unbiased)


def jensen_draws(
    mixture: FiniteMixture,
    source: Literal["everyone", "negatives"],
    num_negatives: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
) -> Float64[Tensor, " draw"]:
    r"""Return draws whose mean is what the loss with negatives of a source lacks to its limit.

    Each is what $\log(1 + \sum_i h(x, u_i) / h(x, x^+))$ lacks to its tangent at the mean.
    """
    log_u = draw_log_means(mixture, source, num_negatives, num_draws, generator)
    of = mixture.everyone if source == "everyone" else mixture.negatives
    limits = mixture.log_ratio(of, num_negatives)
    log_sums = log_u + math.log(to_count(num_negatives, "num_negatives"))
    change = (log_u - of.log_mean).expm1()
    found = []
    for rows in blocks(mixture, len(log_u)):
        tangent = change[rows].unsqueeze(-1) * -(-limits).expm1()
        losses = log_one_plus(log_sums[rows].unsqueeze(-1) - mixture.positive_logits)
        found.append((tangent - (losses - limits)).mean((1, 2)))
    return torch.cat(found)


def summarize(mixture: FiniteMixture, num_draws: int, gaps: Callable[[slice], Losses]) -> LossGap:
    """Average gaps `[draw, point, positive]` over anchors and positives, then over draws."""
    signed, absolute, clamped = [], [], []
    for rows in blocks(mixture, num_draws):
        gap, is_clamped = gaps(rows)
        signed.append(gap.mean((1, 2)))
        absolute.append(gap.abs().mean((1, 2)))
        clamped.append(is_clamped.double().mean((1, 2)))
    return LossGap(
        absolute=Estimate.of_draws(torch.cat(absolute)),
        signed=Estimate.of_draws(torch.cat(signed)),
        clamped_share=float(torch.cat(clamped).mean()),
    )


def blocks(mixture: FiniteMixture, num_draws: int) -> Iterator[slice]:
    """Yield draws to take at once, so that memory does not grow with their number."""
    step = max(1, NUMBERS_AT_ONCE // mixture.positive_logits.numel())
    for start in range(0, num_draws, step):
        yield slice(start, start + step)


def draw_log_means(
    mixture: FiniteMixture,
    source: Source,
    num_samples: SupportsIndex,
    num_draws: SupportsIndex,
    generator: torch.Generator,
) -> LogMeans:
    """Draw logarithms of means of h(x, .) over independent samples of a source, for every x."""
    num_samples = to_count(num_samples, "The number of samples")
    if to_count(num_draws, "num_draws") < 2:
        raise InputError("A standard error needs a num_draws of at least 2.")
    h = (mixture.logits + mixture.floor).exp()
    means = torch.empty(int(num_draws), mixture.num_points, dtype=torch.float64)
    for anchors, pool in pools(mixture, source):
        counts = draw_counts(len(pool), num_samples, int(num_draws), generator)
        means[:, anchors] = counts @ h[anchors][:, pool].mT
    return (means / num_samples).log() - mixture.floor


def pools(
    mixture: FiniteMixture, source: Source
) -> Iterator[tuple[Int64[Tensor, " anchor"], Int64[Tensor, " point"]]]:
    """Yield anchors together with the points that a source draws from for them."""
    everyone = torch.arange(mixture.num_points)
    if source == "everyone":
        yield everyone, everyone
        return
    for number, members in enumerate(mixture.members):
        is_member = mixture.class_of == number
        yield members, members if source == "positives" else everyone[~is_member]


def draw_counts(
    num_categories: int, num_samples: int, num_draws: int, generator: torch.Generator
) -> Float64[Tensor, "draw category"]:
    """Draw how often each of equally likely categories occurs, by splitting into halves."""
    depth = (num_categories - 1).bit_length()
    sizes = torch.zeros(2**depth, dtype=torch.float64)
    sizes[:num_categories] = 1
    counts = torch.full((num_draws, 1), num_samples, dtype=torch.float64)
    for level in range(1, depth + 1):
        halves = sizes.reshape(2**level, -1).sum(1).reshape(-1, 2)
        share = halves[:, 0] / halves.sum(1).clamp(min=1)
        left = torch.binomial(counts, share.expand_as(counts), generator)
        counts = torch.stack([left, counts - left], -1).flatten(1)
    return counts[:, :num_categories]
