"""CollectionBatch: round trips, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.collection import CollectionBatch, draw_disjoint
from setrep.errors import InputError

sizes_of_full = st.lists(st.integers(1, 6), min_size=1, max_size=6)
sizes_of_any = st.lists(st.integers(0, 6), min_size=1, max_size=6)
item_shapes = st.sampled_from([(), (3,), (2, 1, 4)])


def make_collections(sizes: list[int], shape: tuple[int, ...] = (3,)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(sizes))
    return [torch.randn(size, *shape, generator=generator) for size in sizes]


def cut(batch: CollectionBatch) -> list[torch.Tensor]:
    return [
        batch.values[start:end]
        for start, end in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)
    ]


def assert_same(found: CollectionBatch, expected: CollectionBatch) -> None:
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.offsets, expected.offsets)


@given(sizes_of_any, item_shapes)
def test_a_list_of_collections_comes_back_from_a_batch(sizes, shape):
    collections = make_collections(sizes, shape)
    batch = CollectionBatch.from_list(collections, allow_empty=True)
    assert len(batch) == len(collections)
    assert all(torch.equal(a, b) for a, b in zip(cut(batch), collections, strict=True))


@given(sizes_of_any, item_shapes)
def test_padding_and_back_changes_nothing(sizes, shape):
    batch = CollectionBatch.from_list(make_collections(sizes, shape), allow_empty=True)
    values, mask = batch.to_padded()
    assert values.shape == (len(sizes), max(sizes), *shape)
    assert mask.sum(dim=1).tolist() == sizes
    assert not values[~mask].any()
    assert_same(CollectionBatch.from_padded(values, mask, allow_empty=True), batch)


@given(sizes_of_any)
def test_padded_rows_hold_the_items_of_their_collection_first(sizes):
    collections = make_collections(sizes)
    values, _ = CollectionBatch.from_list(collections, allow_empty=True).to_padded()
    for row, collection in zip(values, collections, strict=True):
        assert torch.equal(row[: len(collection)], collection)


@given(sizes_of_any)
def test_sizes_and_index_agree_with_a_loop(sizes):
    batch = CollectionBatch.from_list(make_collections(sizes), allow_empty=True)
    assert batch.sizes.tolist() == sizes
    assert batch.index.tolist() == [b for b, size in enumerate(sizes) for _ in range(size)]


@given(sizes_of_any, st.data())
def test_select_gives_the_collections_asked_for_in_that_order(sizes, data):
    collections = make_collections(sizes)
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    selected = CollectionBatch.from_list(collections, allow_empty=True).select(chosen)
    assert len(selected) == len(chosen)
    for found, position in zip(cut(selected), chosen, strict=True):
        assert torch.equal(found, collections[position])


@given(sizes_of_full)
def test_selecting_everything_gives_the_same_batch(sizes):
    batch = CollectionBatch.from_list(make_collections(sizes))
    assert_same(batch.select(torch.arange(len(batch))), batch)


@pytest.mark.parametrize("chosen", [[2], [-1], [0, 5]])
def test_select_refuses_positions_that_do_not_exist(chosen):
    batch = CollectionBatch.from_list(make_collections([1, 2]))
    with pytest.raises(InputError, match="There are 2 collections"):
        batch.select(chosen)


@pytest.mark.parametrize("chosen", [torch.tensor([True, False]), torch.tensor([0.0, 1.0])])
def test_select_refuses_masks_and_floats(chosen):
    batch = CollectionBatch.from_list(make_collections([1, 2]))
    with pytest.raises(InputError, match="by position"):
        batch.select(chosen)


def test_items_can_be_replaced_one_for_one_only():
    batch = CollectionBatch.from_list(make_collections([1, 2]))
    replaced = batch.with_values(torch.zeros(3, 7))
    assert torch.equal(replaced.offsets, batch.offsets)
    with pytest.raises(InputError, match="2 items"):
        batch.with_values(torch.zeros(2, 7))


def test_moving_to_a_device_keeps_items_offsets_and_empties():
    batch = CollectionBatch.from_list(make_collections([1, 0]), allow_empty=True)
    assert_same(batch.to("cpu"), batch)
    assert batch.to("cpu").allow_empty


@pytest.mark.parametrize("sizes", [[0], [2, 0, 1], [0, 3]])
def test_an_empty_collection_is_refused_unless_allowed(sizes):
    collections = make_collections(sizes)
    with pytest.raises(InputError, match=f"Collection {sizes.index(0)} is empty"):
        CollectionBatch.from_list(collections)
    assert CollectionBatch.from_list(collections, allow_empty=True).sizes.tolist() == sizes


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="at least one collection"):
        CollectionBatch.from_list([])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 2, 5], "Offsets end at 5, but there are 3 items"),
        ([0, 5, 3], "Offsets decrease after position 1"),
        ([0, 2, 1, 3], "Offsets decrease after position 1"),
        ([1, 3], "start at 0, not at 1"),
        ([-1, 3], "start at 0, not at -1"),
        ([0, 2], "Offsets end at 2, but there are 3 items"),
        ([0], "Offsets end at 0, but there are 3 items"),
    ],
)
@pytest.mark.parametrize("allow_empty", [False, True])
def test_offsets_that_do_not_describe_the_items_are_refused(offsets, message, allow_empty):
    with pytest.raises(InputError, match=message) as caught:
        CollectionBatch(torch.zeros(3, 2), torch.tensor(offsets), allow_empty)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "offsets",
    [
        torch.tensor([0, 3], dtype=torch.int32),
        torch.tensor([0.0, 3.0]),
        torch.tensor([[0, 3]]),
        torch.tensor([], dtype=torch.int64),
    ],
)
def test_offsets_of_another_type_or_shape_are_refused(offsets):
    with pytest.raises(InputError, match="one-dimensional int64"):
        CollectionBatch(torch.zeros(3, 2), offsets)


def test_values_without_an_item_dimension_are_refused():
    with pytest.raises(InputError, match="item dimension"):
        CollectionBatch(torch.tensor(1.0), torch.tensor([0, 1]))


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool)])
def test_a_mask_of_another_type_or_shape_is_refused(mask):
    with pytest.raises(InputError, match="mask must be boolean of shape"):
        CollectionBatch.from_padded(torch.zeros(2, 3, 5), mask)


def test_padding_may_hold_nan():
    values = torch.tensor([[[1.0], [torch.nan]], [[2.0], [3.0]]])
    batch = CollectionBatch.from_padded(values, torch.tensor([[True, False], [True, True]]))
    assert batch.values.flatten().tolist() == [1, 2, 3]


@given(st.lists(st.integers(0, 4), max_size=4), st.integers(0, 5), st.integers(0, 99))
def test_disjoint_draws_have_their_sizes_and_share_no_item(sizes, spare, seed):
    pool = torch.arange(100, 100 + sum(sizes) + spare)
    drawn = draw_disjoint(pool, sizes, torch.Generator().manual_seed(seed))
    assert [len(collection) for collection in drawn] == sizes
    items = [item for collection in drawn for item in collection.tolist()]
    assert len(set(items)) == len(items)
    assert set(items) <= set(pool.tolist())


def test_a_pool_with_too_few_items_is_refused():
    with pytest.raises(InputError, match="need 5 items, but the pool holds 4"):
        draw_disjoint(torch.arange(4), [2, 3], torch.Generator())
