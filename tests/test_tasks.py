"""Few-shot tasks in learn2learn's form, and its tasks as episodes."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.tasks import EpisodeTaskset, episodes_from_taskset
from setrep.errors import InputError

NUM_CLASSES, NUM_EACH = 6, 10
LABELS = np.tile(np.arange(NUM_CLASSES), NUM_EACH)


def make_dataset() -> ItemDataset:
    """Let every pixel of item i be i, so that an image tells which item it is."""
    items = np.arange(len(LABELS), dtype=np.uint8)[:, None, None, None]
    return ItemDataset(
        name="fake",
        split="test",
        items=np.broadcast_to(items, (len(LABELS), 1, 4, 4)),
        labels=LABELS.astype(np.int64),
        label_names=tuple("abcdef"),
        item_format=ItemFormat("image", 1, 4),
        label_level="label",
    )


def make_taskset(**changes) -> EpisodeTaskset:
    return EpisodeTaskset(make_dataset(), **({"ways": 3, "shots": 4, "seed": 1} | changes))


def items_of(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0, 0, 0] * 255).round().long()


@pytest.mark.parametrize("num_tasks", [-1, 5])
def test_a_task_holds_distinct_items_of_each_class_in_a_row(num_tasks):
    x, y = make_taskset(num_tasks=num_tasks).sample()
    assert x.shape == (12, 1, 4, 4)
    assert x.dtype == torch.float32
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    items = items_of(x)
    assert len(set(items.tolist())) == 12
    labels = torch.from_numpy(LABELS)[items].view(3, 4)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0].tolist())) == 3


def test_images_lie_between_zero_and_one():
    x = torch.cat([x for x, _ in make_taskset(num_tasks=30)])
    assert x.min() == 0
    assert x.max() == torch.tensor(59 / 255)


def test_a_fixed_number_of_tasks_is_indexed_iterated_and_sampled():
    taskset = make_taskset(num_tasks=4)
    assert len(taskset) == taskset.num_tasks == 4
    tasks = [items_of(taskset[i][0]).tolist() for i in range(4)]
    assert tasks == [items_of(x).tolist() for x, _ in taskset]
    assert tasks == [items_of(x).tolist() for x, _ in make_taskset(num_tasks=4)]
    assert len({tuple(task) for task in tasks}) == 4
    sampled = [items_of(taskset.sample()[0]).tolist() for _ in range(40)]
    assert all(sampled.count(task) > 0 for task in tasks)
    with pytest.raises(IndexError, match="There are 4 tasks"):
        taskset[4]


def test_tasks_without_end_are_new_each_time_and_repeat_with_the_seed():
    taskset = make_taskset()
    assert len(taskset) == 1
    assert taskset.num_tasks == -1
    drawn = [taskset[0], taskset.sample(), *itertools.islice(taskset, 3)]
    items = [items_of(x).tolist() for x, _ in drawn]
    assert len({tuple(task) for task in items}) == 5
    assert items == [items_of(x).tolist() for x, _ in itertools.islice(make_taskset(), 5)]
    assert items[0] != items_of(make_taskset(seed=2).sample()[0]).tolist()


def test_a_transform_sees_the_whole_task():
    x, _ = make_taskset(transform=lambda x: x.flatten(1).mean(dim=1)).sample()
    assert x.shape == (12,)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_load_the_same_fixed_tasks():
    loader = DataLoader(make_taskset(num_tasks=3), batch_size=None, num_workers=2)
    tasks = [items_of(x).tolist() for x, _ in loader]
    assert tasks == [items_of(x).tolist() for x, _ in make_taskset(num_tasks=3)]


def test_tasks_without_end_are_refused_in_a_worker(monkeypatch):
    monkeypatch.setattr("setrep.data.tasks.get_worker_info", lambda: "a worker")
    with pytest.raises(InputError, match="num_tasks=-1"):
        make_taskset().sample()


def test_vectors_stay_as_they_are():
    dataset = ItemDataset(
        name="fake",
        split="test",
        items=np.full((8, 2), 300, dtype=np.float32),
        labels=np.repeat([0, 1], 4),
        label_names=("a", "b"),
        item_format=ItemFormat("vector", 2, 1),
        label_level="label",
    )
    x, _ = EpisodeTaskset(dataset, ways=2, shots=3).sample()
    assert torch.equal(x, torch.full((6, 2), 300.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 7}, "Tasks of 7 ways .* needs 7 classes, but there are 6"),
        ({"shots": 11}, r"11 shots .* 'a' \(10 items\)"),
        ({"num_tasks": 0}, "num_tasks must be -1"),
        ({"num_tasks": -2}, "num_tasks must be -1"),
    ],
)
def test_tasks_that_cannot_be_drawn_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make_taskset(**changes)
    assert "\n" not in str(caught.value)


@dataclass
class FakeDescription:
    index: int
    transforms: list = field(default_factory=list)


class FakeTaskset:
    """Do what episodes need of learn2learn's Taskset: cached or fresh task descriptions."""

    def __init__(self, ways=3, shots=4, num_tasks=-1, seed=0):
        self.ways, self.shots, self.num_tasks = ways, shots, num_tasks
        self.sampled_descriptions = {}
        self.random = random.Random(seed)

    def sample_task_description(self):
        chosen = self.random.sample(range(NUM_CLASSES), self.ways)
        drawn = [
            item
            for label in chosen
            for item in self.random.sample(np.flatnonzero(label == LABELS).tolist(), self.shots)
        ]
        self.random.shuffle(drawn)
        return [FakeDescription(item) for item in drawn]


def make_episodes(taskset, **changes):
    settings = {
        "classes_per_episode": 3,
        "collections_per_class": 2,
        "items_per_collection": 2,
        "episodes_per_epoch": 5,
    }
    return episodes_from_taskset(taskset, LABELS, **(settings | changes))


def test_tasks_become_episodes_of_disjoint_collections():
    episodes = make_episodes(FakeTaskset())
    assert episodes.offsets.tolist() == [0, 2, 4, 6, 8, 10, 12]
    drawn = list(episodes)
    assert len(drawn) == len(episodes) == 5
    for items in drawn:
        assert len(set(items)) == 12
        labels = LABELS[items].reshape(3, 4)
        assert (labels == labels[:, :1]).all()
    assert len({tuple(items) for items in drawn}) == 5


def test_an_episode_holds_the_items_of_its_task():
    expected = [{d.index for d in FakeTaskset(seed=3).sample_task_description()}]
    assert [set(next(iter(make_episodes(FakeTaskset(seed=3)))))] == expected


def test_a_fixed_number_of_tasks_comes_round_again_as_the_taskset_keeps_it():
    taskset = FakeTaskset(num_tasks=2)
    drawn = list(make_episodes(taskset))
    assert drawn[0] == drawn[2] == drawn[4]
    assert drawn[1] == drawn[3] != drawn[0]
    assert set(drawn[0]) == {d.index for d in taskset.sampled_descriptions[0]}


def test_tasks_serve_as_a_batch_sampler():
    data = TensorDataset(torch.arange(len(LABELS)))
    loader = DataLoader(data, batch_sampler=make_episodes(FakeTaskset(seed=3)))
    assert [batch[0].tolist() for batch in loader] == list(make_episodes(FakeTaskset(seed=3)))


@pytest.mark.parametrize("wrong", [{"ways": 2}, {"shots": 3}, {"shots": 6}])
def test_a_task_that_is_no_episode_is_refused(wrong):
    with pytest.raises(InputError, match="An episode needs 3 classes with 4 items each"):
        next(iter(make_episodes(FakeTaskset(**wrong))))


def test_a_task_that_repeats_an_item_is_refused():
    taskset = FakeTaskset()
    taskset.sample_task_description = lambda: [FakeDescription(0)] * 12
    with pytest.raises(InputError, match="holds an item twice"):
        next(iter(make_episodes(taskset)))


@pytest.mark.filterwarnings("ignore")
def test_learn2learn_itself_gives_episodes_and_takes_tasks():
    l2l = pytest.importorskip("learn2learn")
    data = TensorDataset(torch.arange(len(LABELS)).unsqueeze(1), torch.from_numpy(LABELS))
    dataset = l2l.data.MetaDataset(data)
    transforms = l2l.data.transforms
    taskset = l2l.data.Taskset(
        dataset,
        task_transforms=[
            transforms.FusedNWaysKShots(dataset, n=3, k=4),
            transforms.LoadData(dataset),
            transforms.RemapLabels(dataset),
            transforms.ConsecutiveLabels(dataset),
        ],
        num_tasks=4,
    )
    for position, items in enumerate(make_episodes(taskset, episodes_per_epoch=4)):
        x, y = taskset[position]
        assert set(items) == set(x.flatten().tolist())
        blocks = y.reshape(3, 4)  # RemapLabels numbers them in an order of its own
        assert (blocks == blocks[:, :1]).all()
        assert sorted(blocks[:, 0].tolist()) == [0, 1, 2]
    task = make_taskset().sample()
    (support, support_labels), (query, query_labels) = l2l.data.partition_task(*task, shots=1)
    assert support_labels.tolist() == [0, 1, 2]
    assert len(support) == 3
    assert query_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(query) == 9
