"""Strangers in collections: how many, from where, and who stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.collection import CollectionBatch
from setrep.data.contamination import contaminate
from setrep.data.sampler import EpisodeSampler
from setrep.errors import InputError


def batch_of(sizes: list[int], labels: list[int]) -> tuple[CollectionBatch, torch.Tensor]:
    """Number the items from 100, so that they are no positions."""
    total = sum(sizes)
    batch = CollectionBatch(torch.arange(100, 100 + total), torch.tensor([0, *sizes]).cumsum(0))
    return batch, torch.tensor(labels).repeat_interleave(torch.tensor(sizes))


COLLECTIONS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=2, max_size=8
).filter(lambda found: len({label for _, label in found}) > 1)


@given(collections=COLLECTIONS, probability=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_each_place_holds_its_item_or_one_of_another_label(collections, probability, seed):
    sizes, of_collections = (list(of) for of in zip(*collections, strict=True))
    batch, labels = batch_of(sizes, of_collections)
    generator = torch.Generator().manual_seed(seed)
    found = contaminate(batch, labels, probability, generator)
    assert torch.equal(found.offsets, batch.offsets)
    own = torch.split(batch.values, sizes)
    for items, before, label in zip(
        torch.split(found.values, sizes), own, of_collections, strict=True
    ):
        true = [item for item in items.tolist() if item in before.tolist()]
        assert items[0] in before  # the first is a true one
        assert len(true) == len(set(true))
        strangers = torch.tensor([item for item in items.tolist() if item not in true])
        assert not (labels[strangers.long() - 100] == label).any()
        if probability == 0:
            assert sorted(true) == before.tolist()
        if probability == 1:
            assert len(true) == 1


def test_so_many_are_replaced_as_asked_and_whoever_stays_is_any():
    sizes = [4] * 5000
    batch, labels = batch_of(sizes, [0, 1] * 2500)
    found = contaminate(batch, labels, 0.3, torch.Generator().manual_seed(0))
    own = batch.values.view(-1, 4)
    is_true = (found.values.view(-1, 4, 1) == own.view(-1, 1, 4)).any(dim=1)  # by first place
    share = 1 - float(is_true.double().mean())
    # A fifth item is kept where all four would go: 0.3 - 0.3^4 / 4.
    assert share == pytest.approx(0.3 - 0.3**4 / 4, abs=0.015)
    assert is_true.double().mean(dim=0).tolist() == pytest.approx([1 - share] * 4, abs=0.02)


def test_strangers_are_drawn_evenly_from_the_other_labels():
    batch, labels = batch_of([2000, 500, 1500], [0, 1, 2])
    found = contaminate(batch, labels, 1.0, torch.Generator().manual_seed(1))
    strangers = labels[found.values[1:2000] - 100]
    assert float((strangers == 1).double().mean()) == pytest.approx(0.25, abs=0.04)


def test_one_label_has_no_strangers_and_a_probability_is_one():
    batch, labels = batch_of([2, 2], [0, 0])
    with pytest.raises(InputError, match="share one label"):
        contaminate(batch, labels, 0.5, torch.Generator())
    with pytest.raises(InputError, match=r"not 1\.5"):
        contaminate(batch, torch.tensor([0, 0, 1, 1]), 1.5, torch.Generator())


LABELS = torch.arange(120) // 20


def sampler(**more) -> EpisodeSampler:
    return EpisodeSampler(
        LABELS,
        classes_per_episode=4,
        collections_per_class=2,
        items_per_collection=5,
        episodes_per_epoch=6,
        **more,
    )


def test_an_episode_has_strangers_of_its_own_classes_and_the_same_each_time():
    contaminated = sampler(contamination=0.4)
    items, offsets = contaminated.draw(0, 2), contaminated.offsets(0, 2)
    plain = sampler().draw(0, 2)
    of_items = LABELS[plain]
    changed = LABELS[items] != of_items
    assert 5 <= int(changed.sum()) <= 27
    assert not changed[offsets[:-1]].any()  # the first item names the label of a collection
    assert set(items.tolist()) <= set(plain.tolist())
    assert torch.equal(items, sampler(contamination=0.4).draw(0, 2))


def test_sizes_vary_from_the_smallest_to_the_largest_and_cut_the_same_draw():
    ragged = sampler(min_items_per_collection=2)
    seen = set()
    for position in range(6):
        offsets = ragged.offsets(1, position)
        sizes = offsets.diff().tolist()
        items = ragged.draw(1, position)
        assert len(items) == int(offsets[-1])
        seen |= set(sizes)
        whole = sampler().draw(1, position).view(8, 5)
        pieces = torch.split(items, sizes)
        assert all(torch.equal(x, of[: len(x)]) for x, of in zip(pieces, whole, strict=True))
    assert seen == {2, 3, 4, 5}
    assert not torch.equal(ragged.offsets(0, 0), ragged.offsets(0, 1))
    with pytest.raises(InputError, match="at most items_per_collection"):
        sampler(min_items_per_collection=6)
    with pytest.raises(InputError, match="at least 1, not 0"):
        sampler(min_items_per_collection=0)
