"""Natural collections for data that has none: a fixed random partition of each label's items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from setrep.data.dataset import ItemDataset
from setrep.errors import InputError


def partition(dataset: ItemDataset, size: int, *, seed: int = 0) -> ItemDataset:
    """Part the items of each label at random into collections of `size`, which become its keys.

    What is left over of a label is shared out, so that its collections have `size` items or a few
    more, and differ by one at most; a label of fewer items is one collection. It stands for data
    that comes in collections whose labels are not known, several of one label among them.

    Raises:
        InputError: `size` is below 1.
    """
    if size < 1:
        raise InputError(f"A collection needs at least one item; asked for {size}.")
    random = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    keys = np.zeros_like(dataset.labels)
    names: list[str] = []
    for label in np.unique(dataset.labels):
        items = random.permutation(np.flatnonzero(dataset.labels == label))
        count = max(1, len(items) // size)
        keys[items] = len(names) + np.arange(len(items)) * count // len(items)
        names += [f"{dataset.label_names[label]} {number}" for number in range(count)]
    return replace(dataset, collection_level="partition", keys=keys, key_names=tuple(names))
