"""Laws that every set distance keeps; one that is registered is covered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.set_distances import (
    SET_DISTANCES,
    centroid,
    chamfer,
    hausdorff,
    maxsim,
    modified_hausdorff,
    sliced_wasserstein,
    wasserstein,
)
from tests.set_distances import (
    DIM,
    batch,
    draw,
    draw_pairs,
    every_distance,
    few,
    mapped,
    same,
    seeds,
    sizes,
)


@every_distance
@given(sizes=sizes, seed=seeds)
@few
def test_a_pair_has_the_same_distance_alone_and_in_a_batch(law, sizes, seed):
    x, y = draw_pairs(sizes, seed)
    together = law.function(x, y)
    alone = [law.function(x.select([k]), y.select([k])) for k in range(len(x))]
    assert together.shape == (len(sizes),)
    assert same(together, torch.cat(alone))


@every_distance
@given(sizes=sizes, seed=seeds)
@few
def test_the_order_of_items_does_not_matter(law, sizes, seed):
    x, y = draw_pairs(sizes, seed)
    expected = law.function(x, y)
    x_back, y_back = (c.with_values(c.values[_turned(c)]) for c in (x, y))
    assert same(law.function(x_back, y_back), expected)


def _turned(collections):
    """Return the positions of the items, those of each collection backwards."""
    starts, ends = collections.offsets[:-1], collections.offsets[1:]
    return torch.cat([torch.arange(a, b).flip(0) for a, b in zip(starts, ends, strict=True)])


@every_distance
@given(sizes=sizes, seed=seeds)
@few
def test_a_symmetric_distance_is_the_same_both_ways(law, sizes, seed):
    x, y = draw_pairs(sizes, seed)
    if law.is_symmetric:
        assert same(law.function(x, y), law.function(y, x))


@every_distance
def test_a_distance_that_is_not_symmetric_differs_both_ways(law):
    x, y = draw_pairs([(4, 7), (5, 2)], seed=0)
    if not law.is_symmetric:
        assert not same(law.function(x, y), law.function(y, x), atol=1e-3)


@every_distance
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=seeds)
@few
def test_equal_collections_are_at_distance_0(law, sizes, seed):
    x = batch(*draw(sizes, seed))
    again = x.with_values(x.values[_turned(x)])
    if law.is_zero_for_equal:
        # Where the distance is the root of a sum, rounding of the sum shows as its root.
        found = law.function(x, again)
        assert same(found, torch.zeros(len(x), dtype=torch.float64), atol=1e-7)
        assert bool((found >= 0).all())


@every_distance
@given(sizes=sizes, seed=seeds)
@few
def test_what_is_far_is_at_a_larger_distance_or_a_smaller_similarity(law, sizes, seed):
    x, y = draw_pairs(sizes, seed)
    if law.is_similarity:
        x, y = (mapped(c, lambda v: torch.nn.functional.normalize(v, dim=1)) for c in (x, y))
        assert bool((law.function(x, x) > law.function(x, y)).all())
    else:
        near, far = law.function(x, mapped(x, lambda v: 0.9 * v)), law.function(x, y)
        apart = law.function(x, mapped(x, lambda v: v + 100))
        assert bool((near >= 0).all() and (far >= 0).all())
        assert bool((apart > torch.maximum(near, far)).all())


@every_distance
@given(sizes=sizes, seed=seeds)
@few
def test_declared_maps_of_the_items_change_nothing(law, sizes, seed):
    x, y = draw_pairs(sizes, seed)
    for name, move in _moves(seed).items():
        if name in law.invariances:
            moved = law.function(mapped(x, move), mapped(y, move))
            assert same(moved, law.function(x, y), atol=1e-10), name


@every_distance
def test_maps_that_are_not_declared_change_something(law):
    x, y = draw_pairs([(4, 7), (5, 2)], seed=0)
    for name, move in _moves(0).items():
        if name not in law.invariances:
            moved = law.function(mapped(x, move), mapped(y, move))
            assert not same(moved, law.function(x, y), atol=1e-4), name


def _moves(seed):
    shift, matrix = draw([1, DIM], seed + 2)
    rotation = torch.linalg.qr(matrix).Q
    return {"translation": lambda v: v + shift, "rotation": lambda v: v @ rotation}


@every_distance
@given(sizes=sizes, seed=seeds, scale=st.sampled_from([0.25, 3.0, 1000.0]))
@few
def test_scaling_scales_the_distance_by_its_degree(law, sizes, seed, scale):
    x, y = draw_pairs(sizes, seed)
    scaled = law.function(*(mapped(c, lambda v: scale * v) for c in (x, y)))
    expected = scale**law.degree * law.function(x, y)
    assert torch.allclose(scaled, expected, rtol=1e-9, atol=1e-10 * scale**law.degree)


@every_distance
@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=3), seed=seeds)
@few
def test_the_triangle_inequality_holds_where_it_is_declared(law, sizes, seed):
    a, b, c = (batch(items) for items in draw(sizes, seed))
    if law.metric_power is not None:
        ab, bc, ac = (law.function(*p) ** law.metric_power for p in ((a, b), (b, c), (a, c)))
        assert float(ac) <= float(ab + bc) + 1e-7


@every_distance
def test_the_triangle_inequality_fails_where_it_is_not_declared(law):
    if law.metric_power is None and not law.is_similarity:
        a, b, c = (batch(torch.tensor(v).unsqueeze(1)) for v in ([0.0], [0.0, 4.0], [4.0]))
        far = batch(torch.tensor([0.0, 4.0, 4.0, 4.0]).unsqueeze(1))
        triples = [(a, b, c), (c, b, a), (a, b, far), (a, far, c), (far, b, a)]
        excess = [
            law.function(p, r) - law.function(p, q) - law.function(q, r) for p, q, r in triples
        ]
        assert max(float(e) for e in excess) > 0.5


@every_distance
@given(sizes=sizes, seed=seeds, times=st.tuples(st.integers(1, 3), st.integers(1, 3)))
@few
def test_copies_of_all_items_change_nothing_where_declared(law, sizes, seed, times):
    x, y = draw_pairs(sizes, seed)
    repeated = [
        batch(*(c.values[c.index == k].repeat(n, 1) for k in range(len(c))))
        for c, n in ((x, times[0]), (y, times[1]))
    ]
    if law.ignores_copies:
        assert same(law.function(*repeated), law.function(x, y), atol=1e-7)


@every_distance
def test_copies_count_where_it_is_not_declared_that_they_do_not(law):
    x, y = draw_pairs([(3, 4)], seed=0)
    if not law.ignores_copies:
        twice = batch(x.values.repeat(2, 1))
        assert not same(law.function(twice, y), law.function(x, y), atol=1e-3)


def test_every_distance_shows_its_formula():
    for law in SET_DISTANCES.values():
        assert "$$" in law.function.__doc__


def test_an_order_or_a_number_of_slices_without_a_distance_is_refused():
    x, y = draw_pairs([(3, 4)], seed=9)
    for distance in (wasserstein, sliced_wasserstein):
        with pytest.raises(InputError, match="must be 1 or 2, not 3"):
            distance(x, y, order=3)
    with pytest.raises(InputError, match="at least one slice, not 0"):
        sliced_wasserstein(x, y, num_slices=0)


@given(sizes=sizes, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_distances_stand_in_their_known_order(sizes, seed):
    x, y = draw_pairs(sizes, seed)
    between = torch.stack(
        [torch.cdist(a, b).mean() for a, b in zip(_split(x), _split(y), strict=True)]
    )
    one, two = wasserstein(x, y), wasserstein(x, y, order=2)
    for smaller, larger in (
        (centroid(x, y), one),
        (sliced_wasserstein(x, y), one),
        (sliced_wasserstein(x, y, order=2), two),
        (sliced_wasserstein(x, y), sliced_wasserstein(x, y, order=2)),
        (one, two),
        (one, between),
        (chamfer(x, y, directed=True), one),
        (modified_hausdorff(x, y), one),
        (modified_hausdorff(x, y), hausdorff(x, y)),
        (modified_hausdorff(x, y), chamfer(x, y)),
        (hausdorff(x, y, directed=True), hausdorff(x, y)),
    ):
        assert bool((smaller <= larger + 1e-12).all())


def _split(collections):
    return torch.split(collections.values, collections.sizes.tolist())


@given(count=st.integers(1, 5), seed=seeds)
@few
def test_between_single_items_every_distance_is_that_of_the_items(count, seed):
    x, y = draw_pairs([(1, 1)] * count, seed)
    distance = (x.values - y.values).norm(dim=1)
    for function in (centroid, hausdorff, modified_hausdorff, wasserstein):
        assert same(function(x, y), distance)
    assert same(wasserstein(x, y, order=2), distance)
    assert same(chamfer(x, y), 2 * distance)
    assert same(SET_DISTANCES["energy"].function(x, y), 2 * distance)
    assert same(maxsim(x, y), (x.values * y.values).sum(dim=1))


def test_maxsim_of_items_that_all_point_away_is_negative():
    """A padding row that counted as similarity 0 would win here."""
    x = batch(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    y = batch(torch.tensor([[-1.0, 0.0]]), torch.tensor([[-1.0, 2.0], [-4.0, 0.0]]))
    assert maxsim(x, y).tolist() == [-1.0, -6.0]
    assert maxsim(x, y, mean=True).tolist() == [-1.0, -2.0]


def test_a_hand_made_pair_has_the_values_that_the_formulas_give():
    x, y = batch(torch.tensor([[0.0, 0.0], [0.0, 4.0]])), batch(torch.tensor([[0.0, 0.0]]))
    expected = {"centroid": 2, "chamfer": 2, "hausdorff": 4, "modified_hausdorff": 2}
    expected |= {"wasserstein": 2, "energy": 2, "maxsim": 0}
    for name, value in expected.items():
        assert SET_DISTANCES[name].function(x, y).tolist() == [value], name
    assert wasserstein(x, y, order=2).item() == pytest.approx(8**0.5)
    assert chamfer(x, y, squared=True).tolist() == [8]
    assert chamfer(y, x, directed=True).tolist() == hausdorff(y, x, directed=True).tolist() == [0]
