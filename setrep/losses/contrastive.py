"""What contrastive losses share: anchors, their positives and all others, and pairs of views."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from setrep.errors import InputError
from setrep.functional import at_least_float32
from setrep.losses.checks import check_choice, check_views

Views = Literal["grouping", "combination"]


class ContrastiveTerms(NamedTuple):
    """Logits (cosine similarity / temperature) of anchors, the rows of the first two views.

    A key is a row of the first two views. `positives` holds the anchor's other view, then the
    extra ones; `is_negative` leaves out the anchor itself and its other view.
    """

    positives: Float[Tensor, "anchor M"]
    keys: Float[Tensor, "anchor key"]
    is_negative: Bool[Tensor, "anchor key"]
    is_same_label: Bool[Tensor, "anchor key"] | None  # also the anchor and its other view


class ContrastiveLoss(nn.Module, ABC):
    """A loss of views of the same items, called as `loss(view1, view2, ..., labels=None)`.

    Views are L2-normalised here. `anchors` restricts the mean to some items, all of which still
    count as keys: a process takes its own as anchors against those of all. More than two views
    are either grouped (the extra ones join the positives of the first two), or combined (mean of
    the loss over all pairs of views).

    Raises:
        InputError: an option is out of range, or the views do not belong together.
    """

    uses_labels = False

    def __init__(self, temperature: float = 0.5, *, views: Views = "grouping") -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"The temperature must be a finite number above 0, not {temperature}.")
        check_choice("views", views, get_args(Views))
        self.temperature = temperature
        self.views = views

    def forward(
        self,
        *views: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean loss of the anchors in the first two views, or in each pair."""
        return self.with_metrics(*views, labels=labels, anchors=anchors)[0]

    def with_metrics(
        self,
        *views: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch."""
        check_views(views, labels)
        if self.uses_labels and labels is None:
            raise InputError(
                f"This {type(self).__name__} needs the label of each item: pass labels."
            )
        groups = combinations(views, 2) if self.views == "combination" else [views]
        with torch.autocast(views[0].device.type, enabled=False):
            found = [self._mean(self._terms(group, labels, anchors)) for group in groups]
        loss = torch.stack([loss for loss, _ in found]).mean()
        return loss, {
            name: torch.stack([metrics[name] for _, metrics in found]).mean()
            for name in found[0][1]
        }

    @abstractmethod
    def _losses(
        self, terms: ContrastiveTerms
    ) -> tuple[Float[Tensor, " anchor"], dict[str, Tensor]]:
        """Return the loss of each anchor and, of each, what to average for the log."""

    def _mean(self, terms: ContrastiveTerms) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = self._losses(terms)
        metrics = {
            "positive_similarity": terms.positives[:, 0] * self.temperature,
            "negative_similarity": masked_mean(terms.keys, terms.is_negative) * self.temperature,
        } | metrics
        return losses.mean(), {name: of.detach().mean() for name, of in metrics.items()}

    def _terms(
        self,
        views: tuple[Float[Tensor, "n dim"], ...],
        labels: Int64[Tensor, " n"] | None,
        anchors: Int64[Tensor, " anchor"] | None,
    ) -> ContrastiveTerms:
        units = [normalize(at_least_float32(view)) for view in views]
        n, keys = len(units[0]), torch.cat(units[:2])
        chosen = torch.arange(n, device=keys.device) if anchors is None else anchors
        own, other = torch.cat([chosen, chosen + n]), torch.cat([chosen + n, chosen])
        logits = keys[own] @ keys.T / self.temperature
        extra = [(keys[own] * view[chosen].repeat(2, 1)).sum(dim=1) for view in units[2:]]
        positives = [logits.gather(1, other.unsqueeze(1)).squeeze(1)]
        positives += [similarity / self.temperature for similarity in extra]
        is_negative = torch.ones_like(logits, dtype=torch.bool)
        is_negative.scatter_(1, torch.stack([own, other], dim=1), False)
        same = None
        if labels is not None:
            twice = labels.repeat(2)
            same = twice[own].unsqueeze(1) == twice.unsqueeze(0)
        return ContrastiveTerms(torch.stack(positives, dim=1), logits, is_negative, same)


def log_sum(
    logits: Float[Tensor, "anchor key"], mask: Bool[Tensor, "anchor key"]
) -> Float[Tensor, " anchor"]:
    """Return log(sum(exp)) of each row where the mask holds; -inf, with gradient 0, of nothing."""
    none = ~mask.any(dim=1)
    filled = logits.masked_fill(~mask, -torch.inf)
    return filled.masked_fill(none.unsqueeze(1), 0).logsumexp(dim=1).masked_fill(none, -torch.inf)


def masked_mean(
    values: Float[Tensor, "anchor key"], mask: Bool[Tensor, "anchor key"]
) -> Float[Tensor, " anchor"]:
    """Average each row where the mask holds; 0 of nothing."""
    return values.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
