"""The triplet loss: an anchor should be nearer to its positive than to its negative."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep.errors import InputError
from setrep.functional import (
    Positives,
    Triplets,
    all_triplets,
    at_least_float32,
    pairwise_distance,
)
from setrep.losses.checks import check_batch, check_choice, collapsed

Distance = Literal["euclidean", "squared"]
Reduction = Literal["mean", "mean_nonzero", "sum"]


class TripletMarginLoss(nn.Module):
    r"""Triplet loss on distances that are Euclidean and not squared (Karimov 2024).

    $$ L = \sum_{(a, p, n)} ( \|f(x_a) - f(x_p)\| - \|f(x_a) - f(x_n)\| + m )_+ $$

    `distance="squared"` squares both distances (FaceNet); `soft=True` replaces the hinge by
    $\log(1 + e^{d_{ap} - d_{an}})$ and does not use the margin (Hermans et al. 2017). Embeddings
    are taken as they are. The reduction is over all triplets, or over those with a loss above 0.

    Without `triplets`, all valid ones are used; `positives` then says which pairs of a label are
    positive. Where there is no triplet, the loss is a 0 that can be differentiated.

    Raises:
        InputError: an option, the batch or the form of the triplets is not usable.
    """

    def __init__(
        self,
        margin: float = 0.2,
        *,
        distance: Distance = "euclidean",
        soft: bool = False,
        reduction: Reduction = "mean",
        positives: Positives = "any",
    ) -> None:
        super().__init__()
        if not (math.isfinite(margin) and margin >= 0):
            raise InputError(f"The margin must be a finite number of at least 0, not {margin}.")
        check_choice("distance", distance, get_args(Distance))
        check_choice("reduction", reduction, get_args(Reduction))
        check_choice("positives", positives, get_args(Positives))
        self.margin = margin
        self.distance = distance
        self.soft = soft
        self.reduction = reduction
        self.positives: Positives = positives

    def forward(
        self,
        embeddings: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"],
        triplets: tuple[Tensor, Tensor, Tensor] | None = None,
        *,
        collections: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss over the triplets given, or over all valid ones."""
        return self.with_metrics(embeddings, labels, triplets, collections=collections)[0]

    def with_metrics(
        self,
        embeddings: Float[Tensor, "n dim"],
        labels: Int64[Tensor, " n"],
        triplets: tuple[Tensor, Tensor, Tensor] | None = None,
        *,
        collections: Int64[Tensor, " n"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch: a mean over no triplets is reported as 0."""
        if triplets is None:
            check_batch(embeddings, labels, collections, self.positives)
            triplets = all_triplets(labels, collections, self.positives)
        else:
            check_batch(embeddings, labels, collections, "any")
        with torch.autocast(embeddings.device.type, enabled=False):
            positive, negative = _distances(embeddings, _as_triplets(triplets))
            if self.distance == "squared":
                positive, negative = positive.square(), negative.square()
            losses = self._losses(positive - negative)
            loss = losses.sum() / self._divisor(losses)
        active = positive > negative if self.soft else losses > 0
        return loss, {
            "num_triplets": losses.new_tensor(len(losses)),
            "active_share": _mean(active.to(losses.dtype)),
            "positive_distance": _mean(positive.detach()),
            "negative_distance": _mean(negative.detach()),
            "collapsed": collapsed(embeddings),
        }

    def _losses(self, violation: Float[Tensor, " triplet"]) -> Float[Tensor, " triplet"]:
        """Turn how much farther the positive is than the negative into a loss."""
        if self.soft:
            return nn.functional.softplus(violation)
        return nn.functional.relu(violation + self.margin)

    def _divisor(self, losses: Float[Tensor, " triplet"]) -> Tensor | int:
        """Return what the sum of the losses is divided by, never 0."""
        if self.reduction == "mean_nonzero":
            return (losses > 0).sum().clamp(min=1)
        return max(len(losses), 1) if self.reduction == "mean" else 1


def _distances(
    embeddings: Float[Tensor, "n dim"], triplets: Triplets
) -> tuple[Float[Tensor, " triplet"], Float[Tensor, " triplet"]]:
    """Return how far each anchor is from its positive and from its negative.

    Many triplets share their pairs, so all pairs are measured once. Few triplets, as most miners
    give, are measured one by one: each costs about as much as eight entries of the matrix.
    """
    anchors, positives, negatives = triplets
    if 8 * len(anchors) > len(embeddings) ** 2:
        distance = pairwise_distance(embeddings)
        return distance[anchors, positives], distance[anchors, negatives]
    values = at_least_float32(embeddings)
    origin = values[anchors]
    positive = torch.linalg.vector_norm(origin - values[positives], dim=1)
    return positive, torch.linalg.vector_norm(origin - values[negatives], dim=1)


def _mean(values: Float[Tensor, " triplet"]) -> Float[Tensor, ""]:
    """Average, or return 0 where there is nothing to average."""
    return values.sum() / max(len(values), 1)


def _as_triplets(triplets: tuple[Tensor, ...]) -> Triplets:
    """Refuse what is not three index tensors of one length, pairs of a pair miner above all."""
    found = [tuple(indices.shape) for indices in triplets]
    if len(found) != 3 or len(set(found)) != 1 or len(found[0]) != 1:
        raise InputError(
            f"Triplets must be (anchors, positives, negatives), three index tensors of one length, "
            f"not {len(found)} tensors of shapes {found}: use a miner that returns triplets."
        )
    return Triplets(*triplets)
