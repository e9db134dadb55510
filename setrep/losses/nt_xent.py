"""The plain contrastive loss: pick the other view among all others of the batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from setrep.errors import InputError
from setrep.losses.contrastive import ContrastiveLoss, ContrastiveTerms, log_sum


class NTXentLoss(ContrastiveLoss):
    r"""Normalised temperature-scaled cross entropy (Chen et al. 2020, Eq. 1), anchors averaged.

    $$ L = -\log \frac{e^{x \cdot x^+ / t}}
       {e^{x \cdot x^+ / t} + \sum_{i=1}^N e^{x \cdot u_i / t}} $$

    The $N = 2B - 2$ negatives $u_i$ are all rows of both views but the anchor and its other view.
    More than two views are combined: the mean of the loss over all pairs of views.
    `drop_false_negatives` leaves out negatives of the anchor's label, which asks for labels.
    """

    def __init__(self, temperature: float = 0.5, *, drop_false_negatives: bool = False) -> None:
        super().__init__(temperature, views="combination")
        self.uses_labels = drop_false_negatives

    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        is_negative = terms.is_negative
        if self.uses_labels:
            is_negative = is_negative & ~same_label(terms)
        return softplus(log_sum(terms.keys, is_negative) - terms.positives[:, 0]), {}


def same_label(terms: ContrastiveTerms) -> Tensor:
    """Return which keys share the anchor's label."""
    if terms.is_same_label is None:
        raise InputError("This loss needs the label of each item: pass labels.")
    return terms.is_same_label
