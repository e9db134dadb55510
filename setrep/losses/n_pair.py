"""The N-pair loss: each anchor against the positives of all other classes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from setrep.errors import InputError
from setrep.functional import at_least_float32
from setrep.losses.checks import check_views


class NPairLoss(nn.Module):
    r"""N-pair loss (Sohn 2016, Eq. 6), one pair of each of N classes, anchors averaged.

    $$ L = \frac1N \sum_i \log \Big( 1 + \sum_{j \neq i} e^{f_i \cdot f_j^+ - f_i \cdot f_i^+}
       \Big) + \frac{\lambda}{4} \Big( \overline{\|f\|^2} + \overline{\|f^+\|^2} \Big) $$

    Embeddings are taken as they are, not normalised; the penalty with $\lambda$ = `l2_weight` keeps
    them from growing. Without labels every item counts as a class of its own.

    Raises:
        InputError: there are not two views of one shape, or two pairs share a label.
    """

    uses_labels = False

    def __init__(self, *, l2_weight: float = 0.0) -> None:
        super().__init__()
        if not (math.isfinite(l2_weight) and l2_weight >= 0):
            raise InputError(f"l2_weight must be a finite number of at least 0, not {l2_weight}.")
        self.l2_weight = l2_weight

    def forward(
        self,
        *views: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean loss of the anchors, rows of the first view."""
        return self.with_metrics(*views, labels=labels, anchors=anchors)[0]

    def with_metrics(
        self,
        *views: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch."""
        check_views(views, labels)
        if len(views) != 2:
            raise InputError(f"The N-pair loss takes two views of each item, not {len(views)}.")
        if labels is not None and len(torch.unique(labels)) < len(labels):
            raise InputError("The N-pair loss takes one pair of each class; two share a label.")
        with torch.autocast(views[0].device.type, enabled=False):
            first, positives = (at_least_float32(view) for view in views)
            chosen = torch.arange(len(first), device=first.device) if anchors is None else anchors
            loss = cross_entropy(first[chosen] @ positives.T, chosen)
            norms = (first[chosen].square() + positives[chosen].square()).sum(dim=1).mean()
            return loss + self.l2_weight / 4 * norms, {"squared_norm": norms.detach() / 2}
