"""What bounds are computed from: triples of collections with their embeddings and weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from setrep import bounds
from setrep.aggregators import Aggregator, NormalizedAggregator
from setrep.bounds import HullCertificate, Triples
from setrep.collection import CollectionBatch
from setrep.data.collections import CollectionTriples

Three = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class BoundSample:
    """Triples of collections (A, B, W) of equal sizes, and the aggregator that embeds them.

    Everything is in float64, the aggregator too, so that what rounds is the bound's own work.
    `loss_margin` is that of the triplet loss which the run was trained with.
    """

    points: tuple[
        Float64[Tensor, "triple n1 dim"],
        Float64[Tensor, "triple n2 dim"],
        Float64[Tensor, "triple n3 dim"],
    ]
    other_w: Float64[Tensor, "triple n3 dim"]  # another W, where the draw has one
    aggregator: Aggregator
    loss_margin: float = 0.0

    @property
    def inner(self) -> Aggregator:
        """The aggregator before its embeddings are brought to unit length."""
        found = self.aggregator
        return found.inner if isinstance(found, NormalizedAggregator) else found

    @cached_property
    def triples(self) -> Triples:
        """Distances of the items."""
        return bounds.measure(*self.points)

    @cached_property
    def others(self) -> list[Triples]:
        """Distances of the items with either W."""
        return [self.triples, bounds.measure(*self.points[:2], self.other_w)]

    @cached_property
    def embeddings(self) -> Three:
        """What the aggregator makes of A, B and W."""
        a, b, w = (self.aggregator(batch_of(x)) for x in self.points)
        return a, b, w

    @cached_property
    def inner_embeddings(self) -> Three:
        """The same before they are brought to unit length."""
        a, b, w = (self.inner(batch_of(x)) for x in self.points)
        return a, b, w

    @cached_property
    def weights(self) -> Three:
        """Weights of the items, of an aggregator with one head."""
        a, b, w = (self.inner.weigh(batch_of(x))[:, 0].view(x.shape[:2]) for x in self.points)
        return a, b, w

    @cached_property
    def distance_same(self) -> Float64[Tensor, " triple"]:
        """Distance of the embeddings of A and B."""
        return apart(self.embeddings[0], self.embeddings[1])

    @cached_property
    def distance_other(self) -> Float64[Tensor, " triple"]:
        """Distance of the embeddings of A and W."""
        return apart(self.embeddings[0], self.embeddings[2])

    @cached_property
    def hull(self) -> HullCertificate:
        """Distance of the convex hulls of A and W, with its certificate."""
        return bounds.hull_distance(self.points[0], self.points[2])

    def take(self, chosen: Bool[Tensor, " triple"]) -> BoundSample:
        """Return some of the triples."""
        a, b, w = (x[chosen] for x in self.points)
        return replace(self, points=(a, b, w), other_w=self.other_w[chosen])


def sample_of(
    embeddings: Float[Tensor, "item dim"],
    drawn: CollectionTriples,
    part: slice,
    aggregator: Aggregator,
    loss_margin: float,
) -> BoundSample:
    """Take some of the triples that were drawn."""
    items = [x[part] for x in (drawn.first, drawn.second, drawn.other)]
    more = drawn.other[next_other(drawn.labels)[part]]
    a, b, w, other = (embeddings[chosen].double() for chosen in (*items, more))
    return BoundSample((a, b, w), other, aggregator, loss_margin)


def next_other(labels: Int64[Tensor, "triple 2"]) -> Int64[Tensor, " triple"]:
    """Find for each triple the next one whose W has not the label of its A; else itself."""
    found = torch.arange(len(labels))
    for step in range(1, min(len(labels), 10)):
        following = (torch.arange(len(labels)) + step) % len(labels)
        is_open = found == torch.arange(len(labels))
        is_apart = labels[following, 1] != labels[:, 0]
        found = torch.where(is_open & is_apart, following, found)
    return found


def in_float64(aggregator: Aggregator) -> Aggregator:
    """Return a copy of the aggregator that computes in float64 on the CPU."""
    return copy.deepcopy(aggregator).cpu().double().eval()


def batch_of(points: Float64[Tensor, "triple size dim"]) -> CollectionBatch:
    """Return collections of one size as a batch."""
    return CollectionBatch.from_list(list(points))


def apart(
    x: Float64[Tensor, "triple dim"], y: Float64[Tensor, "triple dim"]
) -> Float64[Tensor, " triple"]:
    """Return the distances of vectors."""
    found: Tensor = torch.linalg.vector_norm(x - y, dim=-1)
    return found
