"""Contrastive losses whose negatives are corrected for those that secretly share the label."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from setrep.errors import InputError
from setrep.losses.checks import check_choice, check_tau_plus
from setrep.losses.contrastive import ContrastiveLoss, ContrastiveTerms, Views, log_sum
from setrep.losses.nt_xent import same_label

DropFalseNegatives = Literal["none", "exclude", "published"]
Tilt = Literal["code", "paper"]


class DebiasedNegativesLoss(ContrastiveLoss):
    r"""Debiased contrastive learning (Chuang et al. 2020, Eq. 7 and 8), anchors averaged.

    $$ L = -\log \frac{h(x, x^+)}{h(x, x^+) + N g}, \quad g = \max\Big\{ \frac{1}{\tau^-} \Big(
       \frac1N \sum_{i=1}^N h(x, u_i) - \tau^+ \frac1M \sum_{j=1}^M h(x, v_j) \Big), e^{-1/t}
       \Big\} $$

    with $h(a, b) = e^{a \cdot b / t}$, $\tau^- = 1 - \tau^+$, the $N = 2B - 2$ other rows of the
    first two views as $u_i$, and as $v_j$ the other view and the extra ones. At `tau_plus=0` it is
    `NTXentLoss`. The official code has M = 1 only.

    `drop_false_negatives` asks for labels. `exclude` takes the mean over true negatives, N is their
    number, and nothing is left to correct: `tau_plus` counts as 0. `published` (the code of
    Troeshestova & Isachenko 2023) leaves them out of the sum only, and corrects a second time.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        tau_plus: float = 0.1,
        views: Views = "grouping",
        drop_false_negatives: DropFalseNegatives = "none",
    ) -> None:
        super().__init__(temperature, views=views)
        check_tau_plus(tau_plus)
        check_choice("drop_false_negatives", drop_false_negatives, get_args(DropFalseNegatives))
        self.tau_plus = tau_plus
        self.drop_false_negatives = drop_false_negatives
        self.uses_labels = drop_false_negatives != "none"

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        is_negative, num_negatives, tau_plus = self._negatives(terms)
        log_negatives = self._log_sum(terms.keys, is_negative) - num_negatives.log()
        log_positives = self._log_mean_positive(terms.positives)
        log_g, is_clamped = debias(log_negatives, log_positives, tau_plus, 1 / self.temperature)
        loss = softplus(num_negatives.log() + log_g - terms.positives[:, 0])
        loss = loss.masked_fill(~is_negative.any(dim=1), 0)  # nobody to tell apart
        return loss, {"clamped_share": is_clamped.to(loss.dtype), "estimate": log_g.exp()}

    def _negatives(
        self, terms: ContrastiveTerms
    ) -> tuple[Bool[Tensor, "anchor key"], Float[Tensor, " anchor"], float]:
        """Return who is summed over, by how many is divided, and what is corrected for."""
        everyone = terms.is_negative
        summed = everyone if not self.uses_labels else everyone & ~same_label(terms)
        counted = summed if self.drop_false_negatives == "exclude" else everyone
        tau_plus = 0.0 if self.drop_false_negatives == "exclude" else self.tau_plus
        return summed, counted.sum(dim=1).clamp(min=1).to(terms.keys.dtype), tau_plus

    def _log_sum(
        self, logits: Float[Tensor, "anchor key"], mask: Bool[Tensor, "anchor key"]
    ) -> Float[Tensor, " anchor"]:
        """Return the logarithm of the sum of h over the negatives."""
        return log_sum(logits, mask)

    def _log_mean_positive(self, logits: Float[Tensor, "anchor M"]) -> Float[Tensor, " anchor"]:
        return logits.logsumexp(dim=1) - math.log(logits.shape[1])


class HardNegativesLoss(DebiasedNegativesLoss):
    r"""Contrastive learning with hard negatives (Robinson et al. 2021, Eq. 4), anchors averaged.

    `DebiasedNegativesLoss` with the negatives weighted by their similarity to the anchor,

    $$ \frac1N \sum_i w_i h(x, u_i), \quad w_i = \frac{h(x, u_i)^\beta}{\frac1N \sum_k
       h(x, u_k)^\beta} $$

    and the positives alike where M > 1. At `beta=0` it is `DebiasedNegativesLoss`. The exponent of
    the official code, which gave the published numbers, is that of $h$ (`tilt="code"`); the paper's
    section 3 has $e^{\beta f(x) \cdot f(u)}$, which is the code's at $\beta t$ (`tilt="paper"`).
    The paper's pseudo-code, `(beta * neg) / neg.mean()`, is an error that the authors confirmed; at
    `beta=1` it has the same value. Gradients flow through the weights, as in the code.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        tau_plus: float = 0.1,
        beta: float = 1.0,
        tilt: Tilt = "code",
        views: Views = "grouping",
        drop_false_negatives: Literal["none", "exclude"] = "none",
    ) -> None:
        check_choice("drop_false_negatives", drop_false_negatives, ("none", "exclude"))
        super().__init__(
            temperature, tau_plus=tau_plus, views=views, drop_false_negatives=drop_false_negatives
        )
        if not (math.isfinite(beta) and beta >= 0):
            raise InputError(f"beta must be a finite number of at least 0, not {beta}.")
        check_choice("tilt", tilt, get_args(Tilt))
        self.beta = beta
        self.exponent = beta if tilt == "code" else beta * temperature

    def _log_sum(
        self, logits: Float[Tensor, "anchor key"], mask: Bool[Tensor, "anchor key"]
    ) -> Float[Tensor, " anchor"]:
        tilted = log_sum((1 + self.exponent) * logits, mask) - log_sum(self.exponent * logits, mask)
        num_negatives = mask.sum(dim=1).to(logits.dtype)
        return tilted.masked_fill(num_negatives == 0, -torch.inf) + num_negatives.log()

    def _log_mean_positive(self, logits: Float[Tensor, "anchor M"]) -> Float[Tensor, " anchor"]:
        return ((1 + self.exponent) * logits).logsumexp(dim=1) - (self.exponent * logits).logsumexp(
            dim=1
        )


def debias(
    log_negatives: Float[Tensor, " anchor"],
    log_positives: Float[Tensor, " anchor"],
    tau_plus: float,
    bound: float,
) -> tuple[Float[Tensor, " anchor"], Bool[Tensor, " anchor"]]:
    r"""Return $\log \max\{(e^n - \tau^+ e^p) / \tau^-, e^{-bound}\}$, and where the floor holds.

    The floor has no gradient: there only the positive of the numerator is learned from.
    """
    scale = torch.maximum(log_negatives, log_positives).detach()
    raw = (log_negatives - scale).exp() - tau_plus * (log_positives - scale).exp()
    raw = raw / (1 - tau_plus)
    is_clamped = raw <= (-bound - scale).exp()
    log_g = raw.masked_fill(is_clamped, 1).log() + scale
    return log_g.masked_fill(is_clamped, -bound), is_clamped
