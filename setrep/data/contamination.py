"""Collections that hold items of other labels, as collections in the wild do."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.groups import Groups
from setrep.errors import InputError
from setrep.functional import segment_max


def contaminate(
    batch: CollectionBatch,
    labels: Int64[Tensor, " item"],
    probability: float,
    generator: torch.Generator,
) -> CollectionBatch:
    """Replace each item with a probability by an item of another label, drawn from the batch.

    `labels` has the label of each item of `batch`, one in each collection. A collection whose items
    would all be replaced keeps one, uniformly; the first item of each is a true one. Items are
    drawn with replacement, so an item may be in several collections of the batch.

    Raises:
        InputError: the probability is none, or there is no other label to draw from.
    """
    if not 0 <= probability <= 1:
        raise InputError(f"Items are replaced with a probability, not {probability}.")
    groups = Groups(labels)
    if groups.is_one:
        raise InputError("All items share one label, so none can be replaced by one of another.")
    places = torch.arange(len(labels))
    drawn = torch.rand(len(labels), 1, generator=generator, dtype=torch.float64)
    kept = (drawn == segment_max(drawn, batch)[batch.index]).squeeze(1)  # one of each collection
    is_replaced = (drawn.squeeze(1) < probability) & ~kept
    chosen = torch.where(is_replaced, groups.outsider(places, generator), places)
    first, true = batch.offsets[:-1], places[kept]
    chosen[true] = chosen[first]
    chosen[first] = true
    return batch.with_values(batch.values[chosen])
