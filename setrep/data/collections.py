"""Disjoint collections of a data set: the pools they are drawn from, and draws for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from setrep.collection import draw_disjoint
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError

logger = logging.getLogger(__name__)


def derive_generator(seed: int, *key: int) -> torch.Generator:
    """Return a generator of its own for each `(seed, *key)`; `key` holds counts from 0."""
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=key)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


@dataclass(frozen=True, eq=False)
class CollectionPool:
    """Hold the items of one label that collections of `size` items are drawn from.

    Sampled collections come from the one pool of all items, natural ones each from the pool of
    another key; keys with fewer than `size` items are left out.
    """

    size: int
    pools: tuple[Int64[Tensor, " item"], ...]
    is_natural: bool

    @property
    def capacity(self) -> int:
        """How many disjoint collections can be drawn at once."""
        return len(self.pools) if self.is_natural else len(self.pools[0]) // self.size

    @property
    def found(self) -> str:
        """What there is to draw from, for messages."""
        if self.is_natural:
            return f"{plural(len(self.pools), 'key')} of {self.size} or more items"
        return plural(len(self.pools[0]), "item")

    def needed(self, count: int) -> str:
        """Say what `count` collections take, for messages."""
        if self.is_natural:
            return f"{plural(count, 'key')} of {self.size} or more items"
        return f"{plural(count * self.size, 'item')} ({plural(count, 'collection')} x {self.size})"

    def draw(self, count: int, generator: torch.Generator) -> list[Int64[Tensor, " size"]]:
        """Draw `count` disjoint collections, uniformly; natural ones have distinct keys."""
        if not self.is_natural:
            return draw_disjoint(self.pools[0], [self.size] * count, generator)
        chosen = torch.randperm(len(self.pools), generator=generator)[:count].tolist()
        return [draw_disjoint(self.pools[key], [self.size], generator)[0] for key in chosen]


def read_integers(name: str, values: ArrayLike, length: int | None = None) -> NDArray[np.int64]:
    """Return `values` as a one-dimensional int64 array of the given length."""
    array = np.asarray(values)
    is_wrong_length = length is not None and len(array) != length
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or is_wrong_length:
        wanted = "one integer for each item" + ("" if length is None else f" ({length} items)")
        raise InputError(f"{name} must be {wanted}, not {array.dtype} of shape {array.shape}.")
    largest = np.iinfo(np.int64).max
    if array.size and array.max() > largest:
        raise InputError(
            f"{name} must be integers up to {largest}, but position {array.argmax()} holds "
            f"{array.max()}. Number them from 0: np.unique({name}, return_inverse=True)[1]."
        )
    return array.astype(np.int64)


def pools_by_label(
    labels: ArrayLike, keys: ArrayLike | None, size: int
) -> dict[int, CollectionPool]:
    """Group the items of each label, in ascending order of labels.

    Raises:
        InputError: labels or keys are not one integer for each item, or `size` is below 1.
    """
    if size < 1:
        raise InputError(f"A collection needs at least one item; asked for {size}.")
    label_of = read_integers("labels", labels)
    key_of = np.zeros_like(label_of) if keys is None else read_integers("keys", keys, len(label_of))
    order = np.lexsort((key_of, label_of))
    changes = (np.diff(label_of[order]) != 0) | (np.diff(key_of[order]) != 0)
    pieces: dict[int, list[Tensor]] = {}
    for piece in np.split(order, np.flatnonzero(changes) + 1) if len(order) else []:
        usable = pieces.setdefault(int(label_of[piece[0]]), [])
        if keys is None or len(piece) >= size:
            usable.append(torch.from_numpy(piece))
    is_natural = keys is not None
    return {label: CollectionPool(size, tuple(of), is_natural) for label, of in pieces.items()}


def plural(count: int, noun: str) -> str:
    """Return `1 item`, `2 items`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def name_of(label: int, names: Sequence[str] | None) -> str:
    """Return the name of a label, or its number where there is none."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def describe_small(
    pools: dict[int, CollectionPool], small: list[int], names: Sequence[str] | None
) -> str:
    """Count the classes that are too small and name up to three with what they have."""
    shown = [f"'{name_of(label, names)}' ({pools[label].found})" for label in small[:3]]
    more = f" and {len(small) - 3} more" if len(small) > 3 else ""
    return f"{len(small)} of {len(pools)} classes have too few items: {', '.join(shown)}{more}"


@dataclass(frozen=True, eq=False)
class QueryGallery:
    """Hold positions of the items of query and gallery collections, which share none.

    `dropped` names the labels that could not give a query and a gallery collection.
    """

    query_items: Int64[Tensor, " query_item"]
    query_offsets: Int64[Tensor, " query+1"]
    query_labels: Int64[Tensor, " query"]
    gallery_items: Int64[Tensor, " gallery_item"]
    gallery_offsets: Int64[Tensor, " gallery+1"]
    gallery_labels: Int64[Tensor, " gallery"]
    num_classes: int
    dropped: tuple[str, ...]


def draw_query_gallery(
    dataset: ItemDataset, size: int, *, seed: int, max_per_label: int = 10
) -> QueryGallery:
    """Draw disjoint collections of `size` items and part those of each label into two halves.

    Sampled: as many collections of a label as fit, at most `2 * max_per_label`. Natural: one
    for each key with at least `size` items, so that queries and gallery share no key either.
    Of an odd number of collections the gallery gets one more.

    Raises:
        InputError: no label can give a query and a gallery collection.
    """
    if max_per_label < 1:
        raise InputError(f"max_per_label must be at least 1, not {max_per_label}.")
    pools = pools_by_label(dataset.labels, dataset.keys, size)
    kept, dropped = keep_large(dataset, pools, 2)
    generator = derive_generator(seed, size)
    queries: list[Tensor] = []
    gallery: list[Tensor] = []
    for label in kept:
        count = pools[label].capacity
        if dataset.keys is None:
            count = min(count, 2 * max_per_label)
        drawn = pools[label].draw(count, generator)
        queries += drawn[: count // 2]
        gallery += drawn[count // 2 :]
    return QueryGallery(
        *join(dataset, queries), *join(dataset, gallery), num_classes=len(kept), dropped=dropped
    )


def join(
    dataset: ItemDataset, collections: list[Int64[Tensor, " size"]]
) -> tuple[Int64[Tensor, " item"], Int64[Tensor, " collection+1"], Int64[Tensor, " collection"]]:
    """Return the items of the collections end to end, their offsets and labels."""
    items = torch.stack(collections)
    labels = torch.from_numpy(dataset.labels[items[:, 0].numpy()])
    return items.flatten(), torch.arange(len(items) + 1) * items.shape[1], labels


@dataclass(frozen=True, eq=False)
class CollectionTriples:
    """Hold positions of two disjoint collections of one label and of one of another label.

    With natural collections the three have distinct keys. `dropped` names the labels that
    could not give two collections.
    """

    first: Int64[Tensor, "triple size"]
    second: Int64[Tensor, "triple size"]
    other: Int64[Tensor, "triple size"]
    labels: Int64[Tensor, "triple 2"]  # of the first two, of the other
    keys: Int64[Tensor, "triple 3"] | None
    dropped: tuple[str, ...]


def draw_disjoint_triples(
    dataset: ItemDataset, size: int, num_triples: int, *, seed: int
) -> CollectionTriples:
    """Draw triples of collections of `size` items, labels uniformly among those that have enough.

    Raises:
        InputError: no label can give two disjoint collections, or no other label can give one.
    """
    if num_triples < 1:
        raise InputError(f"num_triples must be at least 1, not {num_triples}.")
    pools = pools_by_label(dataset.labels, dataset.keys, size)
    pairs, dropped = keep_large(dataset, pools, 2)
    others = [label for label in pools if pools[label].capacity >= 1]
    if len(others) < 2:
        raise InputError(
            f"Only one class of {dataset.name} has a collection of {plural(size, 'item')}, but a "
            f"triple needs two classes. Ask for smaller collections or read more classes."
        )
    generator = derive_generator(seed, size)
    triples = []
    for _ in range(num_triples):
        label = pairs[int(torch.randint(len(pairs), (), generator=generator))]
        step = int(torch.randint(1, len(others), (), generator=generator))
        other = others[(others.index(label) + step) % len(others)]
        same = pools[label].draw(2, generator)
        triples.append(torch.stack([*same, *pools[other].draw(1, generator)]))
    items = torch.stack(triples)
    heads = items[:, :, 0].numpy()
    labels = torch.from_numpy(dataset.labels[heads[:, [0, 2]]])
    keys = None if dataset.keys is None else torch.from_numpy(dataset.keys[heads])
    first, second, third = items.unbind(dim=1)
    return CollectionTriples(first, second, third, labels, keys, dropped)


def keep_large(
    dataset: ItemDataset, pools: dict[int, CollectionPool], count: int
) -> tuple[list[int], tuple[str, ...]]:
    """Return the labels that can give `count` collections, and name and warn about the others.

    Raises:
        InputError: there is no such label.
    """
    large = [label for label, pool in pools.items() if pool.capacity >= count]
    small = [label for label, pool in pools.items() if pool.capacity < count]
    if not large:
        what = f"{count} disjoint collections of a class were asked of {dataset.name}"
        if not pools:
            raise InputError(f"{what}, which has no items. Choose another split or subset.")
        raise InputError(
            f"{what}, which take {pools[small[0]].needed(count)}, "
            f"but {describe_small(pools, small, dataset.label_names)}. Ask for smaller collections."
        )
    if small:
        logger.warning("%s; left out.", describe_small(pools, small, dataset.label_names))
    return large, tuple(name_of(label, dataset.label_names) for label in small)
