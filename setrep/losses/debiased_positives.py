"""Contrastive losses whose positive is an estimate of the mean over its hidden class."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from setrep.errors import InputError
from setrep.losses.checks import check_choice, check_tau_plus
from setrep.losses.contrastive import ContrastiveLoss, ContrastiveTerms, Views, log_sum
from setrep.losses.debiased_negatives import DebiasedNegativesLoss, DropFalseNegatives
from setrep.losses.nt_xent import same_label

Estimator = Literal["mean", "sum", "consistent"]


class _Moments(NamedTuple):
    """Sums of h over the keys that stand for draws from p and from the other classes."""

    everything: Float[Tensor, " anchor"]  # divided by e^{1/t}, the largest value of h
    num_everything: Float[Tensor, " anchor"]
    log_negatives: Float[Tensor, " anchor"]
    num_negatives: Float[Tensor, " anchor"]  # at least 1


class DebiasedPositivesLoss(ContrastiveLoss):
    r"""Debiased positives (Troeshestova & Isachenko 2023, Eq. 12 to 14), anchors averaged.

    $$ L = -\log \frac{R}{R + N P^-}, \quad R = \max\Big\{\frac{P - \tau^- P^-}{\tau^+}, e^{-1/t}
       \Big\}, \quad P = \frac{S + h(x, v) + h(x, x)}{N + 2}, \quad P^- = \frac{S}{N} $$

    with $S = \sum_i h(x, u_i)$ over the $N = 2B - 2$ other rows of the first two views. Grouped
    extra views replace $h(x, v)$ by the mean over all other views, counted once.

    **What it estimates.** $R$ is derived as the mean of $h$ over the anchor's class, but $P$ and
    $P^-$ share the samples $u_i$. As $N$ grows, $R$ tends to their mean whatever the class is, and
    the loss to $\log(N + 1)$; the positive enters with weight $1 / (\tau^+ (N + 2))$. Judge
    training by accuracy, not by this value, and prefer optimisers that ignore the scale (Adam).

    `estimator="mean"` is the paper's. `"sum"` puts sums for means, $R = (S + h(x,v) + h(x,x) -
    \tau^- S) / (\tau^+ N)$: the code that gave most published numbers (M = 1, the combination at
    M = 2, and all label-noise experiments). `"consistent"` asks for labels: $P$ over all rows,
    $P^-$ and N over true negatives only, unbiased at any N, with a deviation that grows as
    $1/\tau^+$.

    The floor $e^{-1/t}$ is the least value of $h$ on the sphere, and enters the denominator, too.
    With `mean` and nothing dropped it cannot hold where $2 B \tau^+ \geq 1$, with `sum` nowhere.
    The paper has none, and its code can return NaN or less than 0. Where it holds, the anchor has
    no gradient through its positive.

    `drop_false_negatives` asks for labels. `exclude` leaves items of the anchor's label out
    everywhere. `published` is what ran: with `mean` they and $h(x, x)$ count as 0 and the divisors
    stay; with `sum` they are left out of $S$ but not of the numerator, which so attracts them.

    Raises:
        InputError: an option is out of range, or the views or labels do not fit.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        tau_plus: float = 0.1,
        estimator: Estimator = "mean",
        views: Views = "grouping",
        drop_false_negatives: DropFalseNegatives = "none",
    ) -> None:
        super().__init__(temperature, views=views)
        check_tau_plus(tau_plus)
        check_choice("estimator", estimator, get_args(Estimator))
        check_choice("drop_false_negatives", drop_false_negatives, get_args(DropFalseNegatives))
        if tau_plus == 0:
            raise InputError("Debiased positives divide by tau_plus: it must be above 0.")
        if estimator == "consistent" and drop_false_negatives != "none":
            raise InputError(
                "estimator='consistent' knows the false negatives already: leave "
                "drop_false_negatives at 'none'."
            )
        self.tau_plus = tau_plus
        self.estimator = estimator
        self.drop_false_negatives = drop_false_negatives
        self.uses_labels = estimator == "consistent" or drop_false_negatives != "none"

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        found = self._moments(terms)
        bound = 1 / self.temperature
        negatives = (found.log_negatives - bound).exp()
        divisor = found.num_negatives if self.estimator == "sum" else found.num_everything
        raw = found.everything / divisor - (1 - self.tau_plus) * negatives / found.num_negatives
        raw = raw / self.tau_plus
        is_clamped = raw <= math.exp(-2 * bound)
        log_r = (raw.masked_fill(is_clamped, 1).log() + bound).masked_fill(is_clamped, -bound)
        loss = softplus(found.log_negatives - log_r)
        return loss, {"clamped_share": is_clamped.to(loss.dtype), "estimate": log_r.exp()}

    def _moments(self, terms: ContrastiveTerms) -> _Moments:
        everyone = terms.is_negative
        true = everyone & ~same_label(terms) if self.uses_labels else everyone
        log_others, log_true = (log_sum(terms.keys, mask) for mask in (everyone, true))
        num_others, num_true = (mask.sum(dim=1).to(log_true.dtype) for mask in (everyone, true))
        drop = self.drop_false_negatives
        if drop == "exclude":
            num_others = num_true
        if drop == "exclude" or (drop == "published" and self.estimator == "mean"):
            log_others = log_true
        itself = 0.0 if drop == "published" and self.estimator == "mean" else 1.0  # h(x, x)
        bound = 1 / self.temperature
        positive = (terms.positives - bound).exp().mean(dim=1)
        return _Moments(
            everything=(log_others - bound).exp() + positive + itself,
            num_everything=num_others + 2,
            log_negatives=log_true,
            num_negatives=(num_others if drop == "published" else num_true).clamp(min=1),
        )


class DebiasedBothLoss(ContrastiveLoss):
    r"""A weighted combination of debiased positives and debiased negatives.

    $$ L = w L_{DebiasedPositives} + (1 - w) L_{DebiasedNegatives} $$

    Tried with $1 - w$ of .05 to .75 in the code that preceded Troeshestova & Isachenko 2023.
    """

    def __init__(
        self, positives: DebiasedPositivesLoss, negatives: DebiasedNegativesLoss, weight: float
    ) -> None:
        if (positives.temperature, positives.views) != (negatives.temperature, negatives.views):
            raise InputError("The two losses need one temperature and one way to take views.")
        if not (math.isfinite(weight) and 0 <= weight <= 1):
            raise InputError(f"The weight of the positives must lie in 0..1, not be {weight}.")
        super().__init__(positives.temperature, views=positives.views)
        self.positives, self.negatives, self.weight = positives, negatives, weight
        self.uses_labels = positives.uses_labels or negatives.uses_labels

    @property
    def tau_plus(self) -> float:
        """The class prior that both correct for."""
        return self.positives.tau_plus

    @tau_plus.setter
    def tau_plus(self, value: float) -> None:
        self.positives.tau_plus = self.negatives.tau_plus = value

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        positive, of_positives = self.positives._losses(terms)
        negative, of_negatives = self.negatives._losses(terms)
        metrics = {f"positives_{name}": value for name, value in of_positives.items()}
        metrics |= {f"negatives_{name}": value for name, value in of_negatives.items()}
        return self.weight * positive + (1 - self.weight) * negative, metrics
