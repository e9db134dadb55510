"""Which items stand for the further views of an item."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from setrep.config import ViewsConfig
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError


class Partners:
    """Draw, for items of a batch, those that are augmented in their place for a further view.

    `augmentation`: the item itself. `neighbour`: the one before or after it in the data set,
    within its natural collection (a sequence), or in the whole data set without keys. `collection`:
    another one of its natural collection, or of its label where collections are sampled from that.
    An item with no other stays alone.

    `false_positive_rate` of the second views are taken from an item of another label, uniformly.
    It is label noise for experiments, and what Troeshestova & Isachenko 2023 call FP addition.

    Raises:
        InputError: items of another label are asked for and there is one label only.
    """

    def __init__(self, dataset: ItemDataset, config: ViewsConfig) -> None:
        self.config = config
        labels = torch.from_numpy(dataset.labels)
        keys = labels if dataset.keys is None else torch.from_numpy(dataset.keys)
        if config.positives == "neighbour" and dataset.keys is None:
            keys = torch.zeros_like(labels)
        self._groups = _Groups(keys)
        self._labels = _Groups(labels)
        if config.false_positive_rate and self._labels.sizes.max() == len(labels):
            raise InputError(
                f"views.false_positive_rate needs items of another label, but all {len(labels)} "
                f"training items of {dataset.name} share one."
            )

    def draw(
        self, items: Int64[Tensor, " n"], view: int, generator: torch.Generator
    ) -> Int64[Tensor, " n"]:
        """Return the items of view number `view`, counted from 0."""
        if view == 0:
            return items
        drawn = self._positives(items, generator)
        if view == 1 and self.config.false_positive_rate:
            is_false = torch.rand(len(items), generator=generator) < self.config.false_positive_rate
            drawn = torch.where(is_false, self._labels.outsider(items, generator), drawn)
        return drawn

    def _positives(
        self, items: Int64[Tensor, " n"], generator: torch.Generator
    ) -> Int64[Tensor, " n"]:
        if self.config.positives == "collection":
            return self._groups.other(items, generator)
        if self.config.positives == "neighbour":
            return self._groups.next_to(items, generator)
        return items


class _Groups:
    """Items sorted by group, in data set order within each."""

    def __init__(self, groups: Int64[Tensor, " item"]) -> None:
        _, number, counts = torch.unique(groups, return_inverse=True, return_counts=True)
        self.order = torch.from_numpy(np.argsort(number.numpy(), kind="stable"))
        starts = counts.cumsum(0) - counts
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(groups))
        self.starts, self.sizes = starts[number], counts[number]

    def other(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Draw another item of the same group; an item alone gives itself."""
        start, size = self.starts[items], self.sizes[items]
        step = 1 + _below(size - 1, generator)
        return self.order[start + (self.place[items] - start + step) % size]

    def next_to(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Take the item before or after; the first and the last have one neighbour."""
        first = self.starts[items]
        last = first + self.sizes[items] - 1
        forward = torch.rand(len(items), generator=generator) < 0.5
        place = self.place[items]
        forward = (forward | (place == first)) & (place < last)
        backward = ~forward & (place > first)
        return self.order[place + forward.long() - backward.long()]

    def outsider(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an item of another group."""
        start, size = self.starts[items], self.sizes[items]
        place = _below(len(self.order) - size, generator)
        return self.order[place + (place >= start) * size]


def _below(limit: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Draw integers from 0 to below each limit; 0 where the limit is 0."""
    drawn = (torch.rand(len(limit), generator=generator, dtype=torch.float64) * limit).long()
    return drawn.clamp(max=(limit - 1).clamp(min=0))
