r"""Losses of one draw of items, from the logarithms of means of h: what the bounds speak about.

The estimates and their floors are those of `setrep.losses`.
"""

from __future__ import annotations

import math
from typing import SupportsIndex

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from setrep.bounds.bound import UpperBound
from setrep.bounds.losses import check_positive_tau_plus, check_temperature, to_count
from setrep.bounds.points import Points, to_numbers
from setrep.errors import InputError
from setrep.losses.debiased_negatives import debias

Losses = tuple[Float64[Tensor, "*draw"], Bool[Tensor, "*draw"]]


def debiased_negatives_losses(
    log_positive: Float64[Tensor, "*draw"],
    log_negatives: Float64[Tensor, "*draw"],
    log_positives: Float64[Tensor, "*draw"],
    num_negatives: SupportsIndex,
    tau_plus: float,
    temperature: float,
) -> Losses:
    r"""Return $\log(1 + N g / h(x, x^+))$, and where $g$ is at its floor.

    $g$ of Chuang et al. 2020, Eq. 7, from the means of h over $N$ negatives and over $M$
    positives; all arguments are logarithms.
    """
    log_g, is_clamped = debias(log_negatives, log_positives, tau_plus, 1 / temperature)
    n = to_count(num_negatives, "num_negatives")
    return log_one_plus(math.log(n) + log_g - log_positive), is_clamped


def debiased_positives_losses(
    log_everyone: Float64[Tensor, "*draw"],
    log_negatives: Float64[Tensor, "*draw"],
    num_negatives: SupportsIndex,
    tau_plus: float,
    temperature: float,
) -> Losses:
    r"""Return $\log(1 + N P^- / R)$, and where $R$ is at its floor.

    $R = \max\{(P - \tau^- P^-) / \tau^+, e^{-1/t}\}$ from the logarithms of $P$ and $P^-$
    (Troeshestova & Isachenko 2023, Eq. 12, with a floor).
    """
    log_r, is_clamped = debias(log_everyone, log_negatives, 1 - tau_plus, 1 / temperature)
    n = to_count(num_negatives, "num_negatives")
    return log_one_plus(math.log(n) + log_negatives - log_r), is_clamped


def add_pair(
    log_everyone: Float64[Tensor, "*draw"],
    log_positive: Float64[Tensor, "*draw"],
    num_everyone: SupportsIndex,
    temperature: float,
) -> Float64[Tensor, "*draw"]:
    r"""Return the logarithm of $P$ with the positive and the anchor itself (same paper, Eq. 13).

    $$ \frac{N P + h(x, v) + h(x, x)}{N + 2} $$
    """
    n = to_count(num_everyone, "num_everyone")
    itself = torch.full((), 1 / temperature, dtype=torch.float64)
    log_sum = torch.logaddexp(math.log(n) + log_everyone, torch.logaddexp(log_positive, itself))
    return log_sum - math.log(n + 2)


def grouped_positives(
    positives: Points, others: Points, temperature: float, tau_plus: float
) -> UpperBound:
    r"""Bound the loss of grouped positives by the mean loss of each alone (L6).

    $$ \ell\Big(\frac1M \sum_j h(x, v_j)\Big) \le \frac1M \sum_j \ell(h(x, v_j)) $$

    for debiased positives $\ell$ as published, $\tau^+ \ge 2 / (N + 2)$ and the same $N$ `others`
    on both sides. Both arguments hold cosines with the anchor, along the last axis. Equal on both
    sides where all positives are.

    Raises:
        InputError: the temperature or the prior is out of range, or the numbers are no cosines.
    """
    check_temperature(temperature)
    check_positive_tau_plus(tau_plus)
    log_v, log_u = (
        to_cosines(x, name) / temperature
        for x, name in ((positives, "positives"), (others, "others"))
    )
    n, m = log_u.shape[-1], log_v.shape[-1]
    if tau_plus < 2 / (n + 2):
        raise InputError(
            f"With {n} others grouping is bounded for a tau_plus of at least {2 / (n + 2):.4g}, "
            f"not {tau_plus:g}: take more others."
        )
    log_mean = (log_u.logsumexp(-1) - math.log(n)).unsqueeze(-1)

    def losses(log_positive: Tensor) -> Tensor:
        log_p = add_pair(log_mean, log_positive, n, temperature)
        return debiased_positives_losses(log_p, log_mean, n, tau_plus, temperature)[0]

    grouped = losses((log_v.logsumexp(-1) - math.log(m)).unsqueeze(-1)).squeeze(-1)
    single = losses(log_v).mean(-1)
    return UpperBound(grouped, single, single)


def log_one_plus(x: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return log(1 + e^x) to the last digit, which softplus drops beyond its threshold."""
    return torch.logaddexp(x, torch.zeros((), dtype=x.dtype))


def to_cosines(x: Points, name: str) -> Float64[Tensor, "*draw item"]:
    """Check cosines of at least one item along the last axis."""
    cosines = to_numbers(x, name)
    if cosines.ndim == 0 or cosines.numel() == 0 or bool((cosines.abs() > 1 + 1e-6).any()):
        raise InputError(
            f"{name} must hold cosines from -1 to 1 along the last axis; found shape "
            f"{tuple(cosines.shape)}."
        )
    return cosines.clamp(-1, 1)
