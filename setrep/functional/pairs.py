"""Distances, label masks and triplets of the items of a batch."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.functional.precision import at_least_float32

Positives = Literal["any", "same_collection", "cross_collection"]


class Triplets(NamedTuple):
    """Positions of anchors, positives and negatives in a batch, three tensors of one length."""

    anchors: Int64[Tensor, " triplet"]
    positives: Int64[Tensor, " triplet"]
    negatives: Int64[Tensor, " triplet"]


def pairwise_distance(
    x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"] | None = None, *, squared: bool = False
) -> Float[Tensor, "n m"]:
    """Return Euclidean distances from direct differences, with gradient 0 at distance 0.

    Differences are taken directly and not through the Gram matrix, whose cancellation turns the
    distance of a point to itself into noise when embeddings lie far from the origin.
    """
    x = at_least_float32(x)
    if y is None and len(x) > 1:  # half the pairs; pdist of no rows crashes in its backward
        rows, columns = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
        half = torch.pdist(x)
        distance = half.new_zeros(len(x), len(x)).index_put((rows, columns), half)
        distance = distance + distance.T
    else:
        y = x if y is None else at_least_float32(y)
        distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square() if squared else distance


def positive_mask(
    labels: Int64[Tensor, " n"],
    collections: Int64[Tensor, " n"] | None = None,
    positives: Positives = "any",
    anchors: Int64[Tensor, " anchor"] | None = None,
) -> Bool[Tensor, "anchor n"]:
    """Return which pairs share a label, leaving out each item itself.

    `positives` restricts the pairs to items of one collection or of two different ones. There is a
    row for each position in `anchors`, or for every item.
    """
    rows = everyone(labels) if anchors is None else anchors
    mask = labels[rows].unsqueeze(1) == labels
    if positives != "any":
        if collections is None:
            raise InputError(f"positives={positives!r} needs the collection of each item.")
        same = collections[rows].unsqueeze(1) == collections
        mask = mask & (same if positives == "same_collection" else ~same)
    return mask & (rows.unsqueeze(1) != everyone(labels))


def negative_mask(
    labels: Int64[Tensor, " n"], anchors: Int64[Tensor, " anchor"] | None = None
) -> Bool[Tensor, "anchor n"]:
    """Return which pairs have different labels, with a row for each of `anchors` or every item."""
    return (labels if anchors is None else labels[anchors]).unsqueeze(1) != labels


def everyone(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Return the position of every item."""
    return torch.arange(len(labels), device=labels.device)


def all_triplets(
    labels: Int64[Tensor, " n"],
    collections: Int64[Tensor, " n"] | None = None,
    positives: Positives = "any",
    anchors: Int64[Tensor, " anchor"] | None = None,
) -> Triplets:
    """Enumerate every valid triplet of a batch, or those of some anchors."""
    positive = positive_mask(labels, collections, positives, anchors)
    rows, others = positive.nonzero(as_tuple=True)
    pair, negatives = negative_mask(labels, anchors)[rows].nonzero(as_tuple=True)
    found = Triplets(rows[pair], others[pair], negatives)
    return found if anchors is None else found._replace(anchors=anchors[found.anchors])
