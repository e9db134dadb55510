r"""Bounds on contrastive losses of one finite mixture, from its own means and deviations.

They are of the order of what is measured, where those of temperature and prior alone are not.
"""

from __future__ import annotations

import math
from typing import SupportsIndex

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import UpperBound
from setrep.bounds.empirical_losses import log_one_plus
from setrep.bounds.losses import remainder, to_count
from setrep.bounds.mixtures import FiniteMixture

PerPoint = Float64[Tensor, " point"]


def mixture_biased_loss_gap(mixture: FiniteMixture, num_negatives: SupportsIndex) -> float:
    r"""Bound the gap of L1, and what the biased loss lacks to its limit.

    $$ \mathbb{E}_x \frac{\psi(E_p / a_x - 1) \, \sigma_p^2}{N a_x^2} \le \frac{\kappa}{N},
       \qquad a_x = \min_u h(x, u), $$
    with $\psi$ of `remainder`.
    """
    least = mixture.logits.amin(1)
    log_ratio = (mixture.everyone.log_mean - least).clamp(min=0)
    squared = 2 * (mixture.everyone.log_deviation - least)
    n = to_count(num_negatives, "num_negatives")
    return float((log_psi(log_ratio) + squared).exp().mean()) / n


def mixture_debiased_negatives_gap(
    mixture: FiniteMixture, num_negatives: SupportsIndex, num_positives: SupportsIndex
) -> float:
    r"""Bound the mean distance of debiased negatives from their limit (L3).

    $$ \mathbb{E}_x T(s_x, E_-), \qquad
       s_x = \frac{1}{\tau^-} \Big( \frac{\sigma_p}{\sqrt N} + \tau^+ \frac{\sigma_+}{\sqrt M}
       \Big) $$
    with $T$ of `log_gap`; never above the bound from deviations alone.
    """
    everyone = mixture.everyone.log_deviation - half_log(num_negatives, "num_negatives")
    positives = mixture.positives.log_deviation - half_log(num_positives, "num_positives")
    log_s = torch.logaddexp(everyone, positives + math.log(mixture.tau_plus))
    log_s = log_s - math.log1p(-mixture.tau_plus)
    return float(log_gap(log_s, mixture.negatives.log_mean, mixture.floor).mean())


def mixture_debiased_positives_gap(
    mixture: FiniteMixture, num_unlabelled: SupportsIndex, num_negatives: SupportsIndex
) -> float:
    r"""Bound the mean distance of debiased positives from their limit (L5).

    $$ \mathbb{E}_x \Big[ T(s_x, E_+) + T \Big( \frac{\sigma_-}{\sqrt{N'}}, E_- \Big) \Big],
       \qquad s_x = \frac{1}{\tau^+} \Big( \frac{\sigma_p}{\sqrt N} +
       \tau^- \frac{\sigma_-}{\sqrt{N'}} \Big) $$
    with $T$ of `log_gap`; never above the bound from deviations alone.
    """
    everyone = mixture.everyone.log_deviation - half_log(num_unlabelled, "num_unlabelled")
    negatives = mixture.negatives.log_deviation - half_log(num_negatives, "num_negatives")
    log_s = torch.logaddexp(everyone, negatives + math.log1p(-mixture.tau_plus))
    log_s = log_s - math.log(mixture.tau_plus)
    of_positives = log_gap(log_s, mixture.positives.log_mean, mixture.floor)
    of_negatives = log_gap(negatives, mixture.negatives.log_mean, mixture.floor)
    return float((of_positives + of_negatives).mean())


def log_gap(log_s: PerPoint, log_mean: PerPoint, floor: float) -> PerPoint:
    r"""Bound the mean of $|\log \max(X, a) - \log g|$, for $X$ of mean $g \ge a$.

    $$ T(s, g) = \log \Big(1 + \frac{s}{2g}\Big) + \min \Big\{ \log r, \;
       \frac{s}{2g} \frac{r \log r}{r - 1}, \; \frac{s}{2g} + \psi(r - 1) \frac{s^2}{a^2} \Big\},
       \qquad r = \frac ga, $$
    with $s$ at least the standard deviation of $X$; at most $s / a$. Arguments are logarithms.
    """
    log_r = (log_mean - floor).clamp(min=0)
    half = (log_s - log_mean).exp() / 2
    # r log(r) / (r - 1) is 1 at r = 1.
    chord = torch.where(log_r > 0, log_r / -(-log_r).expm1(), 1.0)
    curved = half + (log_psi(log_r) + 2 * (log_s - floor)).exp()
    below = torch.minimum(torch.minimum(log_r, half * chord), curved)
    return half.log1p() + below


def log_psi(log_ratio: PerPoint) -> PerPoint:
    r"""Return the logarithm of $\psi(r - 1)$ of `remainder`, or a little more, from $\log r$."""
    z = log_ratio.expm1()
    return torch.where(z > 0, remainder(z).log() - z.log(), math.log(0.5))


def half_log(count: SupportsIndex, name: str) -> float:
    """Return the logarithm of the root of a number of samples."""
    return math.log(to_count(count, name)) / 2


def log_ratio_of_means(mixture: FiniteMixture) -> float:
    r"""Return $\mathbb{E}_x [0 \wedge \log(E_+ / E_-)]$ of L1."""
    ratio = mixture.positives.log_mean - mixture.negatives.log_mean
    return float(ratio.clamp(max=0).mean())


def limit_gap(mixture: FiniteMixture, num_negatives: SupportsIndex) -> UpperBound:
    r"""Bound how far the limit of debiased positives is below that of the unbiased loss (L4).

    $$ 0 \le L_\infty^N - \tilde L^N \le \mathbb{E}_x [\log E_+ - \mathbb{E}_+ \log h]
       \le \frac{1}{2 t^2} $$
    """
    log_n = math.log(to_count(num_negatives, "num_negatives"))
    of_means = (log_n + mixture.negatives.log_mean - mixture.positives.log_mean).unsqueeze(1)
    value = mixture.log_ratio(mixture.negatives, num_negatives) - log_one_plus(of_means)
    bound = mixture.positives.log_mean.unsqueeze(1) - mixture.positive_logits
    scale = torch.tensor(log_n + 2 / mixture.temperature, dtype=torch.float64)
    return UpperBound(value.mean(), bound.mean(), scale)
