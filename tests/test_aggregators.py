"""Laws that every aggregator keeps; one that is registered is covered."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.aggregators import AGGREGATORS, CentroidAggregator, build_aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from tests.aggregator_cases import DIM, batch_of, build, draw, every_aggregator, same

sizes_and_seed = given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**16)
)
few_examples = settings(max_examples=15, deadline=None)


@every_aggregator
@sizes_and_seed
@few_examples
def test_a_collection_is_embedded_the_same_alone_and_in_a_batch(name, options, sizes, seed):
    aggregator = build(name, options, seed)
    collections = draw(sizes, seed)
    together = aggregator(batch_of(*collections))
    alone = torch.cat([aggregator(batch_of(c)) for c in collections])
    assert together.shape == (len(sizes), aggregator.dim_out)
    assert same(together, alone)


@every_aggregator
def test_a_large_collection_and_small_ones_are_embedded_the_same_alone_and_together(name, options):
    aggregator = build(name, options)
    collections = draw([3, 1, 1000, 65, 2, 64, 17], seed=1)
    alone = torch.cat([aggregator(batch_of(c)) for c in collections])
    assert same(aggregator(batch_of(*collections)), alone)


@every_aggregator
@sizes_and_seed
@few_examples
def test_the_order_of_items_does_not_matter(name, options, sizes, seed):
    aggregator = build(name, options, seed)
    collections = draw(sizes, seed)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [c[torch.randperm(len(c), generator=generator)] for c in collections]
    assert same(aggregator(batch_of(*shuffled)), aggregator(batch_of(*collections)))


@every_aggregator
@sizes_and_seed
@few_examples
def test_copies_of_all_items_change_nothing_where_that_is_declared(name, options, sizes, seed):
    aggregator = build(name, options, seed)
    once = draw(sizes, seed)
    embedding = aggregator(batch_of(*once))
    if aggregator.ignores_copies:
        assert same(aggregator(batch_of(*(c.repeat(2, 1) for c in once))), embedding)
        assert same(aggregator(batch_of(*(c.repeat(3, 1) for c in once))), embedding)


@every_aggregator
def test_copies_of_all_items_change_the_embedding_where_it_is_not_declared(name, options):
    aggregator = build(name, options)
    items = draw([6], seed=2)[0]
    if not aggregator.ignores_copies:
        twice = aggregator(batch_of(items.repeat(2, 1)))
        assert not same(twice, aggregator(batch_of(items)), 1e-3)


@every_aggregator
def test_gradients_are_right(name, options):
    aggregator = build(name, options)
    batch = batch_of(*draw([1, 3, 2, 5], seed=1))
    values = batch.values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: aggregator(batch.with_values(x)), (values,))


@every_aggregator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_that_are_all_one_point_have_finite_embeddings_and_gradients(name, options, dtype):
    aggregator = build(name, options).to(dtype)
    points = draw([1, 1, 1], seed=3)
    points[2].zero_()
    batch = batch_of(*(p.to(dtype).repeat(n, 1) for p, n in zip(points, [1, 3, 8], strict=True)))
    values = batch.values.requires_grad_()
    embedding = aggregator(batch)
    embedding.square().sum().backward()
    assert bool(embedding.isfinite().all())
    assert bool(values.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in aggregator.parameters() if p.grad is not None)


@every_aggregator
def test_a_nan_stays_in_its_collection(name, options):
    aggregator = build(name, options)
    clean = draw([3, 4, 2], seed=4)
    spoilt = [c.clone() for c in clean]
    spoilt[1][2, 0] = float("nan")
    found = []
    for collections in (clean, spoilt):
        batch = batch_of(*collections)
        values = batch.values.requires_grad_()
        embedding = aggregator(batch)
        embedding[[0, 2]].square().sum().backward()
        found.append((embedding.detach(), values.grad))
    (embedding, gradient), (spoilt_embedding, spoilt_gradient) = found
    others = [0, 1, 2, 7, 8]
    assert bool(spoilt_embedding[1].isnan().any())
    assert same(spoilt_embedding[[0, 2]], embedding[[0, 2]])
    assert same(spoilt_gradient[others], gradient[others])


@every_aggregator
def test_the_gradient_of_a_collection_with_nan_stays_in_it(name, options):
    collections = draw([3, 4, 2], seed=4)
    collections[1][2, 0] = float("nan")
    batch = batch_of(*collections)
    values = batch.values.requires_grad_()
    build(name, options)(batch).sum().backward()
    assert bool(values.grad[[0, 1, 2, 7, 8]].isfinite().all())


@every_aggregator
def test_an_empty_collection_has_the_zero_vector_and_finite_gradients(name, options):
    aggregator = build(name, options)
    collections = draw([2, 3], seed=5)
    values = torch.cat(collections).requires_grad_()
    batch = CollectionBatch(values, torch.tensor([0, 0, 2, 2, 5, 5]), allow_empty=True)
    embedding = aggregator(batch)
    assert same(embedding[[1, 3]], aggregator(batch_of(*collections)))
    assert not embedding[[0, 2, 4]].any()
    embedding.square().sum().backward()
    gradients = [values.grad, *(p.grad for p in aggregator.parameters() if p.grad is not None)]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@every_aggregator
@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_without_items_has_an_embedding_for_each_collection(name, options, count):
    aggregator = build(name, options)
    offsets = torch.zeros(count + 1, dtype=torch.int64)
    values = torch.zeros(0, DIM, dtype=torch.float64)
    embedding = aggregator(CollectionBatch(values, offsets, allow_empty=True))
    assert torch.equal(embedding, torch.zeros(count, aggregator.dim_out, dtype=torch.float64))


@every_aggregator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_items_are_embedded_in_float32(name, options, dtype):
    exact = build(name, options)
    rounded = [c.to(dtype) for c in draw([1, 5, 300], seed=6)]
    found = copy.deepcopy(exact).float()(batch_of(*rounded))
    assert found.dtype == torch.float32
    expected = exact(batch_of(*(c.double() for c in rounded)))
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)


@every_aggregator
def test_items_of_another_shape_or_of_whole_numbers_are_refused(name, options):
    aggregator = build(name, options)
    for items in (torch.ones(2, DIM + 1), torch.ones(2, DIM, 1), torch.ones(2, DIM).long()):
        with pytest.raises(InputError, match=rf"takes items of shape \(n, {DIM}\)"):
            aggregator(batch_of(items))


@every_aggregator
def test_saved_parameters_and_a_copy_give_the_same_embeddings(name, options):
    aggregator, other = build(name, options, seed=0), build(name, options, seed=1)
    batch = batch_of(*draw([2, 5], seed=7))
    twin = copy.deepcopy(aggregator)
    other.load_state_dict(aggregator.state_dict())
    assert torch.equal(other(batch), aggregator(batch))
    with torch.no_grad():
        for parameter in aggregator.parameters():
            parameter.zero_()
    assert torch.equal(twin(batch), other(batch))


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_the_formula_is_in_the_docstring(name):
    described = AGGREGATORS[name].__doc__ or ""
    assert described.count("$$") >= 2
    assert described.split("\n")[0].endswith(".")


def test_bfloat16_items_are_summed_in_float32():
    values = torch.full((4097, 1), 1.0, dtype=torch.bfloat16)
    out = CentroidAggregator(1)(CollectionBatch(values, torch.tensor([0, 4097])))
    assert out.item() == 1.0  # bfloat16 sums would stop at 256


def test_an_unknown_aggregator_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean 'centroid'"):
        build_aggregator("centriod", DIM)


@every_aggregator
def test_second_derivatives_are_right_or_refused(name, options):
    """A penalty on gradients must not lack a part, wherever the items come from."""
    aggregator = build(name, options)
    batch = batch_of(*draw([1, 3, 4], seed=4))
    start = draw([1], seed=5)[0][0].requires_grad_()

    def penalty(factors):
        items = (batch.values * factors).tanh()
        out = aggregator(batch.with_values(items)).sin().sum()
        (grad,) = torch.autograd.grad(out, items, create_graph=True)
        return grad.square().sum()

    if name in ("gem", "mean_std", "covariance", "geometric_median"):
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(penalty(start), start)
        return
    try:
        (found,) = torch.autograd.grad(penalty(start), start)
    except RuntimeError:  # torch's own refusal
        return
    step = 1e-6
    for t in range(DIM):
        moved = [start.detach().clone().requires_grad_() for _ in range(2)]
        with torch.no_grad():
            moved[0][t] += step
            moved[1][t] -= step
        slope = (penalty(moved[0]) - penalty(moved[1])).item() / (2 * step)
        assert found[t].item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_items_that_agree_have_no_deviation_and_no_gradient_of_it():
    aggregator = build_aggregator("mean_std", 1)
    for n in (3, 7, 8, 100, 5000):
        items = torch.full((n, 1), 0.1, requires_grad=True)
        mean, deviation = aggregator(batch_of(items))[0]
        assert (mean.item(), deviation.item()) == (items[0].item(), 0.0)
        deviation.backward()
        assert not items.grad.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("quantiles", {"quantiles": 0.5}),
        ("trimmed_mean", {"trim": "a"}),
        ("gem", {"power": "3"}),
        ("geometric_median", {"num_iterations": 2.5}),
        ("concat", {"parts": [1]}),
    ],
)
def test_options_of_another_type_are_refused(name, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}|'1'"):
        build_aggregator(name, DIM, **options)
    with pytest.raises(InputError, match="dim must be a whole number"):
        build_aggregator(name, 2.5)


@pytest.mark.parametrize(
    ("weights", "items"),
    [(torch.float32, torch.float64), (torch.float16, torch.float16)],
)
def test_weights_of_another_type_than_the_items_are_refused(weights, items):
    aggregator = build_aggregator("attention", DIM).to(weights)
    with pytest.raises(InputError, match="convert one"):
        aggregator(batch_of(torch.ones(3, DIM, dtype=items)))
