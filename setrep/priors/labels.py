"""The prior from the labels of some random items: unbiased, whatever the classes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from scipy.special import gammaincinv
from torch import Tensor

from setrep.errors import InputError
from setrep.priors.results import ClassBalance, PriorEstimate

Numbers = NDArray[np.float64]

FEWEST_LABELS = 4  # the variance compares two pairs without a common item


def from_labels(labels: Int64[Tensor, " item"], *, confidence: float = 0.95) -> PriorEstimate:
    r"""Estimate the prior from the labels of random items, without any similarity.

    Of n items, $n_c$ of class c, the share of pairs with one label is unbiased for
    $\sum_c p_c^2$, whatever the classes.

    $$ \hat\tau^+ = \sum_c \frac{n_c (n_c - 1)}{n (n - 1)} $$

    Its variance is estimated without bias as well (a U-statistic: $\hat\tau^2$ less its mean over
    two pairs without a common item), but is at least that of independent pairs. The interval is
    that of a Poisson count (Garwood 1936) with the same relative variance: of equal classes it
    holds the truth in 96 % of draws and more, but of few and unequal ones too rarely, in 91 % with
    two classes of .6 and .4 and 500 labels, in 77 % with .7, .3 and 20.

    Items must be drawn at random: a set with equally many of each class gives its own design.

    Raises:
        InputError: labels are not 1-d integers, or fewer than four.
    """
    _check_labels(labels)
    if not 0 < confidence < 1:
        raise InputError(f"The confidence must lie between 0 and 1, not {confidence}.")
    n = len(labels)
    counts = np.unique(labels.cpu().numpy(), return_counts=True)[1].astype(np.float64)
    value = float((counts * (counts - 1)).sum()) / (n * (n - 1))
    variance = max(value**2 - _two_pairs(counts), 2 * value * (1 - value) / (n * (n - 1)))
    return PriorEstimate(
        value,
        _interval(value, variance, n, confidence),
        ClassBalance(
            num_classes=len(counts),
            effective_num_classes=1 / value if value else float("inf"),
            smallest_class_prior=float(counts.min()) / n,
            largest_class_prior=float(counts.max()) / n,
        ),
    )


def _two_pairs(counts: Numbers) -> float:
    """Return the share of two equal pairs among all two pairs of four different items."""
    n = counts.sum()
    twos = (counts * (counts - 1)).sum()
    threes = (counts * (counts - 1) * (counts - 2)).sum()
    return float((twos**2 - 4 * threes - 2 * twos) / (n * (n - 1) * (n - 2) * (n - 3)))


def _interval(value: float, variance: float, n: int, confidence: float) -> tuple[float, float]:
    """Return Garwood's interval of the rarer of equal and unequal pairs."""
    tail = (1 - confidence) / 2
    if value == 1:  # one class has at least tail ** (1 / n) of all, and squared that of the pairs
        return tail ** (2 / n), 1.0
    if value > 0.5:
        low, high = _interval(1 - value, variance, n, confidence)
        return max(0.0, 1 - high), 1 - low
    num_seen = value**2 / variance if value else 0.0
    unit = value / num_seen if value else 2 / (n * (n - 1))
    low = float(gammaincinv(num_seen, tail)) * unit if value else 0.0
    return low, min(1.0, float(gammaincinv(num_seen + 1, 1 - tail)) * unit)


def _check_labels(labels: Tensor) -> None:
    """Refuse what is not a list of classes."""
    if (
        labels.ndim != 1
        or labels.is_floating_point()
        or labels.is_complex()
        or len(labels) < FEWEST_LABELS
    ):
        raise InputError(
            f"A prior needs a 1-d tensor of at least {FEWEST_LABELS} integer labels; found "
            f"{labels.dtype} of shape {tuple(labels.shape)}."
        )
