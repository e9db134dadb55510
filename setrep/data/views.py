"""Which items stand for the further views of an item."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from setrep.config import ViewsConfig
from setrep.data.dataset import ItemDataset
from setrep.data.groups import Groups
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
        self._groups = Groups(keys)
        self._labels = Groups(labels)
        if config.false_positive_rate and self._labels.is_one:
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
