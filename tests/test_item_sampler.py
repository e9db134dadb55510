"""Batches of single items, and the items that stand for their further views."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.config import ViewsConfig
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.item_sampler import ItemSampler
from setrep.data.views import Partners
from setrep.errors import InputError

few = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**16)


@few
@given(SEEDS, st.integers(2, 9), st.integers(1, 3), st.integers(0, 5))
def test_ranks_share_batches_that_have_every_item_at_most_once_an_epoch(seed, size, ranks, epoch):
    num_items = 40 + seed % 7
    samplers = [
        ItemSampler(num_items, batch_size=size, seed=seed, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    assert {len(sampler) for sampler in samplers} == {num_items // (size * ranks)}
    drawn = [
        sampler.draw(epoch, position)
        for position in range(len(samplers[0]))
        for sampler in samplers
    ]
    assert all(len(batch) == size for batch in drawn)
    items = torch.cat(drawn)
    assert len(items.unique()) == len(items)
    assert items.min() >= 0
    assert items.max() < num_items
    again = ItemSampler(num_items, batch_size=size, seed=seed, world_size=ranks)
    assert torch.equal(again.draw(epoch, 0), drawn[0])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(ItemSampler(60, batch_size=60, seed=seed).draw(epoch, 0).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "at least 2"),
        ({"batch_size": 11}, "Lower training.batch_size"),
        ({"batch_size": 6, "world_size": 2}, "takes 12 items"),
        ({"batch_size": 2, "rank": 1}, "rank"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ItemSampler(10, **options)


@pytest.mark.parametrize(("epoch", "position"), [(0, 5), (0, -1), (-1, 0)])
def test_batches_that_are_not_there_are_refused(epoch, position):
    with pytest.raises(InputError, match="no batch"):
        ItemSampler(10, batch_size=2).draw(epoch, position)


def dataset(labels, keys=None):
    labels = np.asarray(labels)
    return ItemDataset(
        name="fake",
        split="train",
        items=np.zeros((len(labels), 1), dtype=np.float32),
        labels=labels,
        label_names=tuple(map(str, range(labels.max() + 1))),
        item_format=ItemFormat("vector", 1, 1),
        label_level="label",
        keys=None if keys is None else np.asarray(keys),
    )


def draw(data, items, seed=0, view=1, **config):
    generator = torch.Generator().manual_seed(seed)
    partners = Partners(data, ViewsConfig(**config))
    return partners.draw(torch.as_tensor(items), view, generator)


LABELS = [0, 1, 0, 2, 1, 0, 2, 2, 2]
KEYS = [0, 2, 0, 4, 2, 1, 4, 5, 4]  # of key 1, 5 there is one item each


@few
@given(SEEDS)
def test_views_are_of_the_item_of_its_sequence_or_of_its_collection(seed):
    items = torch.arange(9).repeat(20)
    keys, labels = torch.tensor(KEYS), torch.tensor(LABELS)
    assert torch.equal(draw(dataset(LABELS), items, seed), items)
    of_key = draw(dataset(LABELS, KEYS), items, seed, positives="collection")
    assert torch.equal(keys[of_key], keys[items])
    is_alone = (keys.unsqueeze(0) == keys.unsqueeze(1)).sum(dim=1)[items] == 1
    assert torch.equal(of_key == items, is_alone)
    of_label = draw(dataset(LABELS), items, seed, positives="collection")
    assert torch.equal(labels[of_label], labels[items])
    assert (of_label != items).all()
    beside = draw(dataset(LABELS), items, seed, positives="neighbour")
    assert ((beside - items).abs() == 1).all()
    in_key = draw(dataset(LABELS, KEYS), items, seed, positives="neighbour")
    for item, found in zip(items.tolist(), in_key.tolist(), strict=True):
        sequence = [i for i, key in enumerate(KEYS) if key == KEYS[item]]
        gap = abs(sequence.index(found) - sequence.index(item))
        assert gap == (1 if len(sequence) > 1 else 0)


def test_every_partner_is_drawn_equally_often():
    items = torch.zeros(30_000, dtype=torch.int64)
    data = dataset([0] * 5 + [1] * 3)
    found = draw(data, items, positives="collection").bincount(minlength=8)
    assert found[0] == 0
    assert (found[1:5] / 30_000 - 0.25).abs().max() < 0.02
    assert found[5:].sum() == 0
    middle = draw(data, items + 3, positives="neighbour").bincount(minlength=8)
    assert abs(middle[2] / 30_000 - 0.5) < 0.02
    assert middle[2] + middle[4] == 30_000


def test_false_positives_are_second_views_of_another_label_at_their_rate():
    labels = torch.tensor(LABELS)
    items = torch.arange(9).repeat(4000)
    data = dataset(LABELS)
    for view, rate in ((0, 0.3), (2, 0.3), (1, 0.0)):
        assert torch.equal(draw(data, items, view=view, false_positive_rate=rate), items)
    found = draw(data, items, false_positive_rate=0.3)
    is_false = found != items
    assert torch.equal(is_false, labels[found] != labels[items])
    assert abs(is_false.double().mean() - 0.3) < 0.01
    of_first = found[is_false & (items == 0)].bincount(minlength=9)
    others = labels != 0
    assert (of_first[others] / of_first.sum() - 1 / 6).abs().max() < 0.04
    assert draw(data, items, false_positive_rate=1.0).ne(items).all()


def test_false_positives_need_a_second_label():
    with pytest.raises(InputError, match="share one"):
        draw(dataset([0, 0, 0]), [0], false_positive_rate=0.1)
