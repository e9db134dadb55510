"""From one published split, as it was read, to the split that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setrep.data.dataset import ItemDataset
from setrep.data.request import DatasetRequest
from setrep.data.shared_classes import Named, choose_rows
from setrep.data.splits import number_names, take_rows
from setrep.item_format import ItemFormat

MAX_NAMED = 5


@dataclass(frozen=True)
class Official:
    """Say what a whole data set has; `counts` are images of the published train and test."""

    name: str
    title: str
    num_classes: int
    size: int  # pixels of a side
    counts: Mapping[str, int]
    test_title: str = "test images"

    def item_format(self, request: DatasetRequest) -> ItemFormat:
        """Format of the items: colour, at the published size or the one asked for."""
        return ItemFormat("image", 3, request.image_size or self.size)


@dataclass(frozen=True, eq=False)
class PublishedItems:
    """Hold the published train or test images; `encoding` says what they were stored as."""

    items: NDArray[np.uint8]  # [N, C, H, W], may be memory-mapped
    classes: Named
    encoding: str
    num_skipped: int = 0


def published_split(request: DatasetRequest) -> str:
    """Return which published split holds what was asked for: validation comes out of train."""
    return "test" if request.split == "test" else "train"


def to_dataset(
    official: Official,
    published: PublishedItems,
    request: DatasetRequest,
    wholes: Mapping[str, str] | None = None,
) -> ItemDataset:
    """Take the rows of the split asked for.

    With `wholes` the label of an item is what its class belongs to. Labels and keys have the same
    numbers in all splits.
    """
    classes = labels = published.classes
    if wholes is not None:
        numbers, names = number_names([wholes[name] for name in classes.names])
        labels = Named(numbers[classes.numbers], names)
    is_test = request.split == "test"
    rows = np.arange(len(labels.numbers)) if is_test else choose_rows(labels, classes, request)
    has_keys = request.collection_level != "sampled"
    kept = Named(labels.numbers[rows], labels.names)
    return ItemDataset(
        name=official.name,
        split=request.split,
        items=take_rows(published.items, rows),
        labels=kept.numbers,
        label_names=labels.names,
        item_format=official.item_format(request),
        label_level=request.label_level,
        collection_level=request.collection_level,
        keys=classes.numbers[rows] if has_keys else None,
        key_names=classes.names if has_keys else (),
        source_note=_source_note(official, published, kept, request),
    )


def _source_note(
    official: Official, published: PublishedItems, kept: Named, request: DatasetRequest
) -> str:
    """Say what was really read, measured against the official counts."""
    split = published_split(request)
    num_items, num_official = len(kept.numbers), official.counts[split]
    num_classes = len(published.classes.names)
    note = f"{official.title} ({published.encoding}), "
    if num_classes != official.num_classes:
        note += f"{num_classes} of {official.num_classes} classes, "
    note += str(num_items) + (f" of {num_official}" if num_items != num_official else "")
    note += f" {official.test_title if split == 'test' else 'training images'}"
    if request.split == "validation":
        note += f" (validation: {_held_out(kept, request)})"
    elif request.split == "train" and request.num_train_items is not None:
        note += f" (of each class in proportion, split_seed {request.split_seed})"
    skipped = published.num_skipped
    return note + (f"; {skipped} unreadable images skipped" if skipped else "")


def _held_out(kept: Named, request: DatasetRequest) -> str:
    if request.num_validation_items:
        return f"{request.num_validation_items} of each class"
    names = [kept.names[label] for label in np.unique(kept.numbers)]
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} classes"
