"""The supervised contrastive loss: each anchor against all others of the batch."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from setrep.errors import InputError
from setrep.functional import (
    Positives,
    at_least_float32,
    everyone,
    negative_mask,
    positive_mask,
)
from setrep.losses.checks import Total, alone, check_batch, check_choice, collapsed

Form = Literal["out", "in"]
Singletons = Literal["skip", "count"]


class SupConLoss(nn.Module):
    r"""Supervised contrastive loss (Khosla et al. 2020, Eq. 2 `out`, Eq. 3 `in`), anchors averaged.

    $$ L_{out} = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
       \log \frac{e^{z_i \cdot z_p / \tau}}{\sum_{a \in A(i)} e^{z_i \cdot z_a / \tau}} \qquad
       L_{in} = -\log \frac{1}{|P(i)|} \sum_{p \in P(i)}
       \frac{e^{z_i \cdot z_p / \tau}}{\sum_{a \in A(i)} e^{z_i \cdot z_a / \tau}} $$

    The paper assumes embeddings of unit norm; they are taken as they are. The scale is the paper's;
    `base_temperature` multiplies by temperature / base_temperature as the official code does (0.07
    there). Anchors without a positive are left out of the mean, or count as 0 (official code).

    $A(i)$ holds the positives and the items of other labels. A pair of one label that `positives`
    excludes is in neither set: in the denominator it would be pushed apart like a negative.

    Raises:
        InputError: an option or the batch is not usable, or triplets are given.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        form: Form = "out",
        base_temperature: float | None = None,
        singletons: Singletons = "skip",
        positives: Positives = "any",
    ) -> None:
        super().__init__()
        base = temperature if base_temperature is None else base_temperature
        for name, value in (("temperature", temperature), ("base_temperature", base)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"The {name} must be a finite number above 0, not {value}.")
        check_choice("form", form, get_args(Form))
        check_choice("singletons", singletons, get_args(Singletons))
        check_choice("positives", positives, get_args(Positives))
        self.temperature = temperature
        self.form = form
        self.scale = temperature / base
        self.singletons = singletons
        self.positives: Positives = positives

    def forward(
        self,
        embeddings: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"],
        triplets: tuple[Tensor, Tensor, Tensor] | None = None,
        *,
        collections: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean loss of the anchors; 0 that can be differentiated if there are none."""
        return self.with_metrics(embeddings, labels, triplets, collections=collections)[0]

    def with_metrics(
        self,
        embeddings: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"],
        triplets: tuple[Tensor, Tensor, Tensor] | None = None,
        *,
        collections: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
        total: Total = alone,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch: a mean over no pairs is reported as 0.

        Of several processes each passes the positions of its own `anchors`, and `total`, which adds
        a number over processes: losses that are then added are that of the whole batch.
        """
        if triplets is not None:
            raise InputError(
                "SupConLoss learns from all pairs and takes no triplets: use no miner."
            )
        check_batch(embeddings, labels, collections, self.positives)
        rows = everyone(labels) if anchors is None else anchors
        positive = positive_mask(labels, collections, self.positives, rows)
        has_positive = positive.any(dim=1)
        rows, positive = rows[has_positive], positive[has_positive]
        negative = negative_mask(labels, rows)
        with torch.autocast(embeddings.device.type, enabled=False):
            values = at_least_float32(embeddings)
            similarity = values[rows] @ values.T
            losses = self._losses(similarity / self.temperature, positive, negative)
        sums = [similarity.detach().masked_fill(~of, 0).sum() for of in (positive, negative)]
        counts = [losses.new_tensor(len(rows)), positive.sum(), negative.sum()]
        found = total(torch.stack([x.to(losses.dtype) for x in counts + sums]))
        num_anchors, num_positive, num_negative, positives, negatives = found.unbind()
        divisor = num_anchors.clamp(min=1) if self.singletons == "skip" else max(len(labels), 1)
        return self.scale * losses.sum() / divisor, {
            "num_anchors": num_anchors,
            "positive_similarity": positives / num_positive.clamp(min=1),
            "negative_similarity": negatives / num_negative.clamp(min=1),
            "collapsed": collapsed(embeddings),
        }

    def _losses(
        self,
        logits: Float[Tensor, "anchor n"],
        positive: Bool[Tensor, "anchor n"],
        negative: Bool[Tensor, "anchor n"],
    ) -> Float[Tensor, " anchor"]:
        """Return the loss of each anchor, all of which have a positive."""
        num_positives = positive.sum(dim=1).to(logits.dtype)
        if self.form == "out":
            numerator = logits.masked_fill(~positive, 0).sum(dim=1) / num_positives
        else:
            among_positives = logits.masked_fill(~positive, -torch.inf)
            numerator = among_positives.logsumexp(dim=1) - num_positives.log()
        denominator = logits.masked_fill(~(positive | negative), -torch.inf).logsumexp(dim=1)
        return denominator - numerator
