"""A distance between all collections of one batch and all of another."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.set_distances import pairs
from setrep.set_distances.pairs import check_items, recomputed
from setrep.set_distances.set_distance import Distance


def pairwise(
    distance: Distance, x: CollectionBatch, y: CollectionBatch
) -> Float[Tensor, "x_collection y_collection"]:
    """Return the distance of every collection of `x` to every one of `y`.

    `distance` is a function of this room; `functools.partial` gives it options. Pairs are worked
    through some at a time, so that memory is bounded beside the result, with gradients, too: where
    there is more than one portion, backward computes each again.

    Raises:
        InputError: the collections cannot be compared.
    """
    check_items(x, y)
    items = (x.sizes.unsqueeze(1) + y.sizes).flatten()
    portion = (items * x.values.shape[1]).cumsum(0) // pairs.MAX_ELEMENTS
    sizes = portion.bincount()
    counts = sizes[sizes > 0].tolist() or [0]
    found = [
        recomputed(partial(_distances, distance, chosen), x, y, len(counts) > 1)
        for chosen in torch.split(torch.arange(len(items), device=items.device), counts)
    ]
    return torch.cat(found).view(len(x), len(y))


def _distances(
    distance: Distance, chosen: Int64[Tensor, " pair"], x: CollectionBatch, y: CollectionBatch
) -> Float[Tensor, " pair"]:
    return distance(x.select(chosen // len(y)), y.select(chosen % len(y)))
