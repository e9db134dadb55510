"""Negatives weighted by how much harder they are for one encoder than for a biased one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from setrep.errors import InputError
from setrep.losses.checks import check_choice, check_tau_plus, check_views
from setrep.losses.contrastive import ContrastiveLoss, ContrastiveTerms, log_sum, masked_mean
from setrep.losses.debiased_negatives import debias


class DifficultyWeightedLoss(ContrastiveLoss):
    r"""Difficulty-weighted debiased contrastive loss (Jang & Wang, CVPR 2023), anchors averaged.

    $$ L = -\log \frac{h}{h + N g}, \quad N g = \max\Big\{ \frac{\sum_i w_i h_d(x, u_i) -
       \tau^+ N h_d(x, x^+)}{\tau^-}, N e^{-1/t} \Big\}, \quad
       w_i = 1 + \frac{s_{d,i}}{s_{b,i} + s_{d,i} + 10^{-6}} $$

    $s_d$ and $s_b$ are the anchor's similarities $h$ to its negatives under the encoder that is
    learned and under a biased one, each row divided by its L2 norm. A negative weighs most where
    the first finds it close and the biased one far. Weights carry no gradient. They lie in 1..2 and
    so raise the sum of the negatives by about a half; `normalize_weights` divides by their mean,
    which the official code (of which this is `main-wctr.py`) does not.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        tau_plus: float = 0.1,
        normalize_weights: bool = False,
    ) -> None:
        super().__init__(temperature)
        check_tau_plus(tau_plus)
        self.tau_plus = tau_plus
        self.normalize_weights = normalize_weights

    def forward(
        self,
        *views: Float[Tensor, "n dim"],
        biased: Sequence[Float[Tensor, "n other_dim"]] = (),
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean loss of the anchors; `biased` are the views under the biased encoder."""
        return self.with_metrics(*views, biased=biased, labels=labels, anchors=anchors)[0]

    def with_metrics(
        self,
        *views: Float[Tensor, "n dim"],
        biased: Sequence[Float[Tensor, "n other_dim"]] = (),
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch."""
        check_views(views, labels)
        if len(views) != 2 or len(biased) != 2:
            raise InputError(
                f"The difficulty-weighted loss takes two views under each of two encoders, not "
                f"{len(views)} and {len(biased)}."
            )
        check_views(biased, labels)
        with torch.autocast(views[0].device.type, enabled=False):
            terms = self._terms(views, labels, anchors)
            of_biased = self._terms(tuple(biased), labels, anchors)
            weights = self.weights(terms, of_biased)
            loss, metrics = self._mean(terms._replace(keys=terms.keys + weights.log()))
            similarity = masked_mean(terms.keys.detach(), terms.is_negative).mean()
        return loss, metrics | {
            "negative_similarity": similarity * self.temperature,
            "weight_spread": weights[terms.is_negative].std(correction=0),
        }

    @torch.no_grad()
    def weights(
        self, terms: ContrastiveTerms, biased: ContrastiveTerms
    ) -> Float[Tensor, "anchor key"]:
        """Return the weight of each negative of each anchor, and 1 elsewhere."""
        mask = terms.is_negative
        weights = difficulty_weights(terms.keys, biased.keys, mask)
        if not self.normalize_weights:
            return weights
        mean = weights.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / mask.sum(1, keepdim=True)
        return (weights / mean).masked_fill(~mask, 1)

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        num_negatives = terms.is_negative.sum(dim=1).to(terms.keys.dtype)
        log_mean = log_sum(terms.keys, terms.is_negative) - num_negatives.log()
        positive = terms.positives[:, 0]
        log_g, is_clamped = debias(log_mean, positive, self.tau_plus, 1 / self.temperature)
        loss = softplus(num_negatives.log() + log_g - positive)
        return loss, {"clamped_share": is_clamped.to(loss.dtype), "estimate": log_g.exp()}


def difficulty_weights(
    own: Float[Tensor, "anchor key"],
    biased: Float[Tensor, "anchor key"],
    is_negative: Bool[Tensor, "anchor key"],
) -> Float[Tensor, "anchor key"]:
    """Return the weight of each negative from the log similarities of two encoders; 1 elsewhere."""
    own, biased = (
        (keys - log_sum(2 * keys, is_negative).unsqueeze(1) / 2).exp() for keys in (own, biased)
    )
    return (1 + own / (biased + own + 1e-6)).masked_fill(~is_negative, 1)


class DebiasedTripletLoss(ContrastiveLoss):
    r"""Debiased self-supervised triplet loss of the biased encoder (Jang & Wang, CVPR 2023).

    $$ L = d^+ - \frac{\sum_i d_i - \tau^+ N d^+}{\tau^-}, \quad d = \|x - u\|^2 $$

    on the unit sphere, without margin or hinge, anchors averaged: it has a minimum because no $d$
    exceeds 4. `reduction="sum"` is the official `main-wctr.py`; `"mean"` divides the second term by
    N, as its other scripts do. More than two views are combined, as in `NTXentLoss`.
    """

    def __init__(self, *, tau_plus: float = 0.1, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__(1.0, views="combination")
        check_tau_plus(tau_plus)
        check_choice("reduction", reduction, get_args(Literal["sum", "mean"]))
        self.tau_plus = tau_plus
        self.reduction = reduction

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        to_positive = 2 - 2 * terms.positives[:, 0]
        to_negatives = (2 - 2 * terms.keys).masked_fill(~terms.is_negative, 0).sum(dim=1)
        num_negatives = terms.is_negative.sum(dim=1).to(to_positive.dtype)
        corrected = to_negatives - self.tau_plus * num_negatives * to_positive
        corrected = corrected / (1 - self.tau_plus)
        if self.reduction == "mean":
            corrected = corrected / num_negatives
        return to_positive - corrected, {}
