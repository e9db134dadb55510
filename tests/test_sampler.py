"""Episodes: what they hold, when they repeat, what is refused."""

from __future__ import annotations

import itertools
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from setrep.collection import draw_disjoint
from setrep.data.sampler import EpisodeSampler
from setrep.errors import InputError

LABELS = np.repeat(np.arange(6), 12)  # 6 classes with 12 items each
KEYS = np.arange(72) // 4  # 3 keys of 4 items in each class


def make_sampler(labels=LABELS, keys=None, **changes) -> EpisodeSampler:
    settings = {
        "classes_per_episode": 3,
        "collections_per_class": 2,
        "items_per_collection": 4,
        "episodes_per_epoch": 10,
    }
    return EpisodeSampler(labels, keys, **(settings | changes))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(-3, 2**70))
def test_an_episode_is_classes_of_disjoint_collections(num_classes, per_class, size, seed):
    sampler = make_sampler(
        classes_per_episode=num_classes,
        collections_per_class=per_class,
        items_per_collection=size,
        seed=seed,
    )
    items = sampler.draw(0, 3)
    assert len(set(items.tolist())) == len(items) == num_classes * per_class * size
    labels = torch.from_numpy(LABELS)[items].view(num_classes, per_class * size)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0].tolist())) == num_classes
    expected = [size * i for i in range(num_classes * per_class + 1)]
    assert sampler.offsets(0, 3).tolist() == expected


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_a_natural_collection_is_of_one_key_and_those_of_a_class_of_distinct_keys(
    per_class, size, seed
):
    sampler = make_sampler(
        keys=KEYS, collections_per_class=per_class, items_per_collection=size, seed=seed
    )
    items = sampler.draw(1, 2)
    assert len(set(items.tolist())) == len(items)
    keys = torch.from_numpy(KEYS)[items].view(3 * per_class, size)
    assert (keys == keys[:, :1]).all()
    assert len(set(keys[:, 0].tolist())) == 3 * per_class
    labels = torch.from_numpy(LABELS)[items].view(3, per_class * size)
    assert (labels == labels[:, :1]).all()


def test_keys_may_repeat_between_classes():
    labels, keys = [0] * 4 + [1] * 4, [0, 0, 1, 1] * 2
    sampler = make_sampler(labels, keys, classes_per_episode=2, items_per_collection=2)
    for items in sampler:
        assert np.array(labels)[items].reshape(2, 4).std(axis=1).tolist() == [0, 0]
        assert np.array(keys)[items].reshape(4, 2).std(axis=1).tolist() == [0, 0, 0, 0]


def test_a_key_with_too_few_items_never_serves():
    keys = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3] * 2)
    keys[12:] += 4
    sampler = make_sampler(np.repeat([0, 1], 12), keys, classes_per_episode=2)
    used = {int(key) for items in sampler for key in keys[items]}
    assert used == {0, 1, 4, 5}


@given(st.permutations(range(72)))
def test_the_order_of_the_data_does_not_matter(order):
    sampler = make_sampler(LABELS[order])
    labels = LABELS[order][sampler.draw(0, 0)]
    assert (labels.reshape(3, 8) == labels.reshape(3, 8)[:, :1]).all()


def test_every_class_and_item_is_drawn_in_time():
    items = [item for episode in make_sampler(episodes_per_epoch=60) for item in episode]
    assert set(items) == set(range(72))


def test_a_sampler_gives_plain_lists_and_its_length():
    sampler = make_sampler()
    episodes = list(sampler)
    assert len(episodes) == len(sampler) == 10
    assert all(isinstance(item, int) for episode in episodes for item in episode)
    assert episodes == [sampler.draw(0, position).tolist() for position in range(10)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_any_number_of_workers_sees_the_same_episodes(num_workers):
    data = TensorDataset(torch.arange(72))
    loader = DataLoader(data, batch_sampler=make_sampler(seed=5), num_workers=num_workers)
    found = [batch[0].tolist() for batch in loader]
    assert found == list(make_sampler(seed=5))


def test_ranks_share_out_the_episodes_of_one_process():
    alone = make_sampler(episodes_per_epoch=30)
    for rank, position in itertools.product(range(3), range(10)):
        shared = make_sampler(rank=rank, world_size=3)
        expected = alone.draw(2, 3 * position + rank)
        assert torch.equal(shared.draw(2, position), expected)


def test_seed_epoch_and_position_each_change_the_episode():
    sampler, other = make_sampler(seed=0), make_sampler(seed=1)
    episodes = [sampler.draw(e, p) for e in range(5) for p in range(10)]
    episodes += [other.draw(e, p) for e in range(5) for p in range(10)]
    assert len({tuple(episode.tolist()) for episode in episodes}) == 100


def test_drawing_leaves_the_global_generators_alone():
    before = torch.get_rng_state()
    list(make_sampler())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("taken", [0, 1, 7, 10])
def test_a_sampler_continues_in_mid_epoch(taken):
    sampler = make_sampler()
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(3)
    drawn = list(itertools.islice(sampler, taken))
    continued = make_sampler()
    continued.load_state_dict(sampler.state_dict())
    assert drawn + list(continued) == whole
    assert list(continued) == whole


def test_the_state_can_name_the_episodes_used_instead_of_those_drawn():
    sampler = make_sampler()
    drawn = list(itertools.islice(sampler, 6))
    continued = make_sampler()
    continued.load_state_dict(sampler.state_dict(position=2))
    assert next(iter(continued)) == drawn[2]


def test_looking_at_the_first_episode_uses_nothing_up():
    sampler = make_sampler()
    first = next(iter(sampler))
    assert next(iter(sampler)) == first
    sampler.load_state_dict({"epoch": 0, "position": 4})
    assert next(iter(sampler)) == next(iter(sampler)) == sampler.draw(0, 4).tolist()


def test_setting_the_epoch_starts_at_its_first_episode():
    sampler = make_sampler()
    list(itertools.islice(sampler, 4))
    sampler.set_epoch(1)
    assert sampler.state_dict() == {"epoch": 1, "position": 0}
    assert next(iter(sampler)) == sampler.draw(1, 0).tolist()


@pytest.mark.parametrize("state", [{"epoch": 0, "position": 11}, {"epoch": -1, "position": 0}])
def test_a_state_that_does_not_fit_is_refused(state):
    with pytest.raises(InputError, match="an epoch has 10 episodes"):
        make_sampler().load_state_dict(state)


@pytest.mark.parametrize(("epoch", "position"), [(0, 10), (0, -1), (-1, 0)])
def test_an_episode_that_does_not_exist_is_refused(epoch, position):
    with pytest.raises(InputError, match="positions run from 0 to 9"):
        make_sampler().draw(epoch, position)


def assert_refused(message: str, *args, **changes) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_sampler(*args, **changes)
    assert "\n" not in str(caught.value)


UNEVEN = [0] * 9 + [1] * 8 + [2] * 8 + [3] * 7 + [4] * 1 + [5] * 2 + [6] * 3
NAMES = ("a", "b", "c", "d", "e", "f", "g")


def test_small_classes_are_refused_by_name_and_count():
    assert_refused(
        r"4 of 7 classes .*'d' \(7 items\), 'e' \(1 item\), 'f' \(2 items\) and 1 more\. "
        r"An episode needs 8 items .*Lower items_per_collection.*on_small_class='drop'",
        UNEVEN,
        label_names=NAMES,
    )


def test_small_classes_are_dropped_and_counted_when_asked(caplog):
    with caplog.at_level(logging.WARNING):
        sampler = make_sampler(UNEVEN, label_names=NAMES, on_small_class="drop")
    assert "4 of 7 classes" in caplog.text
    assert sampler.dropped == ("d", "e", "f", "g")
    assert sampler.labels == (0, 1, 2)
    assert {UNEVEN[item] for episode in sampler for item in episode} == {0, 1, 2}


def test_dropping_must_leave_enough_classes():
    assert_refused("4 of 7 classes", UNEVEN, classes_per_episode=4, on_small_class="drop")


@pytest.mark.parametrize("on_small_class", ["refuse", "drop"])
def test_collections_larger_than_any_class_are_refused(on_small_class):
    message = r"An episode needs 3 classes with 200 items .*6 of 6 classes.*'0' \(12 items\)"
    assert_refused(message, items_per_collection=100, on_small_class=on_small_class)


def test_more_classes_than_there_are_is_refused():
    assert_refused("needs 7 classes, but there are 6", classes_per_episode=7)
    assert_refused("needs 3 classes, but there are 0", np.zeros(0, dtype=np.int64))


def test_too_few_keys_are_refused():
    assert_refused(r"needs 3 classes with 4 keys .*\(3 keys", keys=KEYS, collections_per_class=4)
    assert_refused(r"\(0 keys of 5 or more items\)", keys=KEYS, items_per_collection=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes_per_episode": 0},
        {"collections_per_class": 0},
        {"items_per_collection": 0},
        {"episodes_per_epoch": 0},
        {"rank": 1},
        {"rank": -1, "world_size": 2},
        {"on_small_class": "keep"},
        {"keys": KEYS[:-1]},
        {"labels": LABELS.astype(float)},
    ],
)
def test_settings_that_mean_nothing_are_refused(changes):
    name = next(iter(changes))
    assert_refused(name, **changes)


def squared_distance_of_means(values: torch.Tensor, *collections: torch.Tensor) -> float:
    first, second = (values[collection].mean(dim=0) for collection in collections)
    return float((first - second).square().sum())


def law(values: torch.Tensor, n1: int, n2: int) -> float:
    """Return S^2 (1/n1 + 1/n2), the spread with N - 1 in the denominator."""
    spread = (values - values.mean(dim=0)).square().sum() / (len(values) - 1)
    return float(spread) * (1 / n1 + 1 / n2)


def pool_of(size: int) -> torch.Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("size", "n1", "n2"), [(5, 2, 2), (6, 1, 3), (6, 2, 4), (4, 1, 1)])
def test_means_of_disjoint_draws_are_apart_as_the_finite_pool_law_says(monkeypatch, size, n1, n2):
    values = pool_of(size)
    total = []
    for order in itertools.permutations(range(size)):
        monkeypatch.setattr(torch, "randperm", lambda n, generator, o=order: torch.tensor(o))
        drawn = draw_disjoint(torch.arange(size), [n1, n2], torch.Generator())
        total.append(squared_distance_of_means(values, *drawn))
    assert np.mean(total) == pytest.approx(law(values, n1, n2), rel=1e-12)


def test_means_of_an_episodes_collections_are_apart_as_the_finite_pool_law_says(monkeypatch):
    values = pool_of(5)
    sampler = make_sampler([0] * 5, classes_per_episode=1, items_per_collection=2)
    total = []
    for order in itertools.permutations(range(5)):
        fake = {1: torch.tensor([0]), 5: torch.tensor(order)}  # of the one class, of its items
        monkeypatch.setattr(torch, "randperm", lambda n, generator, fake=fake: fake[n])
        total.append(squared_distance_of_means(values, *sampler.draw(0, 0).split(2)))
    assert np.mean(total) == pytest.approx(law(values, 2, 2), rel=1e-12)


def test_disjoint_draws_are_uniform_over_arrangements():
    generator = torch.Generator().manual_seed(0)
    counts: Counter[tuple[frozenset[int], ...]] = Counter()
    for _ in range(6000):
        drawn = draw_disjoint(torch.arange(5), [2, 1], generator)
        counts[tuple(frozenset(collection.tolist()) for collection in drawn)] += 1
    assert len(counts) == 30  # 5! / (2! 1! 2!)
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_square < 58.3  # 99.9 % of chi-square with 29 degrees of freedom
