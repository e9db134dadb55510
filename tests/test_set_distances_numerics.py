"""Gradients, precision, memory and refusals of every set distance."""

from __future__ import annotations

import pytest
import torch

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.set_distances import pairs, pairwise
from tests.set_distances import DIM, batch, draw, draw_pairs, every_distance, mapped, same


@every_distance
def test_gradients_are_right(law):
    x, y = draw_pairs([(1, 3), (4, 2), (3, 3)], seed=1)
    values = x.values.requires_grad_(), y.values.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: law.function(x.with_values(a), y.with_values(b)), values
    )


@every_distance
def test_gradients_are_finite_where_items_coincide(law):
    item = torch.ones(1, DIM, dtype=torch.float64)
    x = batch(item, item.repeat(3, 1), draw([4], 0)[0])
    for other in (lambda v: v, lambda v: v.detach().clone()):
        values = x.values.clone().requires_grad_()
        law.function(x.with_values(values), x.with_values(other(values))).sum().backward()
        assert bool(values.grad.isfinite().all())


@every_distance
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_pair(law, side, bad):
    both = draw_pairs([(3, 4), (3, 3), (4, 1)], seed=2)  # like sizes are padded together
    expected = law.function(*both)
    values = [c.values.clone() for c in both]
    values[side][3 + side, 1] = bad  # of the second pair
    leaves = [v.requires_grad_() for v in values]
    found = law.function(*(c.with_values(v) for c, v in zip(both, leaves, strict=True)))
    assert same(found[[0, 2]], expected[[0, 2]])
    if bad is torch.nan:
        assert bool(found[1].isnan())
    found[[0, 2]].sum().backward()
    others = [v.grad[c.index != 1] for c, v in zip(both, leaves, strict=True)]
    assert all(bool(gradient.isfinite().all()) for gradient in others)


@every_distance
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_float32(law, dtype):
    x, y = draw_pairs([(30, 20), (5, 9)], seed=3)
    x, y = (mapped(c, lambda v: v.to(dtype)) for c in (x, y))
    found = law.function(x, y)
    assert found.dtype == torch.float32
    exact = law.function(*(mapped(c, lambda v: v.double()) for c in (x, y)))
    assert torch.allclose(found.double(), exact, rtol=1e-5)
    mixed = law.function(x, mapped(y, lambda v: v.float()))
    assert torch.equal(mixed, found)


@every_distance
def test_autocast_changes_nothing(law):
    x, y = (mapped(c, lambda v: v.float()) for c in draw_pairs([(200, 300), (5, 9)], seed=3))
    expected = law.function(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(law.function(x, y), expected)


@every_distance
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_items_far_from_the_origin_keep_their_differences(law, dtype, rtol):
    """The items are rounded where they lie; what is measured is what is lost after that."""
    if "translation" not in law.invariances:
        return
    x, y = draw_pairs([(40, 30), (7, 11), (1, 2)], seed=4)
    x, y = (mapped(c, lambda v: (1e4 + 1e-2 * v).to(dtype)) for c in (x, y))
    x_near, y_near = (mapped(c, lambda v: v.double() - 1e4) for c in (x, y))  # exact
    assert torch.allclose(law.function(x, y).double(), law.function(x_near, y_near), rtol=rtol)


@every_distance
def test_blocks_change_nothing(law, monkeypatch):
    x, y = draw_pairs([(40, 30), (7, 11), (1, 50), (50, 1), (13, 13), (40, 30)], seed=5)
    leaves = x.values.requires_grad_(), y.values.requires_grad_()
    expected = law.function(x, y)
    gradients = torch.autograd.grad(expected.sum(), leaves)
    for limit in (1, 100, 1000):
        monkeypatch.setattr(pairs, "MAX_ELEMENTS", limit)
        found = law.function(x, y)
        assert same(found, expected)
        for gradient, wanted in zip(
            torch.autograd.grad(found.sum(), leaves), gradients, strict=True
        ):
            assert same(gradient, wanted)


@every_distance
def test_what_is_kept_for_gradients_grows_with_the_items_and_not_with_their_pairs(law, monkeypatch):
    monkeypatch.setattr(pairs, "MAX_ELEMENTS", 1000)
    x, y = draw_pairs([(150, 150)], seed=5)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        law.function(x.with_values(x.values.requires_grad_()), y)
    assert sum(kept) < 150 * 150 / 2


@every_distance
def test_all_pairs_are_those_one_by_one_in_any_portions(law, monkeypatch):
    x, y = batch(*draw([3, 1, 8], 6)), batch(*draw([2, 9, 4, 5], 7))
    leaves = x.values.requires_grad_(), y.values.requires_grad_()
    expected = torch.stack([law.function(x.select([i] * 4), y) for i in range(3)])
    gradients = torch.autograd.grad(expected.sum(), leaves)
    for limit in (1, 60, 2**20):
        monkeypatch.setattr(pairs, "MAX_ELEMENTS", limit)
        found = pairwise(law.function, x, y)
        assert found.shape == (3, 4)
        assert same(found, expected)
        for gradient, wanted in zip(
            torch.autograd.grad(found.sum(), leaves), gradients, strict=True
        ):
            assert same(gradient, wanted)


@every_distance
def test_there_may_be_no_pairs(law):
    none = CollectionBatch(torch.zeros(0, DIM), torch.zeros(1, dtype=torch.int64))
    assert law.function(none, none).shape == (0,)
    one = batch(torch.ones(2, DIM))
    assert pairwise(law.function, none, one).shape == (0, 1)
    assert pairwise(law.function, one, none).shape == (1, 0)


@every_distance
def test_what_cannot_be_compared_is_refused(law):
    x, y = draw_pairs([(3, 4), (2, 2)], seed=8)
    with pytest.raises(InputError, match="one to one; found 1 and 2"):
        law.function(x.select([0]), y)
    with pytest.raises(InputError, match="found 3 and 2 dimensions"):
        law.function(x, mapped(y, lambda v: v[:, :2]))
    with pytest.raises(InputError, match=r"vectors of real numbers, not torch\.int64 items"):
        law.function(mapped(x, lambda v: v.long()), y)
    with pytest.raises(InputError, match=r"vectors of real numbers, .* of shape \(3, 1\)"):
        law.function(mapped(x, lambda v: v.unsqueeze(2)), y)
    empty = CollectionBatch(y.values, torch.tensor([0, 6, 6]), allow_empty=True)
    for collections in ((x, empty), (empty, x)):
        with pytest.raises(InputError, match=r"collection 1 of [xy] is empty"):
            law.function(*collections)
        with pytest.raises(InputError, match=r"collection 1 of [xy] is empty"):
            pairwise(law.function, *collections)
