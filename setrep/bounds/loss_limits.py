"""At what rate contrastive losses of a finite mixture tend to their limits, to first order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from setrep.bounds.mixtures import FiniteMixture

AT_THE_FLOOR = 1e-9  # of the logarithm of a mean, more than rounding makes


@dataclass(frozen=True)
class GapLimits:
    r"""What $\sqrt N \, \mathbb{E} |\text{gap}|$ and $N \, \mathbb{E} \, \text{gap}$ tend to."""

    absolute: float
    signed: float  # infinite where some class mean is at the floor


def debiased_negatives_limits(mixture: FiniteMixture, ratio: float = 1.0) -> GapLimits:
    r"""Return the limits of the gap of debiased negatives for $N / M$ = `ratio` (delta method).

    $$ \mathbb{E}_x \sqrt{\tfrac2\pi v_x}, \quad -\tfrac12 \mathbb{E}_x v_x, \qquad v_x =
       \frac{\sigma_p^2 + (\tau^+)^2 \tfrac NM \sigma_+^2}{(\tau^- E_-)^2} $$

    for positives drawn independently of negatives. Where $E_- = e^{-1/t}$, the floor keeps half of
    the deviations: the mean is $\sqrt{v_x / 2 \pi}$ with sign, too, so of order $1 / \sqrt N$.
    """
    e_minus, tau_plus = mixture.negatives.log_mean, mixture.tau_plus
    of_everyone = (2 * (mixture.everyone.log_deviation - e_minus)).exp()
    of_positives = (2 * (mixture.positives.log_deviation - e_minus)).exp()
    v = (of_everyone + ratio * tau_plus**2 * of_positives) / (1 - tau_plus) ** 2
    is_cut = (e_minus - mixture.floor <= AT_THE_FLOOR) & (v > 0)
    absolute = (2 / math.pi * v).sqrt() * torch.where(is_cut, 0.5, 1.0)
    return GapLimits(float(absolute.mean()), float((-v / 2).masked_fill(is_cut, torch.inf).mean()))


def debiased_positives_limits(mixture: FiniteMixture, ratio: float = 1.0) -> GapLimits:
    r"""Return the limits of the gap of debiased positives for $N / N'$ = `ratio` (delta method).

    $$ \mathbb{E}_x \sqrt{\tfrac2\pi w_x}, \quad w_x = \frac{\sigma_p^2}{(\tau^+ E_+)^2} +
       \frac{N}{N'} \Big( \frac{E_p \, \sigma_-}{\tau^+ E_+ E_-} \Big)^2, \qquad
       \tfrac12 \mathbb{E}_x \Big[ \frac{\sigma_p^2 + (\tau^-)^2 \tfrac{N}{N'} \sigma_-^2}
       {(\tau^+ E_+)^2} - \frac{N}{N'} \frac{\sigma_-^2}{E_-^2} \Big] $$

    for unlabelled items drawn independently of negatives, and $Q$ of the order of $N$. $E_+$ is
    above the floor, as the class of $x$ holds $x$.
    """
    tau_plus = mixture.tau_plus
    e_plus, e_minus = mixture.positives.log_mean, mixture.negatives.log_mean
    of_everyone = (2 * (mixture.everyone.log_deviation - e_plus)).exp() / tau_plus**2
    spread = mixture.negatives.log_deviation
    in_p = (2 * (spread - e_minus)).exp()
    in_r = (2 * (spread - e_plus)).exp() / tau_plus**2
    both = in_r * (2 * (mixture.everyone.log_mean - e_minus)).exp()
    signed = of_everyone + ratio * ((1 - tau_plus) ** 2 * in_r - in_p)
    absolute = (2 / math.pi * (of_everyone + ratio * both)).sqrt()
    return GapLimits(float(absolute.mean()), float(signed.mean()) / 2)
