"""What an index finds, against brute force in float64."""

from __future__ import annotations

import pickle
import secrets
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index.kinds import FEWEST
from setrep.retrieval import CollectionIndex, ItemMatch, Match, Result, rerank, search
from tests.indexes import (
    Kept,
    batch,
    brute,
    brute_items,
    brute_margin,
    centre,
    draw_items,
    draw_model,
    index_of,
    make_encoder,
    make_full_index,
    make_index,
)

needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
seeds = st.integers(0, 2**32 - 1)
FILTERS = (
    None,
    {},
    {"label": "x"},
    {"label": ["x", 7]},
    {"label": (None,)},
    {"label": "no such label"},
    {"year": 1},
    {"year": {0, 2}, "sold": True},
    {"sold": [False, 1]},
    {"sold": 1},
    {"year": True},
    {"year": 1.0, "label": "y"},
    {"shop": None},
    {"label": []},
)


def passes(kept: Kept, asked: dict | None) -> bool:
    """Say whether a filter lets a collection pass; 1 is not True."""
    told = {"label": kept.label, **kept.metadata}
    for name, allowed in (asked or {}).items():
        values = allowed if isinstance(allowed, list | tuple | set) else [allowed]
        if not any(
            name in told
            and told[name] == one
            and isinstance(told[name], bool) == isinstance(one, bool)
            for one in values
        ):
            return False
    return True


def stored(index, engine, tmp_path_factory):
    """Return the index as an engine keeps it."""
    if engine == "memory":
        return index
    place = tmp_path_factory.mktemp("stored")
    address = {
        "directory": f"faiss:{place / 'index'}",
        "milvus": f"milvus:{place / 'index.db'}#i{secrets.token_hex(3)}",
    }[engine]
    index.save(address)
    return CollectionIndex.open(address)


def check_query(index, model, query, k, asked, left_out):
    """Compare everything that a query on the grid finds with brute force."""
    ranked = brute(model, query, lambda name, kept: name not in left_out and passes(kept, asked))
    found = index.query(torch.from_numpy(query), k, filter=asked, exclude=list(left_out))
    assert [(match.id, match.score) for match in found] == ranked[:k]
    assert found.margin == (brute_margin(model, ranked) if ranked else None)
    assert (found.num_items, found.num_measured, found.is_exact) == (len(query), None, True)
    for match in found:
        kept = model[match.id]
        assert (match.label, match.metadata, match.sources) == (kept.label, kept.metadata, ())
        assert match.items == tuple(ItemMatch(*one) for one in brute_items(kept.members, query))


@given(seeds, st.integers(1, 24), st.integers(1, 30), st.sampled_from(FILTERS), st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("engine", ["memory", "directory"])
def test_a_query_equals_brute_force(engine, tmp_path_factory, seed, count, k, asked, data):
    model = draw_model(seed, count)
    left_out = data.draw(st.sets(st.sampled_from([*model, "not there"]), max_size=4))
    query = draw_items(np.random.default_rng([seed, 1]), is_grid=True)
    with stored(index_of(model), engine, tmp_path_factory) as index:
        check_query(index, model, query, k, asked, left_out)


@needs_milvus
def test_a_query_of_milvus_equals_brute_force(tmp_path_factory):
    model = draw_model(0, 40)
    with stored(index_of(model), "milvus", tmp_path_factory) as index:
        for seed, asked in enumerate(FILTERS):
            query = draw_items(np.random.default_rng([seed, 1]), is_grid=True)
            check_query(index, model, query, 1 + seed % 7, asked, {*list(model)[:seed], "none"})
        check_query(index, model, query, 1000, None, set())


@given(seeds, st.integers(1, 40), st.integers(1, 12), st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=60, deadline=None)
def test_a_query_off_the_grid_equals_brute_force_but_for_rounding(seed, count, k, scale):
    model = {
        name: kept._replace(members=np.float32(scale) * kept.members)
        for name, kept in draw_model(seed, count, is_grid=False).items()
    }
    query = np.float32(scale) * draw_items(np.random.default_rng([seed, 1]), is_grid=False)
    ranked = brute(model, query)
    expected, tolerance = dict(ranked), 1e-5 * scale * scale * 10
    found = index_of(model).query(torch.from_numpy(query), k)
    scores = [match.score for match in found]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(scores, [s for _, s in ranked[:k]], rtol=1e-5, atol=tolerance)
    for match in found:
        assert match.score == pytest.approx(expected[match.id], rel=1e-5, abs=tolerance)
        one_by_one = brute_items(model[match.id].members, query)
        assert [item.query_item for item in match.items] == list(range(len(query)))
        for item, (_, _, best) in zip(match.items, one_by_one, strict=True):
            to_it = model[match.id].members[item.member].astype(np.float64)
            square = ((query[item.query_item] - to_it) ** 2).sum()
            assert item.similarity == pytest.approx(-square, rel=1e-6)
            assert item.similarity == pytest.approx(best, rel=1e-4, abs=tolerance)
    margin = brute_margin(model, ranked)
    assert (found.margin is None) == (margin is None)
    assert margin is None or found.margin == pytest.approx(margin, rel=1e-5, abs=2 * tolerance)


def draw_vectors(count: int, dim: int, is_lattice: bool, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if not is_lattice:
        return generator.normal(size=(count, dim))
    # Many equal distances, and a mean of zero, so that float32 holds every score exactly.
    half = generator.integers(-2, 3, size=(count, dim)).astype(float)
    return generator.permutation(np.concatenate([half, -half]))


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 30),
    st.sampled_from([-10, 0, 13]),
    st.booleans(),
    seeds,
)
@settings(max_examples=100, deadline=None)
def test_a_query_by_a_vector_equals_brute_force(count, dim, k, exponent, is_lattice, seed):
    vectors = 2.0**exponent * draw_vectors(count, dim, is_lattice, seed).astype(np.float32)
    query = vectors[0] if is_lattice else vectors.mean(axis=0) + 2.0**exponent
    found = CollectionIndex.from_embeddings(vectors, range(len(vectors))).query_vector(query, k)
    expected = -((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
    order = sorted(range(len(vectors)), key=lambda place: (-expected[place], place))[:k]
    scores = [match.score for match in found]
    tolerance = 0 if is_lattice else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected[order], rtol=0, atol=tolerance)
    assert scores == sorted(scores, reverse=True)
    if is_lattice:
        assert [match.id for match in found] == order


@given(seeds, st.integers(1, 12), st.integers(1, 5), st.sampled_from(FILTERS), st.data())
@settings(max_examples=15, deadline=None)
def test_many_queries_are_answered_as_each_alone(seed, count, num_queries, asked, data):
    model = draw_model(seed, count)
    generator = np.random.default_rng([seed, 2])
    queries = [draw_items(generator, is_grid=True) for _ in range(num_queries)]
    k, rerank = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([None, "chamfer"]))
    left_out = [
        data.draw(st.lists(st.sampled_from(list(model)), max_size=3)) for _ in range(num_queries)
    ]
    index, options = index_of(model), {"filter": asked, "rerank": rerank}
    alone = [
        index.query(torch.from_numpy(query), k, exclude=of, **options)
        for query, of in zip(queries, left_out, strict=True)
    ]
    tensors = [torch.from_numpy(query) for query in queries]
    assert index.query(batch(*queries), k, exclude=left_out, **options) == alone
    assert index.query_many(tensors, k, exclude=left_out, **options) == alone
    assert index.query_many([list(query) for query in queries], k, exclude=left_out, **options) == (
        alone
    )
    assert index.query(batch(*queries), k) == [index.query(query, k) for query in tensors]


def test_a_batch_of_no_queries_has_no_answers():
    empty = CollectionBatch(torch.zeros(0, 3), torch.tensor([0]))
    assert make_full_index().query(empty) == []
    assert make_full_index().query(empty, rerank="wasserstein") == []


@given(seeds, st.integers(2, 14), st.integers(1, 20), st.sampled_from(FILTERS))
@settings(max_examples=15, deadline=None)
def test_neighbours_are_what_its_members_find_but_itself(seed, count, k, asked):
    model = draw_model(seed, count)
    index = index_of(model)
    for name in (next(iter(model)), list(model)[-1]):
        other = next(one for one in model if one != name)
        for left_out, gone in ((None, {name}), (other, {name, other}), ([other], {name, other})):
            found = index.neighbours(name, k, filter=asked, exclude=left_out)
            query = torch.from_numpy(model[name].members)
            assert found == index.query(query, k, filter=asked, exclude=sorted(gone, key=str))
            assert name not in [match.id for match in found]


def test_neighbours_of_bare_vectors():
    index = make_index()
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    found = index.neighbours("id 2", 20)
    assert found == index.query_vector(vectors[2], 20, exclude="id 2")
    assert (len(found), found.num_items) == (5, None)
    for name in ("id 9", 2, True):
        with pytest.raises(InputError) as caught:
            index.neighbours(name)
        assert "\n" not in str(caught.value)


def test_members_embedded_elsewhere_are_searched_as_items_are():
    model = draw_model(3, 9)
    items = batch(*(kept.members for kept in model.values()))
    names, labels = list(model), [kept.label for kept in model.values()]
    metadata = [kept.metadata for kept in model.values()]
    index = CollectionIndex.from_embeddings(items, names, labels, metadata, fingerprint="elsewhere")
    query = draw_items(np.random.default_rng(4), is_grid=True)
    found = index.query_embeddings(torch.from_numpy(query), 5, fingerprint="elsewhere")
    assert found == index_of(model).query(torch.from_numpy(query), 5)
    assert found == index.query_embeddings(query.tolist(), 5, fingerprint="elsewhere")
    many = index.query_embeddings(batch(query, query[:1]), 5, fingerprint="elsewhere")
    assert many[0] == found
    excluded = index.query_embeddings(query, 5, fingerprint="elsewhere", exclude=found[0].id)
    assert [match.id for match in excluded][:4] == [match.id for match in found][1:]
    with pytest.raises(InputError, match=r"of model None.*of model elsewhere"):
        index.query_embeddings(query)
    for wrong in (query[0], query[:0], query[None]):
        with pytest.raises(InputError, match="items of a query must be"):
            index.query_embeddings(wrong, fingerprint="elsewhere")
    with pytest.raises(InputError, match="dimension 3; found items of shape"):
        index.query_embeddings(query[:, :2], fingerprint="elsewhere")
    with pytest.raises(InputError, match=r"model elsewhere: embed items with it"):
        index.query(torch.from_numpy(query))
    nameless = CollectionIndex.from_embeddings(items, names, labels, metadata)
    assert nameless.query(torch.from_numpy(query), 5) == found


def test_of_equal_scores_the_first_put_in_comes_first():
    index = CollectionIndex.from_embeddings([[1.0], [0.0], [1.0], [1.0]], ["c", "x", "a", "b"])
    assert [match.id for match in index.query_vector([1.0], 3)] == ["c", "a", "b"]
    assert [match.id for match in index.query_vector([1.0], 2)] == ["c", "a"]


def test_a_match_carries_all_that_was_given_with_it():
    index = CollectionIndex.from_embeddings(
        torch.eye(2, dtype=torch.bfloat16),
        np.array([7, 9]),
        np.array(["cat", "dog"]),
        [{"path": ("a", "b")}, None],
    )
    assert len(index) == 2
    found = index.query_vector(torch.tensor([1.0, 0.0]))
    assert list(found) == [Match(7, 0.0, "cat", {"path": ["a", "b"]}), Match(9, -2.0, "dog", {})]
    assert type(index.ids[0]) is int
    assert repr(index) == "CollectionIndex(2 collections of dimension 2)"
    assert isinstance(found, Result)
    assert (found[0], list(found[1:]), len(found)) == (found.matches[0], [found.matches[1]], 2)
    assert index.query_vector([1, 0], filter={"path": [["a", "b"]]})[0].id == 7
    assert not index.query_vector([1, 0], filter={"path": ["a", "b"]})


def test_names_of_items_come_back_in_order():
    index = CollectionIndex.create(None, make_encoder())
    index.add([torch.eye(3), torch.ones(1, 3)], ["a", "b"], sources=[["1", "2", "3"], ["one"]])
    index.add([torch.zeros(2, 3)], ["c"])
    found = {match.id: match.sources for match in index.query(torch.eye(3))}
    assert found == {"a": ("1", "2", "3"), "b": ("one",), "c": ()}


def test_a_collection_of_items_finds_its_neighbours():
    index = make_full_index()
    assert index.query(torch.zeros(2, 3), k=2)[0].id == "a"
    best = index.query([torch.full((3,), 5.0), np.full(3, 6.0)])[0]
    assert (best.id, best.label) == ("b", "y")
    assert best.score == pytest.approx(-((5.5 - 16 / 3) ** 2) * 3, rel=1e-4)
    one_item = index.query(torch.full((3,), -3.0), k=1)
    assert list(one_item) == [Match(3, 0.0, None, {}, (ItemMatch(0, 0, 0.0),))]
    assert list(index.query(torch.full((3,), -3.0), k=1, matched_items=False)) == [
        Match(3, 0.0, None, {})
    ]


def test_matched_items_of_collections_with_and_without_members():
    index = make_full_index()
    index.add_embeddings([[0.0, 0.0, 0.0]], ["bare"], fingerprint=index.fingerprint)
    found = {match.id: match for match in index.query(torch.eye(3)[:2], 4)}
    assert found["bare"].items == ()
    assert found["a"].items == (ItemMatch(0, 0, 0.0), ItemMatch(1, 1, 0.0))
    assert found["bare"].score == -0.5


def test_an_index_finds_its_own_collections_first():
    generator = torch.Generator().manual_seed(0)
    collections = [torch.randn(size, 3, generator=generator) for size in (1, 4, 2, 7)]
    index = CollectionIndex.build(make_encoder(), collections, range(4))
    for place, collection in enumerate(collections):
        best = index.query(collection, k=1)[0]
        assert (best.id, best.score) == (place, 0.0)


def test_the_margin_looks_beyond_the_matches():
    labels = ["x"] * 9 + ["y"]
    index = CollectionIndex.from_embeddings(np.arange(10.0)[:, None], range(10), labels)
    assert index.query_vector([0.0], 1).margin == 81.0
    assert index.query_vector([0.0], 1, exclude=range(1, 9)).margin == 81.0
    assert index.query_vector([0.0], 1, exclude=9).margin is None
    assert index.query_vector([0.0], 1, filter={"label": "y"}).margin is None
    unlabelled = CollectionIndex.from_embeddings(np.arange(3.0)[:, None], range(3))
    assert unlabelled.query_vector([0.0], 1).margin == 1.0
    # A label is not the id of a collection without one.
    mixed = CollectionIndex.from_embeddings([[0.0], [1.0]], ["b", "a"], ["a", None])
    assert mixed.query_vector([0.0], 1).margin == 1.0


def test_a_few_matches_are_looked_up_however_far_the_margin_is():
    model = {place: Kept(np.full((2, 3), place, np.float32), "x", {}) for place in range(300)}
    model["far"] = Kept(np.full((1, 3), 1e3, np.float32), "y", {})
    index = index_of(model)
    asked = []
    fetch = index.engine.fetch

    def counted(ids, *, with_members=True):
        asked.append(len(ids) if with_members else 0)
        return fetch(ids, with_members=with_members)

    index.engine.fetch = counted
    found = index.query(torch.zeros(1, 3), 2)
    assert found.margin == pytest.approx(3e6)
    assert sum(asked) == 2  # members of two collections, and not of 300


def test_an_empty_index_finds_nothing():
    index = CollectionIndex.create(None, make_encoder())
    for name in (None, "chamfer", "wasserstein"):
        found = index.query(torch.ones(2, 3), rerank=name)
        assert (found.matches, found.margin, found.num_items) == ((), None, 2)
        assert found.is_exact


def test_centroids_are_as_exact_as_float32_holds_them():
    members = np.random.default_rng(0).normal(1e3, 1, (5000, 3)).astype(np.float32)
    index = index_of({"a": Kept(members, None, {})})
    found = index.engine.fetch(["a"]).vectors[0]
    np.testing.assert_array_equal(found, centre(members).astype(np.float32))


def test_what_an_approximate_search_finds_is_not_called_exact():
    vectors = np.random.default_rng(0).normal(size=(4 * FEWEST, 1, 3)).astype(np.float32)
    labels = [f"l{place % 2}" for place in range(len(vectors))]
    index = CollectionIndex.from_embeddings(batch(*vectors), range(len(vectors)), labels)
    index.engine.set_kind("hnsw")
    index.certify(max_size=2)
    query = torch.ones(1, 3)
    for name in (None, "chamfer", "wasserstein"):
        assert not index.query(query, rerank=name).is_exact
    assert not index.query_vector([1, 1, 1]).is_exact
    asked = {"label": "l1"}
    assert index.query(query, filter=asked).is_exact
    assert index.query(query, filter=asked, rerank="wasserstein").is_exact
    assert index.query(query, filter=asked, rerank="chamfer").is_exact
    assert not index.query(query, 1, filter=asked, rerank="chamfer", num_candidates=1).is_exact
    found = index.query(query)
    assert found.delta is None
    assert "searched approximately" in found.delta_note


def test_another_label_is_looked_for_among_so_many_and_no_more(monkeypatch):
    monkeypatch.setattr(rerank, "MOST_LOOKED_AT", 32)
    monkeypatch.setattr(search, "MOST_LOOKED_AT", 32)
    items = np.arange(1, 301, dtype=np.float32)[:, None, None] * np.ones((1, 1, 3), np.float32)
    for other, is_found in ((20, True), (290, False), (None, False)):
        changed = [("y" if place == other else "x") for place in range(300)]
        index = CollectionIndex.from_embeddings(batch(*items), range(300), changed)
        told: list[int] = []
        fetch = index.engine.fetch

        def counted(ids, *, with_members=True, fetch=fetch, told=told):
            told.append(len(ids))
            return fetch(ids, with_members=with_members)

        index.engine.fetch = counted
        for name in (None, "wasserstein"):
            told.clear()
            found = index.query(np.zeros((1, 3), np.float32), 2, rerank=name)
            assert [match.id for match in found] == [0, 1]
            assert (found.margin is not None) == is_found
            assert sum(told) < 100


def test_items_are_matched_in_parts_as_they_are_at_once(monkeypatch):
    model = draw_model(3, 12, is_grid=False)
    index, queries = (
        index_of(model),
        [draw_items(np.random.default_rng(of), is_grid=False) for of in range(5)],
    )
    whole = index.query_many(queries, 12)
    for weight in (1, 7, 50):
        monkeypatch.setattr(rerank, "WEIGHT_AT_ONCE", weight)
        assert index.query_many(queries, 12) == whole


def test_a_result_may_be_changed_and_the_index_stays():
    tags = [{"tags": ["red"], "in": {"x": 1}}]
    index = CollectionIndex.from_embeddings([[1.0, 2.0]], ["a"], metadata=tags)
    for _ in range(2):
        found = index.query_vector([1, 2], filter={"tags": [["red"]]})
        assert found[0].metadata == {"tags": ["red"], "in": {"x": 1}}
        found[0].metadata["tags"].append("blue")
        found[0].metadata["in"]["x"] = 2


def test_filters_take_whatever_holds_values():
    years = [{"year": year, "sold": year > 2} for year in range(5)]
    index = CollectionIndex.from_embeddings(np.eye(5), range(5), metadata=years)
    kept = {"a": 1, "b": 3}
    for wanted in (
        [1, 3],
        (1, 3),
        {1, 3},
        range(1, 4, 2),
        np.array([1, 3]),
        [np.int64(1), np.float32(3)],
        torch.tensor([1, 3]),
        [torch.tensor(1), torch.tensor(3)],
        (one for one in (1, 3)),
        dict.fromkeys([1, 3]).keys(),
        kept.values(),
    ):
        found = index.query_vector(np.zeros(5), filter={"year": wanted})
        assert {match.id for match in found} == {1, 3}, wanted
    for one in (2, np.int64(2), torch.tensor(2), np.array(2)):
        assert [match.id for match in index.query_vector(np.zeros(5), filter={"year": one})] == [2]
    for yes in (np.True_, torch.tensor(True)):
        found = index.query_vector(np.zeros(5), filter={"sold": yes})
        assert {match.id for match in found} == {3, 4}
        assert not len(index.query_vector(np.zeros(5), filter={"year": yes}))


@pytest.mark.parametrize("kind", ["hnsw", "pq", "ivf", "flat"])
def test_what_one_query_leaves_out_weighs_on_no_other(kind):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(2000, 1, 16)).astype(np.float32)
    index = CollectionIndex.from_embeddings(batch(*vectors), range(2000))
    index.set_kind(kind, target_recall=0.5)
    queries = list(generator.normal(size=(20, 1, 16)).astype(np.float32))
    gone = [list(range(300)), *[[]] * 19]
    alone, together = index.query_many(queries), index.query_many(queries, exclude=gone)
    assert [found.matches for found in together[1:]] == [found.matches for found in alone[1:]]
    assert not {match.id for match in together[0]} & set(range(300))


def test_an_index_in_memory_forgets_what_is_gone():
    index = index_of(draw_model(0, 5))
    for _ in range(300):
        index.update(index.ids[0], np.zeros((1, 3), np.float32))
        index.remove(index.ids[0]) if len(index) > 3 else None
    held = sum(len(part.members) for part in index.engine._parts)
    alive = sum(len(part.members) for part in index.engine.iterate())
    assert held <= 3 * alive + 100
    assert len(index.engine._parts) <= 33


def test_indexes_are_pickled_whatever_they_were_asked(tmp_path):
    index = index_of(draw_model(0, 9))
    index.query(np.zeros((1, 3), np.float32), filter={"label": "x"})
    index.save(tmp_path / "index")
    with CollectionIndex.open(tmp_path / "index") as opened:
        for one in (index, opened):
            copy = pickle.loads(pickle.dumps(one))
            query = np.ones((2, 3), np.float32)
            assert copy.ids == index.ids
            assert copy.query(query) == index.query(query)
