"""Certificates of an index: what the bounds say, held against every draw there is."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.bounds import certify_retrieval
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, IndexCertificate
from setrep.retrieval.certificate import LabelBounds, from_note, rounding_of, to_note
from tests.indexes import (
    Kept,
    batch,
    centre,
    draw_items,
    everything,
    index_of,
    make_encoder,
    make_index,
)

needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
seeds = st.integers(0, 2**32 - 1)


def draw_labelled(seed, num_labels=3, *, apart=4.0, most=3, sizes=(1, 4)):
    """Draw two or more collections of each label, in mixed order."""
    generator = np.random.default_rng(seed)
    drawn = []
    for label in range(num_labels):
        middle = apart * generator.normal(size=3)
        for _ in range(generator.integers(2, most + 1)):
            items = middle + generator.normal(size=(generator.integers(*sizes), 3))
            drawn.append(Kept(items.astype(np.float32), f"l{label}" if label else 0, {}))
    return dict(enumerate(drawn[place] for place in generator.permutation(len(drawn))))


def by_label(model):
    """Return ids by label, in the order in which labels come first, one that stands first."""
    found: dict = {}
    for name, kept in model.items():
        found.setdefault(kept.label, []).append(name)
    for label, names in found.items():
        centres = np.array([centre(model[name].members).astype(np.float32) for name in names])
        centres = centres.astype(np.float64)
        apart = ((centres - centres.mean(axis=0)) ** 2).sum(axis=1)
        first = names[int(apart.argmin())]
        found[label] = [first, *(name for name in names if name != first)]
    return found


def centre32(members):
    return centre(members).astype(np.float32).astype(np.float64)


@given(seeds, st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_a_certificate_is_what_the_bounds_say(seed, num_labels):
    model = draw_labelled(seed, num_labels)
    found = index_of(model).certify()
    groups = by_label(model)
    order = [name for names in groups.values() for name in names]
    pools = [
        torch.from_numpy(np.concatenate([model[name].members for name in names[1:]])).double()
        for names in groups.values()
    ]
    largest = min(map(len, pools))
    expected = certify_retrieval(
        torch.from_numpy(np.array([centre32(model[name].members) for name in order])),
        pools,
        range(1, largest + 1),
        labels=[number for number, names in enumerate(groups.values()) for _ in names],
        allowance=rounding_of(pools),
    )
    np.testing.assert_allclose(found.deltas, expected.delta.tolist(), rtol=1e-12)
    assert [of.label for of in found.labels] == list(groups)
    assert [of.stands for of in found.labels] == [names[0] for names in groups.values()]
    assert [of.num_pool for of in found.labels] == [len(pool) for pool in pools]
    assert found.sizes == tuple(n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n <= largest)
    for number, of in enumerate(found.labels):
        for column, n in enumerate(found.sizes):
            half, other = expected.half_space[number, n - 1], expected.chernoff[number, n - 1]
            assert of.half_space[column] == pytest.approx(float(half), rel=1e-12)
            assert of.chernoff[column] == pytest.approx(float(other), rel=1e-12)
            assert of.bound[column] == min(of.half_space[column], of.chernoff[column])
            assert found.deltas[n - 1] >= of.bound[column]


@pytest.mark.parametrize(("seed", "apart"), [(0, 6.0), (1, 3.0), (2, 2.0), (3, 12.0), (4, 0.0)])
@pytest.mark.parametrize("is_held_out", [False, True])
def test_no_share_of_wrong_draws_is_above_the_bound(seed, apart, is_held_out):
    """Every draw there is, by exact distances and by the index's own queries."""
    model = draw_labelled(seed, apart=apart, sizes=(2, 4))
    index, groups = index_of(model), by_label(model)
    if is_held_out:
        generator = np.random.default_rng([seed, 1])
        given_pools = {
            label: centre(model[names[0]].members) + generator.normal(size=(6, 3))
            for label, names in groups.items()
        }
        given_pools = {label: of.astype(np.float32) for label, of in given_pools.items()}
        found = index.certify(given_pools)
        for label, names in groups.items():  # the one nearest to the pool stands for it
            middle = centre(given_pools[label])
            names.sort(key=lambda name: ((centre32(model[name].members) - middle) ** 2).sum())
    else:
        found = index.certify()
    seen, is_informed = 0, False
    for bounds in found.labels:
        names = groups[bounds.label]
        assert bounds.stands == names[0]
        pool = np.concatenate([model[name].members for name in names[1:]])
        pool = given_pools[bounds.label] if is_held_out else pool
        assert bounds.num_pool == len(pool)
        own = centre32(model[names[0]].members)
        others = np.array(
            [centre32(kept.members) for kept in model.values() if kept.label != bounds.label]
        )
        for n in range(1, len(found.deltas) + 1):
            draws = [pool[list(rows)] for rows in combinations(range(len(pool)), n)]
            aims = [centre(draw) for draw in draws]
            wrong = [
                ((others - aim) ** 2).sum(axis=1).min() <= ((own - aim) ** 2).sum() for aim in aims
            ]
            answers = index.query(batch(*draws), 1)
            missed = [answer[0].label != bounds.label for answer in answers]
            bound = found.delta(n)
            if n in found.sizes:
                bound = min(bound, bounds.bound[found.sizes.index(n)])
            assert np.mean(missed) <= np.mean(wrong) <= bound + 1e-12
            assert {answer.delta for answer in answers} == {found.delta(n)}
            seen, is_informed = seen + len(draws), is_informed or bound < 1
    assert seen >= 10
    assert is_informed or found.deltas[-1] < 1 or apart < 6


def test_a_result_carries_what_the_certificate_says_of_its_size():
    model = draw_labelled(0, apart=30.0, most=2, sizes=(4, 5))
    index = index_of(model)
    found = index.certify(max_size=3)
    assert len(found.deltas) == 3
    query = torch.from_numpy(model[0].members)
    for n in (1, 2, 3):
        result = index.query(query[:n])
        assert result.delta == found.delta(n) == found.deltas[n - 1]
        assert "random draw, without replacement" in result.delta_note
        assert "outside of the one collection that stands" in result.delta_note
    result = index.query(query[:4])
    assert (result.delta, found.delta(4), found.delta(0), found.delta(-1)) == (None,) * 4
    assert "up to 3 items" in result.delta_note
    both = index.query(batch(model[0].members[:1], model[0].members[:2]))
    assert [of.delta for of in both] == list(found.deltas[:2])
    vector = index.query_vector(np.zeros(3), fingerprint=index.fingerprint)
    assert (vector.delta, vector.delta_note) == (None, "a vector has no number of items")
    index.certify(dict.fromkeys(by_label(model), query))
    assert "held-out items that were given" in index.query(query[:1]).delta_note


def test_smallest_size():
    deltas = (1.0, 0.5, 0.2, 0.3, 0.05)
    found = IndexCertificate((), (1, 2, 3, 5), deltas, "")
    for delta, size in ((1.0, 1), (0.5, 2), (0.4, 3), (0.25, 3), (0.1, 5), (0.05, 5), (0.01, None)):
        assert found.smallest_size(delta) == size


def test_only_a_plain_query_has_a_delta():
    model = draw_labelled(0, apart=30.0, most=2, sizes=(4, 5))
    index = index_of(model)
    index.certify()
    query = torch.from_numpy(model[0].members[:2])
    assert index.query(query).delta is not None
    assert index.query(query, exclude=[], filter=None).delta is not None
    for options, note in (
        ({"rerank": "wasserstein"}, "not for re-ranking"),
        ({"rerank": "centroid"}, "not for re-ranking"),
        ({"filter": {"label": 0}}, "not of a part of it"),
        ({"filter": {}}, "not of a part of it"),
        ({"exclude": 0}, "not of a part of it"),
        ({"exclude": "not there"}, "not of a part of it"),
    ):
        result = index.query(query, **options)
        assert result.delta is None
        assert note in result.delta_note
    assert index.neighbours(0).delta is None


CHANGES = {
    "add": lambda index: index.add([torch.zeros(1, 3)], ["new"]),
    "add_embeddings": lambda index: index.add_embeddings(
        np.zeros((1, 3)), ["new"], fingerprint=index.fingerprint
    ),
    "remove": lambda index: index.remove(0),
    "update": lambda index: index.update(0, torch.zeros(1, 3)),
}


@pytest.mark.parametrize(
    "engine", ["memory", "directory", pytest.param("milvus", marks=needs_milvus)]
)
def test_a_certificate_is_kept_until_the_index_changes(engine, tmp_path):
    model = draw_labelled(0)
    index = index_of(model)
    found = index.certify()
    if engine != "memory":
        address = f"{tmp_path / 'i'}" if engine == "directory" else f"milvus:{tmp_path / 'i.db'}"
        index.save(address)
        index = CollectionIndex.open(address)
    for name, change in CHANGES.items():
        assert index.certificate == (found if name == "add" else again)
        assert isinstance(index.certificate, IndexCertificate)
        with pytest.raises(InputError):
            index.remove("not there")
        with pytest.raises(InputError):
            index.add([torch.zeros(1, 3)], [1])
        assert isinstance(index.certificate, IndexCertificate)
        change(index)
        assert "was changed since" in index.certificate
        result = index.query(torch.zeros(1, 3))
        assert (result.delta, result.delta_note) == (None, index.certificate)
        index.remove([name for name in index.ids if name == "new" or name == 0])
        index.add([torch.from_numpy(model[0].members)], [0], [model[0].label])
        again = index.certify()
        if engine == "directory":
            index.close()
            index = CollectionIndex.open(address)
    whole = index_of({name: model[name] for name in index.ids}).certify()
    np.testing.assert_allclose(again.deltas, whole.deltas, rtol=1e-12)
    index.close()


def refused(index, pools=None):
    """Return the line in which a certificate is refused, which changes nothing."""
    before = everything(index)
    with pytest.raises(InputError) as caught:
        index.certify(pools)
    assert everything(index) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "encoder", [make_encoder(aggregator="median"), make_encoder(normalize=True)]
)
def test_other_embeddings_are_not_certified(encoder):
    index = index_of(draw_labelled(0), encoder)
    assert "nearest centroid only" in refused(index)
    assert "nearest centroid only" in index.certificate
    result = index.query(torch.zeros(1, 3))
    assert (result.delta, result.delta_note) == (None, index.certificate)


def test_what_cannot_be_certified_is_refused_in_one_line():
    one = Kept(np.zeros((2, 3), np.float32), "x", {})
    two = one._replace(label="y")
    assert "nearest centroid only" in refused(make_index())
    assert "there are 0" in refused(CollectionIndex.create(None, make_encoder()))
    assert "there are 1" in refused(index_of({1: one, 2: one}))
    assert "Label 'y' has only one collection" in refused(index_of({1: one, 2: one, 3: two}))
    unlabelled = index_of({1: one, 2: one, 3: two, 4: two, 5: one._replace(label=None)})
    assert "Collection 5 has no label" in refused(unlabelled)
    bare = index_of({1: one, 2: one, 3: two, 4: two})
    bare.add_embeddings([[0.0] * 3], ["bare"], ["x"], fingerprint=bare.fingerprint)
    assert "'bare' has no members" in refused(bare)
    pool = draw_items(np.random.default_rng(0), is_grid=True)
    assert "'bare' has no members" in refused(bare, {"x": pool, "y": pool})
    assert "no pool of held-out items of 5" in refused(unlabelled, {"x": pool, "y": pool})
    pools = {"x": pool, "y": pool, 5: pool}
    assert "pool of 'z'" in refused(unlabelled, pools | {"z": pool})
    assert "is empty" in refused(unlabelled, pools | {5: pool[:0]})
    assert isinstance(unlabelled.certify(pools), IndexCertificate)
    assert refused(unlabelled, {})
    with pytest.raises(InputError):
        unlabelled.certify(pools, max_size=0)
    # A label and the id of a collection without one are not the same, though they are equal.
    mixed = index_of({1: one, "x": two._replace(label=None), 3: two})
    assert "cannot tell them apart" in refused(mixed, {"x": pool, "y": pool})


def test_collections_without_labels_stand_for_themselves():
    model = draw_labelled(0, 4, apart=20.0)
    bare = {name: kept._replace(label=None) for name, kept in model.items()}
    named = {name: kept._replace(label=f"n{name}") for name, kept in model.items()}
    pools = {name: kept.members + np.float32(0.1) for name, kept in model.items()}
    found = index_of(bare).certify(pools)
    other = index_of(named).certify({f"n{name}": pool for name, pool in pools.items()})
    assert found.deltas == other.deltas
    assert [of.label for of in found.labels] == list(model)


def test_a_certificate_reads_as_it_was_written():
    found = index_of(draw_labelled(1)).certify()
    assert from_note(to_note(found)) == found
    assert from_note(to_note("it takes a while")) == "it takes a while"
    assert isinstance(from_note(None), str)
    for note in ("", "{", "[]", "{}", '{"certificate": {}}', '{"certificate": {"labels": [1]}}'):
        with pytest.raises(InputError, match="certificate of the index is damaged") as caught:
            from_note(note)
        assert "\n" not in str(caught.value)
    one = LabelBounds("x", 1, 3, (0.5, 0.1), (0.2, 0.3))
    assert one.bound == (0.2, 0.1)


def test_what_float32_rounds_to_the_other_side_is_not_certified():
    """The mean of -2, -2 and 2 is -2/3, and rounds onto the side of -3 of the plane at -2/3."""
    members = {"a": [[3.0], [2.0], [0.0]], "a2": [[-2.0], [-2.0], [2.0]], "b": [[-3.0]]}
    batch = CollectionBatch.from_list([torch.tensor(of) for of in members.values()])
    index = CollectionIndex.from_embeddings(batch, ["a", "a2", "b"], ["a", "a", "b"])
    pools = {"a": torch.tensor(members["a2"]), "b": torch.tensor([[-3.0], [-3.0], [-3.0]])}
    index.remove("a2")
    found = index.certify({name: pool.numpy() for name, pool in pools.items()})
    bounds = next(of for of in found.labels if of.label == "a")
    wrong = index.query(torch.tensor(members["a2"]))[0].label != "a"
    assert bounds.bound[2 if 3 in found.sizes else -1] >= float(wrong)
    assert wrong or found.deltas[2] > 0
