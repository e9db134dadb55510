"""Few-shot tasks as learn2learn has them, without needing learn2learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from setrep.data.collections import derive_generator, read_integers
from setrep.data.dataset import ItemDataset
from setrep.data.sampler import EpisodeSampler
from setrep.errors import InputError

Task = tuple[Float[Tensor, "item ..."], Int64[Tensor, " item"]]


class EpisodeTaskset:
    """Offer tasks of `ways` classes with `shots` items each, as learn2learn's `Taskset` does.

    A task is `(X, y)` with the items of a class one after another and labels `0..ways-1`; images
    are floats in [0, 1]. `shots` counts all items of a class, support and query together.
    With `num_tasks=-1` each access gives a new task and the length is 1; otherwise `taskset[i]`
    is always the same task. Tasks depend on the seed alone.

    Raises:
        InputError: the data set has too few classes or items.
    """

    def __init__(
        self,
        dataset: ItemDataset,
        *,
        ways: int,
        shots: int,
        num_tasks: int = -1,
        seed: int = 0,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if num_tasks != -1 and num_tasks < 1:
            raise InputError(f"num_tasks must be -1 (no end) or at least 1, not {num_tasks}.")
        self.dataset, self.ways, self.shots = dataset, ways, shots
        self.num_tasks, self.seed, self.transform = num_tasks, seed, transform
        try:
            self._sampler = EpisodeSampler(
                dataset.labels,
                classes_per_episode=ways,
                collections_per_class=1,
                items_per_collection=shots,
                episodes_per_epoch=len(self),
                seed=seed,
                label_names=dataset.label_names,
            )
        except InputError as error:
            names = f"{ways} ways (classes_per_episode) and {shots} shots (items_per_collection)"
            raise InputError(f"Tasks of {names} were asked. {error}") from None
        self._num_sampled = 0

    def __len__(self) -> int:
        return max(self.num_tasks, 1)

    def __getitem__(self, i: int) -> Task:
        if self.num_tasks == -1:
            return self.sample()
        if not 0 <= i < len(self):
            raise IndexError(f"There are {len(self)} tasks; asked for task {i}.")
        return self._load(self._sampler.draw(0, i))

    def __iter__(self) -> Iterator[Task]:
        if self.num_tasks == -1:
            while True:
                yield self.sample()
        for i in range(len(self)):
            yield self[i]

    def sample(self) -> Task:
        """Return a new task, or one of the `num_tasks` at random."""
        self._num_sampled += 1
        if self.num_tasks == -1:
            if get_worker_info() is not None:
                raise InputError(
                    "num_tasks=-1 gives every DataLoader worker the same tasks. "
                    "Set num_tasks, or num_workers=0."
                )
            return self._load(self._sampler.draw(self._num_sampled - 1, 0))
        generator = derive_generator(self.seed, 1, self._num_sampled)
        return self[int(torch.randint(len(self), (), generator=generator))]

    def _load(self, items: Int64[Tensor, " item"]) -> Task:
        """Gather the items of a task."""
        x = self.dataset.gather(items)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if self.transform is not None:
            x = self.transform(x)
        return x, torch.arange(self.ways).repeat_interleave(self.shots)


class DataDescription(Protocol):
    """An item of a learn2learn task."""

    index: int


class Taskset(Protocol):
    """What is used of a learn2learn `Taskset`."""

    num_tasks: int
    sampled_descriptions: dict[int, Sequence[DataDescription]]

    def sample_task_description(self) -> Sequence[DataDescription]:
        """Draw the items of a new task."""
        ...


@dataclass(frozen=True, eq=False)
class TasksetEpisodes:
    """Give the tasks of a learn2learn `Taskset` as episodes; see `episodes_from_taskset`."""

    taskset: Taskset
    labels: NDArray[np.int64]
    classes_per_episode: int
    collections_per_class: int
    items_per_collection: int
    episodes_per_epoch: int

    @property
    def offsets(self) -> Int64[Tensor, " collection+1"]:
        """Offsets of the collections in an episode, the same for each."""
        num_collections = self.classes_per_episode * self.collections_per_class
        return torch.arange(num_collections + 1) * self.items_per_collection

    def __len__(self) -> int:
        return self.episodes_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        for position in range(len(self)):
            yield self._arrange(self._describe(position))

    def _describe(self, position: int) -> Sequence[DataDescription]:
        """Return a new task, or the next of a fixed number as the taskset keeps them."""
        if self.taskset.num_tasks == -1:
            return self.taskset.sample_task_description()
        kept, i = self.taskset.sampled_descriptions, position % self.taskset.num_tasks
        if i not in kept:
            kept[i] = self.taskset.sample_task_description()
        return kept[i]

    def _arrange(self, task: Sequence[DataDescription]) -> list[int]:
        """Put the items of each class together and check that they make an episode."""
        items = np.array([description.index for description in task], dtype=np.int64)
        if len(np.unique(items)) != len(items):
            raise InputError(
                "A task holds an item twice, but an episode's collections are disjoint. "
                "Sample without replacement (KShots with replacement=False)."
            )
        labels = self.labels[items]
        _, counts = np.unique(labels, return_counts=True)
        wanted = self.collections_per_class * self.items_per_collection
        if len(counts) != self.classes_per_episode or (counts != wanted).any():
            raise InputError(
                f"An episode needs {self.classes_per_episode} classes with {wanted} items each, "
                f"but the task has {len(counts)} with {counts.tolist()}. "
                f"Set n of NWays and k of KShots to match."
            )
        return [int(item) for item in items[np.argsort(labels, kind="stable")]]


def episodes_from_taskset(
    taskset: Taskset,
    labels: ArrayLike,
    *,
    classes_per_episode: int,
    collections_per_class: int,
    items_per_collection: int,
    episodes_per_epoch: int,
) -> TasksetEpisodes:
    """Use a learn2learn `Taskset` as a source of episodes, for instance as a `batch_sampler`.

    `labels` are those of the data set that the taskset samples from. A task must hold
    `classes_per_episode` classes (n of NWays) with `collections_per_class x items_per_collection`
    items each (k of KShots). Which tasks come is learn2learn's choice, made from Python's global
    `random`; seed that for repeatable runs.
    """
    return TasksetEpisodes(
        taskset,
        read_integers("labels", labels),
        classes_per_episode,
        collections_per_class,
        items_per_collection,
        episodes_per_epoch,
    )
