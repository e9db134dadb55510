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
from setrep.losses.checks import Total, alone, check_batch, check_choice, collapsed

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
        anchors: Int64[Tensor, " anchor"] | None = None,
        total: Total = alone,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss and what to watch: a mean over no triplets is reported as 0.

        Of several processes each passes its own triplets, or positions of its own `anchors`, and
        `total`, which adds a number over processes: losses that are then added are that of the
        whole batch.
        """
        if triplets is None:
            check_batch(embeddings, labels, collections, self.positives)
            triplets = all_triplets(labels, collections, self.positives, anchors)
        else:
            check_batch(embeddings, labels, collections, "any")
        with torch.autocast(embeddings.device.type, enabled=False):
            positive, negative = _distances(embeddings, _as_triplets(triplets))
            if self.distance == "squared":
                positive, negative = positive.square(), negative.square()
            losses = self._losses(positive - negative)
        active = positive > negative if self.soft else losses > 0
        watched = (active, losses > 0, positive, negative)
        parts = torch.stack([x.detach().sum(dtype=losses.dtype) for x in watched])
        found = total(torch.cat([losses.new_tensor([len(losses)]), parts]))
        num_triplets, num_nonzero = found[0], found[2]
        share, _, to_positive, to_negative = (found[1:] / num_triplets.clamp(min=1)).unbind()
        divisor = {"mean": num_triplets, "mean_nonzero": num_nonzero, "sum": losses.new_ones(())}
        return losses.sum() / divisor[self.reduction].clamp(min=1), {
            "num_triplets": num_triplets,
            "active_share": share,
            "positive_distance": to_positive,
            "negative_distance": to_negative,
            "collapsed": collapsed(embeddings),
        }

    def _losses(self, violation: Float[Tensor, " triplet"]) -> Float[Tensor, " triplet"]:
        """Turn how much farther the positive is than the negative into a loss."""
        if self.soft:
            return nn.functional.softplus(violation)
        return nn.functional.relu(violation + self.margin)


def _distances(
    embeddings: Float[Tensor, "n dim"], triplets: Triplets
) -> tuple[Float[Tensor, " triplet"], Float[Tensor, " triplet"]]:
    """Return how far each anchor is from its positive and from its negative.

    Many triplets share their pairs, so all pairs are measured once. Few triplets, as most miners
    give, are measured one by one: each costs about as much as eight entries of the matrix.
    """
    anchors, positives, negatives = triplets
    if 8 * len(anchors) > len(embeddings) ** 2:
        is_anchor = torch.zeros(len(embeddings), dtype=torch.bool, device=anchors.device)
        is_anchor[anchors] = True
        if bool(is_anchor.all()):
            distance, rows = pairwise_distance(embeddings), anchors
        else:  # those of one process of several
            distance = pairwise_distance(embeddings[is_anchor], embeddings)
            rows = (is_anchor.cumsum(dim=0) - 1)[anchors]
        return distance[rows, positives], distance[rows, negatives]
    values = at_least_float32(embeddings)
    origin = values[anchors]
    positive = torch.linalg.vector_norm(origin - values[positives], dim=1)
    return positive, torch.linalg.vector_norm(origin - values[negatives], dim=1)


def _as_triplets(triplets: tuple[Tensor, ...]) -> Triplets:
    """Refuse what is not three index tensors of one length, pairs of a pair miner above all."""
    found = [tuple(indices.shape) for indices in triplets]
    if len(found) != 3 or len(set(found)) != 1 or len(found[0]) != 1:
        raise InputError(
            f"Triplets must be (anchors, positives, negatives), three index tensors of one length, "
            f"not {len(found)} tensors of shapes {found}: use a miner that returns triplets."
        )
    return Triplets(*triplets)
