"""Miners: from the labels and distances of a batch to the triplets worth learning from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from setrep.errors import InputError, nearest
from setrep.functional import (
    Positives,
    Triplets,
    negative_mask,
    pairwise_distance,
    positive_mask,
)

Distance = Literal["euclidean", "squared"]
Fallback = Literal["none", "farthest"]
Embeddings = Float[Tensor, "n dim"]
Mask = Bool[Tensor, "anchor n"]
Distances = Callable[[], Float[Tensor, "anchor n"]]


@dataclass(frozen=True)
class Miner(ABC):
    """Choose triplets: called as `miner(embeddings, labels, collections=None, anchors=None)`.

    Positives are the other items of the anchor's label, or only those of the anchor's own or of
    another collection, as `positives` says; negatives are all items of other labels. An anchor that
    lacks either gives no triplet. Equal distances go to the lowest position. `anchors` names the
    positions whose triplets are wanted; none stands for all.

    Raises:
        InputError: an option, or the batch, is not usable.
    """

    positives: Positives = field(default="any", kw_only=True)

    def __post_init__(self) -> None:
        _check_choice("positives", self.positives, get_args(Positives))

    @torch.no_grad()
    def __call__(
        self,
        embeddings: Embeddings,
        labels: Int64[Tensor, " n"],
        collections: Int64[Tensor, " n"] | None = None,
        anchors: Int64[Tensor, " anchor"] | None = None,
    ) -> Triplets:
        """Mine the batch."""
        for name, found in (("labels", labels), ("collections", collections)):
            if found is not None and found.shape != embeddings.shape[:1]:
                raise InputError(
                    f"{len(embeddings)} embeddings need {name} of shape ({len(embeddings)},), "
                    f"not {tuple(found.shape)}: pass one for each embedding."
                )
        if self.positives != "any" and collections is None:
            raise InputError(
                f"positives='{self.positives}' needs the collection of each item, but none was "
                f"given: pass collections, or use positives='any'."
            )
        negative = negative_mask(labels, anchors)
        positive = positive_mask(labels, collections, self.positives, anchors)
        positive &= negative.any(dim=1, keepdim=True)
        origins = embeddings if anchors is None else embeddings[anchors]
        others = None if anchors is None else embeddings
        triplets = self._mine(lambda: pairwise_distance(origins, others), positive, negative)
        if anchors is None:
            return triplets
        return triplets._replace(anchors=anchors[triplets.anchors])

    @abstractmethod
    def _mine(self, distance: Distances, positive: Mask, negative: Mask) -> Triplets:
        """Choose among the pairs, anchors as rows; whoever has a positive has a negative too."""


@dataclass(frozen=True)
class BatchAllMiner(Miner):
    """Every valid triplet of the batch."""

    def _mine(self, distance: Distances, positive: Mask, negative: Mask) -> Triplets:
        anchors, positives = positive.nonzero(as_tuple=True)
        pair, negatives = negative[anchors].nonzero(as_tuple=True)
        return Triplets(anchors[pair], positives[pair], negatives)


@dataclass(frozen=True)
class BatchHardMiner(Miner):
    r"""For each anchor the farthest positive and the nearest negative (Hermans et al. 2017, Eq. 5).

    $$ p = \arg\max_{y_p = y_a} d_{ap}, \quad n = \arg\min_{y_n \neq y_a} d_{an} $$
    """

    def _mine(self, distance: Distances, positive: Mask, negative: Mask) -> Triplets:
        anchors = positive.any(dim=1).nonzero().squeeze(1)
        farthest_positive = _first_smallest(-(to_all := distance()), positive)
        nearest_negative = _first_smallest(to_all, negative)
        return Triplets(anchors, farthest_positive[anchors], nearest_negative[anchors])


@dataclass(frozen=True)
class HardNegativeMiner(Miner):
    r"""For each pair of anchor and positive the negative that is nearest to the anchor.

    Karimov 2024 names hard-negative mining without a formula; this is the plain reading.

    $$ n = \arg\min_{y_n \neq y_a} d_{an} $$
    """

    def _mine(self, distance: Distances, positive: Mask, negative: Mask) -> Triplets:
        anchors, positives = positive.nonzero(as_tuple=True)
        nearest_negative = _first_smallest(distance(), negative)
        return Triplets(anchors, positives, nearest_negative[anchors])


@dataclass(frozen=True)
class SemiHardMiner(Miner):
    r"""For each pair of anchor and positive the nearest negative of the band (FaceNet, 2015).

    $$ n = \arg\min_{y_n \neq y_a} d_{an} \quad \text{with} \quad d_{ap} < d_{an} < d_{ap} + m $$

    The band depends on whether distances are squared, as they are in FaceNet: give the `margin` and
    `distance` of the loss. With `fallback="none"` a pair whose band is empty gives no triplet. With
    `fallback="farthest"`, as in TensorFlow, every pair gives one: the band has no upper end (the
    margin is not used), and where all negatives are nearer than the positive, the farthest of them.
    """

    margin: float = 0.2
    distance: Distance = field(default="euclidean", kw_only=True)
    fallback: Fallback = field(default="none", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise InputError(
                f"The margin must be a finite number of at least 0, not {self.margin}."
            )
        _check_choice("distance", self.distance, get_args(Distance))
        _check_choice("fallback", self.fallback, get_args(Fallback))

    def _mine(self, distance: Distances, positive: Mask, negative: Mask) -> Triplets:
        found = distance().square() if self.distance == "squared" else distance()
        anchors, positives = positive.nonzero(as_tuple=True)
        to_positive, to_all = found[anchors, positives].unsqueeze(1), found[anchors]
        band = negative[anchors] & (to_all > to_positive)
        if self.fallback == "none":
            band &= to_all < to_positive + self.margin
        has_band, negatives = band.any(dim=1), _first_smallest(to_all, band)
        if self.fallback == "none":
            return Triplets(anchors[has_band], positives[has_band], negatives[has_band])
        farthest = _first_smallest(-found, negative)[anchors]
        return Triplets(anchors, positives, torch.where(has_band, negatives, farthest))


def _first_smallest(
    values: Float[Tensor, "row n"], allowed: Bool[Tensor, "row n"]
) -> Int64[Tensor, " row"]:
    """Return where each row is smallest among the allowed, the lowest position of equal ones."""
    if values.numel() == 0:  # argmin refuses rows of no columns
        return torch.zeros(len(values), dtype=torch.int64, device=values.device)
    finite = values.clamp(max=torch.finfo(values.dtype).max)  # so that only disallowed are infinite
    return finite.masked_fill(~allowed, torch.inf).argmin(dim=1)


def _check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an option's value that is not among the known ones."""
    if value not in known:
        raise InputError(
            f"Unknown {option} '{value}'.{nearest(str(value), known)} Known: {', '.join(known)}."
        )


__all__ = ["BatchAllMiner", "BatchHardMiner", "HardNegativeMiner", "Miner", "SemiHardMiner"]
