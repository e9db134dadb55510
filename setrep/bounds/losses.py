r"""How far contrastive losses are from what they estimate, by temperature and sample counts.

Embeddings have norm 1, so $h(x, x') = e^{\langle f(x), f(x') \rangle / t}$ lies in
$[e^{-1/t}, e^{1/t}]$; the ratio of the ends is $\mathcal{B} = e^{2/t}$. Every class has the prior
$\tau^+$, and $\tau^- = 1 - \tau^+$. Where $e^{2/t}$ leaves float64, a bound is infinity.
"""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.points import Points, to_numbers
from setrep.errors import InputError
from setrep.losses.checks import check_tau_plus

CELLS = 2**16
NEAR_ZERO = 1e-3  # below it the remainder of the logarithm loses digits
ROUNDED_UP = 1 + 1e-11  # more than what rounding may have taken
LARGEST_EXPONENT = 709  # e to a higher power leaves float64
LARGEST_COUNT = 2**53  # beyond it float64 skips whole numbers
PAPER = math.exp(1.5) * math.sqrt(math.pi / 2)

Deviation = Points | float | None


def kappa(temperature: float) -> float:
    r"""Return the constant of L1, rounded up, at most .2 % above its exact value.

    $$ \kappa = \max_{1 < r < \mathcal{B}} \frac{(\log r - 1 + 1/r) (\mathcal{B} - r)}{r - 1}
       \le \frac{(\mathcal{B} - 1)^2}{8} $$

    The largest value on a grid would be too small. With $z = r - 1$ the maximum is that of
    $\psi(z) z (\mathcal{B} - 1 - z)$, where $\psi$ of `remainder` decreases: between two points
    of the grid it is at most $\psi(z_0) z_1 (\mathcal{B} - 1 - z_0)$, the largest of which is
    returned, or the closed form where that is less.

    Raises:
        InputError: the temperature is not a finite number above 0.
    """
    widest = 2 * half_range(temperature)
    if widest == math.inf:
        return math.inf
    steps = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64).square()
    ends = (steps * (2 / temperature)).expm1()
    low, high = ends[:-1], ends[1:]
    rising = torch.where(low < NEAR_ZERO, high / 2, remainder(low) * (high / low))
    largest = min(float((rising * (widest - low)).amax()), widest * widest / 8)
    return math.nextafter(largest * ROUNDED_UP, math.inf)


def remainder(z: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    r"""Return $z \psi(z)$, or a little more near 0, where digits cancel.

    $$ \psi(z) = \frac{\log(1 + z) - z / (1 + z)}{z^2}
       = \int_0^1 \frac{1 - \theta}{(1 + z - \theta z)^2} d\theta \le \frac12 $$

    decreases in $z$. It is what a logarithm at 1 lacks to its tangent at $1 + z$, over $z^2$.
    """
    return torch.where(z < NEAR_ZERO, z / 2, (z.log1p() - z / (1 + z)) / z)


def biased_loss_gap(temperature: float, num_negatives: SupportsIndex) -> float:
    r"""Bound how far the biased loss may be below the unbiased one and their ratio (L1).

    $$ L_{Unbiased}^N + \mathbb{E}_x \Big[0 \wedge \log \frac{E_+}{E_-}\Big] - L_{Biased}^N
       \le \frac{\kappa(\mathcal{B})}{N} $$

    Chuang et al. 2020, Lemma 1, with a rate of $1/N$ for $1/\sqrt N$ and at every temperature.

    Raises:
        InputError: the temperature or a count is out of range.
    """
    return kappa(temperature) / to_count(num_negatives, "num_negatives")


def published_biased_loss_gap(num_negatives: SupportsIndex) -> float:
    r"""Return $e^{3/2} \sqrt{\pi / 2N}$ of Chuang et al. 2020, Lemma 1, for temperature 1 only."""
    return PAPER / math.sqrt(to_count(num_negatives, "num_negatives"))


def debiased_negatives_gap(
    temperature: float,
    tau_plus: float,
    num_negatives: SupportsIndex,
    num_positives: SupportsIndex,
    *,
    deviation: Deviation = None,
    positive_deviation: Deviation = None,
) -> float:
    r"""Bound the mean distance of the debiased loss from its limit (L3).

    $$ \mathbb{E} |\tilde L^N - L^{N,M}| \le \frac{e^{1/t}}{\tau^-} \mathbb{E}_x \Big[
       \frac{\sigma_p}{\sqrt N} + \tau^+ \frac{\sigma_+}{\sqrt M} \Big]
       \le \frac{e^{2/t} - 1}{2} \Big[ \frac{1}{\tau^- \sqrt N} +
       \frac{\tau^+}{\tau^- \sqrt M} \Big] $$

    with the standard deviations of $h(x, \cdot)$ over everything and over the class of $x$, one
    for each $x$, or none for the largest that they can be. Given $x$, the negatives must be drawn
    independently from $p$, the positives from $p_x^+$; the two may depend on each other.
    Chuang et al. 2020, Theorem 3, at every temperature.

    Raises:
        InputError: the temperature, the prior, a count or a deviation is out of range.
    """
    check_tau_plus(tau_plus)
    num_negatives = to_count(num_negatives, "num_negatives")
    num_positives = to_count(num_positives, "num_positives")
    gap = scaled(deviation, temperature, "deviation") / math.sqrt(num_negatives)
    if tau_plus > 0:
        of_positives = scaled(positive_deviation, temperature, "positive_deviation")
        gap += tau_plus * of_positives / math.sqrt(num_positives)
    return gap / (1 - tau_plus)


def published_debiased_negatives_gap(
    tau_plus: float, num_negatives: SupportsIndex, num_positives: SupportsIndex
) -> float:
    r"""Return the bound of Chuang et al. 2020, Theorem 3, for temperature 1 only.

    $$ \frac{e^{3/2}}{\tau^-} \sqrt{\frac{\pi}{2N}} +
       \frac{e^{3/2} \tau^+}{\tau^-} \sqrt{\frac{\pi}{2M}} $$

    L3 implies it, with .57 of this at temperature 1. With $e^{3/(2t)}$ for $e^{3/2}$ it is false.
    """
    check_tau_plus(tau_plus)
    of_negatives = 1 / math.sqrt(to_count(num_negatives, "num_negatives"))
    of_positives = tau_plus / math.sqrt(to_count(num_positives, "num_positives"))
    return PAPER * (of_negatives + of_positives) / (1 - tau_plus)


def asymptotic_gap(temperature: float) -> float:
    r"""Bound how far the limit of debiased positives is below that of the unbiased loss (L4).

    $$ 0 \le \mathbb{E}_{x, x^+} \log \Big(1 + \frac{N E_-}{h(x, x^+)}\Big) -
       \mathbb{E}_x \log \Big(1 + \frac{N E_-}{E_+}\Big) \le \frac{1}{2 t^2} $$

    at every $N$. Troeshestova & Isachenko 2023, Eq. 9, has 0.

    Raises:
        InputError: the temperature is not a finite number above 0.
    """
    check_temperature(temperature)
    return 1 / temperature * (1 / temperature) / 2


def debiased_positives_gap(
    temperature: float,
    tau_plus: float,
    num_unlabelled: SupportsIndex,
    num_negatives: SupportsIndex,
    *,
    deviation: Deviation = None,
    negative_deviation: Deviation = None,
    with_pair: bool = False,
) -> float:
    r"""Bound the mean distance of debiased positives from their limit (L5).

    $$ \mathbb{E} \Big| \log \Big(1 + \frac{Q \hat P^-}{\hat R}\Big) -
       \log \Big(1 + \frac{Q E_-}{E_+}\Big) \Big| \le \frac{e^{1/t}}{\tau^+} \mathbb{E}_x \Big[
       \frac{\sigma_p}{\sqrt N} + \frac{\sigma_-}{\sqrt{N'}} \Big] \le
       \frac{e^{2/t} - 1}{2 \tau^+} \Big( \frac{1}{\sqrt N} + \frac{1}{\sqrt{N'}} \Big) $$

    for any $Q > 0$, with $\hat R = \max\{(\hat P - \tau^- \hat P^-) / \tau^+, e^{-1/t}\}$. Given
    $x$, the $N$ unlabelled items of $\hat P$ must be drawn independently from $p$, the $N'$ of
    $\hat P^-$ from the other classes; the two may depend on each other. `with_pair` is for a
    $\hat P$ that takes in $h(x, v)$ and $h(x, x)$ as well, in a mean over $N + 2$: it adds
    $2 (e^{2/t} - 1) / (\tau^+ (N + 2))$.

    Raises:
        InputError: the temperature, the prior, a count or a deviation is out of range.
    """
    check_positive_tau_plus(tau_plus)
    num_unlabelled = to_count(num_unlabelled, "num_unlabelled")
    num_negatives = to_count(num_negatives, "num_negatives")
    gap = scaled(deviation, temperature, "deviation") / math.sqrt(num_unlabelled)
    of_negatives = scaled(negative_deviation, temperature, "negative_deviation")
    gap += of_negatives / math.sqrt(num_negatives)
    if with_pair:
        gap += 4 * half_range(temperature) / (num_unlabelled + 2)
    return gap / tau_plus


def published_debiased_positives_gap(tau_plus: float, num_negatives: SupportsIndex) -> float:
    r"""Return the bound of Troeshestova & Isachenko 2023, Eq. 15, which does not hold.

    $$ \Big[ \Big(1 + \frac{\tau^-}{\tau^+} + \delta\Big) \sqrt{\frac{\pi}{2N}} +
       \Big(1 + \frac{1}{\tau^+}\Big) \sqrt{\frac{\pi}{2N + 2}} \Big] e^{3/2}, \qquad \delta = 0 $$

    for temperature 1. Both of its means share one sample of negatives: as $N$ grows, its loss
    tends to $\log(N + 1)$ and the gap to $|\mathbb{E}_x \log(E_+ / E_-)|$, whatever $N$.
    """
    check_positive_tau_plus(tau_plus)
    n = to_count(num_negatives, "num_negatives")
    tau_minus = 1 - tau_plus
    first = (1 + tau_minus / tau_plus) / math.sqrt(n)
    return PAPER * (first + (1 + 1 / tau_plus) / math.sqrt(n + 1))


def half_range(temperature: float) -> float:
    r"""Return $(e^{2/t} - 1) / 2$, the largest standard deviation of h times $e^{1/t}$."""
    check_temperature(temperature)
    exponent = 2 / temperature
    return math.expm1(exponent) / 2 if exponent < LARGEST_EXPONENT else math.inf


def scaled(deviation: Deviation, temperature: float, name: str) -> float:
    r"""Return $e^{1/t}$ times the mean of standard deviations of $h$, or the most it can be."""
    largest = half_range(temperature)
    if deviation is None:
        return largest
    deviations = to_numbers([deviation] if isinstance(deviation, float) else deviation, name)
    mean = float(deviations.mean()) if deviations.numel() > 0 else -1.0
    found = power_of_e(1 / temperature + math.log(mean)) if mean > 0 else 0.0
    if mean < 0 or bool((deviations < 0).any()) or found > largest * (1 + 1e-9):
        raise InputError(
            f"{name} must hold standard deviations of h = exp(cosine / {temperature:g}): at least "
            f"0, and at most half of what h spans on average; found a mean of {mean:.4g}."
        )
    return found


def power_of_e(exponent: float) -> float:
    """Return e to a power, infinity where it leaves float64."""
    return math.exp(exponent) if exponent < LARGEST_EXPONENT else math.inf


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not a finite number above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"The temperature must be a finite number above 0, not {temperature}.")


def check_positive_tau_plus(tau_plus: float) -> None:
    """Refuse a class prior that is not between 0 and 1."""
    check_tau_plus(tau_plus)
    if tau_plus == 0:
        raise InputError("Debiased positives divide by tau_plus: it must be above 0.")


def to_count(count: SupportsIndex, name: str) -> int:
    """Check a number of samples."""
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if isinstance(count, bool) or not 1 <= number <= LARGEST_COUNT:
        raise InputError(f"{name} must be a whole number of samples, at least 1; found {count}.")
    return number
