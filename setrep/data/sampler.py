"""Episodes: classes, disjoint collections of each, items of each collection."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Int64
from numpy.typing import ArrayLike
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.collections import (
    CollectionPool,
    derive_generator,
    describe_small,
    name_of,
    pools_by_label,
)
from setrep.data.contamination import contaminate
from setrep.errors import InputError

logger = logging.getLogger(__name__)


class EpisodeSampler:
    """Draw episodes as lists of item positions: by class, then by collection, then by item.

    An episode is `classes_per_episode x collections_per_class` disjoint collections of
    `items_per_collection` items. With `keys` a collection is a random sample of the items of one
    key, and the collections of a class have distinct keys. With `min_items_per_collection` the
    size of each is drawn uniformly from there to `items_per_collection`. `contamination` is the
    probability that an item is replaced by one of another class of the episode (see `contaminate`).
    Classes with too few items for the largest are refused or dropped, as `on_small_class` says.

    Use it as the `batch_sampler` of a DataLoader. An episode depends on nothing but the data, the
    settings and `(seed, epoch, rank, world_size)`, so any number of workers sees the same ones.
    Ranks draw for themselves: an item may be in a collection of each of two ranks.
    Iteration starts at the epoch's first episode, or after `load_state_dict` at the position
    loaded; when the epoch has been drawn to its end, the next iteration starts at the first again.
    The epoch changes only through `set_epoch`, which also goes back to the first episode.

    Raises:
        InputError: a class is too small and is not to be dropped, or too few classes are left.
    """

    def __init__(
        self,
        labels: ArrayLike,
        keys: ArrayLike | None = None,
        *,
        classes_per_episode: int,
        collections_per_class: int,
        items_per_collection: int,
        episodes_per_epoch: int,
        min_items_per_collection: int | None = None,
        contamination: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        on_small_class: Literal["refuse", "drop"] = "refuse",
        label_names: Sequence[str] | None = None,
    ) -> None:
        smallest = min_items_per_collection
        smallest = items_per_collection if smallest is None else smallest
        counts = {
            "classes_per_episode": classes_per_episode,
            "collections_per_class": collections_per_class,
            "items_per_collection": items_per_collection,
            "min_items_per_collection": smallest,
            "episodes_per_epoch": episodes_per_epoch,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} must be at least 1, not {count}.")
        if smallest > items_per_collection:
            raise InputError(
                f"min_items_per_collection must be at most items_per_collection "
                f"({items_per_collection}), not {smallest}."
            )
        if not 0 <= rank < world_size:
            raise InputError(f"rank must lie in 0..{world_size - 1}, not be {rank}.")
        self.classes_per_episode = classes_per_episode
        self.collections_per_class = collections_per_class
        self.items_per_collection = items_per_collection
        self.min_items_per_collection = smallest
        self.contamination = contamination
        self.episodes_per_epoch = episodes_per_epoch
        self.seed, self.rank, self.world_size = seed, rank, world_size
        pools = pools_by_label(labels, keys, items_per_collection)
        small = self._check_sizes(pools, on_small_class, label_names)
        self.dropped = tuple(name_of(label, label_names) for label in small)
        self.labels = tuple(label for label in pools if label not in set(small))
        self._pools = [pools[label] for label in self.labels]
        self._epoch = 0
        self._start = 0  # where the next iteration starts
        self._position = 0  # of the episode to be drawn next

    def offsets(self, epoch: int, position: int) -> Int64[Tensor, " collection+1"]:
        """Return the offsets of the collections in any episode."""
        count = self.classes_per_episode * self.collections_per_class
        smallest, largest = self.min_items_per_collection, self.items_per_collection
        if smallest == largest:
            return torch.arange(count + 1) * largest
        # Of their own, so that the items are those of collections of one size, cut short.
        generator = derive_generator(self.seed, epoch, self._place(position), 1)
        sizes = torch.randint(smallest, largest + 1, (count,), generator=generator)
        return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

    def __len__(self) -> int:
        return self.episodes_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self._epoch
        for position in range(self._start, len(self)):
            self._position = position + 1
            yield self.draw(epoch, position).tolist()
        self._start = self._position = 0

    def draw(self, epoch: int, position: int) -> Int64[Tensor, " item"]:
        """Return the items of any episode, without changing what iteration draws next."""
        if epoch < 0 or not 0 <= position < len(self):
            raise InputError(
                f"There is no episode {position} of epoch {epoch}: positions run from 0 to "
                f"{len(self) - 1} and epochs from 0."
            )
        generator = derive_generator(self.seed, epoch, self._place(position))
        chosen = torch.randperm(len(self._pools), generator=generator)[: self.classes_per_episode]
        drawn: list[Tensor] = []
        for index in chosen.tolist():
            drawn += self._pools[index].draw(self.collections_per_class, generator)
        offsets = self.offsets(epoch, position)
        sizes = offsets.diff().tolist()
        items = torch.cat([of[:size] for of, size in zip(drawn, sizes, strict=True)])
        if not self.contamination:
            return items
        batch = CollectionBatch(items, offsets)
        generator = derive_generator(self.seed, epoch, self._place(position), 2)
        of_collections = chosen.repeat_interleave(self.collections_per_class)
        return contaminate(batch, of_collections[batch.index], self.contamination, generator).values

    def _place(self, position: int) -> int:
        """Number an episode of this rank among those of all."""
        return position * self.world_size + self.rank

    def set_epoch(self, epoch: int) -> None:
        """Go to the first episode of `epoch`."""
        self.load_state_dict({"epoch": epoch, "position": 0})

    def state_dict(self, position: int | None = None) -> dict[str, int]:
        """Return the epoch and how many of its episodes have been drawn.

        A DataLoader with workers draws ahead of what is used; pass `position`, the number of
        episodes used, to continue right after those.
        """
        return {"epoch": self._epoch, "position": self._position if position is None else position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken.

        Raises:
            InputError: the position is not one of this sampler's epochs.
        """
        epoch, position = state["epoch"], state["position"]
        if epoch < 0 or not 0 <= position <= len(self):
            raise InputError(
                f"Cannot continue at position {position} of epoch {epoch}: an epoch has "
                f"{len(self)} episodes. Use the settings that the state was taken with."
            )
        self._epoch, self._start, self._position = epoch, position, position

    def _check_sizes(
        self,
        pools: dict[int, CollectionPool],
        on_small_class: str,
        label_names: Sequence[str] | None,
    ) -> list[int]:
        """Return the labels to drop."""
        if on_small_class not in ("refuse", "drop"):
            raise InputError(f"on_small_class must be 'refuse' or 'drop', not '{on_small_class}'.")
        count = self.collections_per_class
        small = [label for label, pool in pools.items() if pool.capacity < count]
        num_left = len(pools) - len(small)
        is_enough = num_left >= self.classes_per_episode
        if small:
            found = describe_small(pools, small, label_names)
            needed = pools[small[0]].needed(count)
            advice = "Lower items_per_collection or collections_per_class"
            if not is_enough:
                raise InputError(
                    f"An episode needs {self.classes_per_episode} classes with {needed} each, but "
                    f"{found}. {advice}."
                )
            if on_small_class == "refuse":
                raise InputError(
                    f"{found}. An episode needs {needed} of a class. "
                    f"{advice}, or set on_small_class='drop' (data.on_small_class=drop)."
                )
            logger.warning("%s; dropped, for an episode needs %s of a class.", found, needed)
        elif not is_enough:
            raise InputError(
                f"An episode needs {self.classes_per_episode} classes, but there are {len(pools)} "
                f"to train on, beside those held out. Lower classes_per_episode."
            )
        return small
