"""The contract of engines, on each of them; see `setrep.index.engine`."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from setrep.errors import InputError
from setrep.index import door, places
from setrep.index import milvus as milvus_module
from setrep.index.directory import DirectoryEngine
from setrep.index.kinds import FLAT, KINDS
from setrep.index.memory import MemoryEngine
from setrep.index.milvus import MilvusEngine
from setrep.index.records import Records, join, matches

DIM, MEMBER_DIM = 3, 2
ATTACHMENTS = {"model.json": b"{}", "empty": b"", "large": bytes(range(256)) * 20_000}  # 107 pieces


def some(ids, *, seed: int = 0, payloads=None) -> Records:
    """Return collections of 0 to 3 members; vectors are on a grid, so that scores tie."""
    generator = np.random.default_rng([seed, len(ids)])
    sizes = generator.integers(0, 4, len(ids))
    return Records(
        tuple(ids),
        generator.integers(-2, 3, (len(ids), DIM)).astype(np.float32),
        generator.normal(size=(int(sizes.sum()), MEMBER_DIM)).astype(np.float32),
        np.cumsum([0, *sizes], dtype=np.int64),
        tuple(payloads or ({"label": f"l{i % 3}", "year": i} for i in range(len(ids)))),
    )


def same(found: Records, expected: Records) -> None:
    assert found.ids == expected.ids
    assert found.payloads == expected.payloads
    for name in ("vectors", "members", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def brute(kept: Records, queries, k, metric="euclidean", where=None):
    """Rank by scores in float64; of equal ones the first that was added."""
    rows = [i for i in range(len(kept)) if where is None or matches(kept.payloads[i], where)]
    found = []
    for query in queries.astype(np.float64):
        vectors = kept.vectors[rows].astype(np.float64)
        scores = -((vectors - query) ** 2).sum(axis=1) if metric == "euclidean" else vectors @ query
        order = np.argsort(-scores, kind="stable")[:k]
        found.append([(kept.ids[rows[i]], float(np.float32(scores[i]))) for i in order])
    return found


LOCAL = {
    "memory": lambda place, metric: MemoryEngine(DIM, MEMBER_DIM, metric, ATTACHMENTS),
    "directory": lambda place, metric: DirectoryEngine.create(
        place, DIM, MEMBER_DIM, metric, ATTACHMENTS
    ),
}
# A file of milvus-lite, or the server that SETREP_MILVUS_URI names.
CREATE = LOCAL | {
    "milvus": lambda place, metric: MilvusEngine.create(
        os.environ.get("SETREP_MILVUS_URI", f"{place}.db"),
        DIM,
        MEMBER_DIM,
        metric,
        ATTACHMENTS,
        name=f"test_{secrets.token_hex(4)}",
    )
}
needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
EACH = [*LOCAL, pytest.param("milvus", marks=needs_milvus)]


@pytest.fixture(params=EACH)
def engine(request, tmp_path):
    with CREATE[request.param](tmp_path / "index", "euclidean") as found:
        yield found


def reopened(engine):
    """Return the engine as another process would find it, where there is such a thing."""
    return DirectoryEngine.open(engine.folder) if isinstance(engine, DirectoryEngine) else engine


def test_what_is_added_is_found_fetched_and_iterated(engine):
    first, second = some(["a", 7, "7"]), some(range(20, 60), seed=1)
    engine.add(first)
    engine.add(second)
    everything = join([first, second])
    queries = np.random.default_rng(2).integers(-2, 3, (10, DIM)).astype(np.float32)
    for of in (engine, reopened(engine)):
        assert of.count() == 43
        assert of.search(queries, 5) == brute(everything, queries, 5)
        assert [len(found) for found in of.search(queries, 100)] == [43] * 10
        same(of.fetch([30, "7", "a"]), everything.take([13, 2, 0]))
        same(join(list(of.iterate(7))), everything)
        assert max(len(part) for part in of.iterate(7)) == 7
        assert of.ids() == list(everything.ids)
        bare = Records(
            everything.ids,
            everything.vectors,
            np.zeros((0, MEMBER_DIM), np.float32),
            np.zeros(44, np.int64),
            everything.payloads,
        )
        same(join(list(of.iterate(7, with_members=False))), bare)
        same(of.fetch([30, "7"], with_members=False), bare.take([13, 2]))


@pytest.mark.parametrize("create", EACH)
@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_scores_are_similarities_of_either_metric(metric, create, tmp_path):
    kept = some(range(30))
    queries = np.random.default_rng(2).normal(size=(10, DIM)).astype(np.float32)
    with CREATE[create](tmp_path / "index", metric) as engine:
        engine.add(kept)
        nearest = engine.search(queries, 4)
    for found, expected in zip(nearest, brute(kept, queries, 4, metric), strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        scores = [score for _, score in found]
        assert scores == pytest.approx([score for _, score in expected], rel=1e-6)
        assert scores == sorted(scores, reverse=True)


def test_filters_are_exact(engine):
    kept = some(range(50))
    engine.add(kept)
    queries = np.zeros((2, DIM), np.float32)
    for where in (
        {"label": ["l1"]},
        {"label": ["l0", "l2"], "year": [3, 5, 6, 7]},
        {"year": [49]},
        {"year": [1.0]},
        {"shop": [None]},
        {"label": []},
    ):
        assert engine.search(queries, 9, where=where) == brute(kept, queries, 9, where=where)
    assert engine.search(queries, 3, where={"year": [True]}) == [[], []]  # 1 is not True


def test_deleted_collections_are_gone_and_may_come_again(engine):
    kept = some(range(10))
    engine.add(kept)
    engine.delete([3, 7])
    left = kept.take([0, 1, 2, 4, 5, 6, 8, 9])
    for of in (engine, reopened(engine)):
        same(join(list(of.iterate())), left)
        with pytest.raises(InputError, match="no collection 7"):
            of.fetch([7])
    again = some([3], seed=5)
    engine.add(again)
    same(join(list(reopened(engine).iterate())), join([left, again]))


def test_replaced_collections_count_as_added_last(engine):
    kept, new = some(range(6)), some([4, 1], seed=9)
    engine.add(kept)
    engine.replace(new)
    for of in (engine, reopened(engine)):
        same(join(list(of.iterate())), join([kept.take([0, 2, 3, 5]), new]))
    with pytest.raises(InputError, match="no collection 77"):
        engine.replace(some([3, 77]))
    same(engine.fetch([3]), kept.take([3]))


def test_every_engine_searches_exactly_until_told_otherwise(engine):
    assert engine.set_kind("auto") == engine.kind == FLAT
    engine.add(some(range(30)))
    assert engine.set_kind("flat") == engine.set_kind("auto") == FLAT
    assert engine.is_exact
    if isinstance(engine, MilvusEngine):
        with pytest.raises(InputError, match="by kind 'flat' alone, not by 'ivf'"):
            engine.set_kind("ivf")
    with pytest.raises(InputError, match="Did you mean 'hnsw'"):
        engine.set_kind("hnws")
    assert engine.kind == FLAT


def test_an_empty_index_finds_nothing(engine):
    assert engine.search(np.zeros((2, DIM), np.float32), 3) == [[], []]
    assert (engine.count(), list(engine.iterate()), len(engine.fetch([]))) == (0, [], 0)
    engine.add(some([]))
    engine.delete([])
    assert engine.count() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((2, 4), np.float32)}, r"dimension 3; found shape \(2, 4\)"),
        ({"vectors": np.full((2, 3), np.nan, np.float32)}, "NaN"),
        ({"members": np.zeros((3, 5), np.float32)}, "members of dimension 2"),
        ({"members": np.full((3, 2), np.inf, np.float32)}, "NaN, infinity"),
        ({"offsets": np.array([0, 3, 2])}, "offsets of members"),
        ({"offsets": np.array([0, 3])}, "offsets of members"),
        ({"ids": ("b", "b")}, "'b' is given twice"),
        ({"ids": ("b", True)}, "not True"),
        ({"ids": ("a", "b")}, "'a' is in the index already"),
        ({"payloads": ({},)}, "1 payloads"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change, message, engine):
    engine.add(some(["a"]))
    fitting = {
        "ids": ("b", "c"),
        "vectors": np.zeros((2, 3), np.float32),
        "members": np.zeros((3, 2), np.float32),
        "offsets": np.array([0, 1, 3]),
        "payloads": ({}, {}),
    }
    with pytest.raises(InputError, match=message) as caught:
        engine.add(Records(**fitting | change))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no collection 'b'"):
        engine.delete(["a", "b"])
    for of in (engine, reopened(engine)):
        same(join(list(of.iterate())), some(["a"]))


def test_queries_that_do_not_fit_are_refused(engine):
    engine.add(some(["a"]))
    with pytest.raises(InputError, match="k must be at least 1, not 0"):
        engine.search(np.zeros((1, DIM), np.float32), 0)
    with pytest.raises(InputError, match=r"dimension 3; found shape \(1, 4\)"):
        engine.search(np.zeros((1, 4), np.float32), 1)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order, the engine holds what a list of records holds."""

    engines = tuple(LOCAL)

    @initialize(data=st.data(), metric=st.sampled_from(["euclidean", "inner_product"]))
    def begin(self, data, metric):
        create = data.draw(st.sampled_from(self.engines))
        self.place = tempfile.TemporaryDirectory()
        self.metric, self.kept, self.count = metric, some([]), 0
        self.engine = CREATE[create](f"{self.place.name}/index", metric)

    @rule(size=st.integers(0, 5))
    def add(self, size):
        records = some(range(self.count, self.count + size), seed=self.count)
        self.engine.add(records)
        self.kept, self.count = join([self.kept, records]), self.count + size

    @precondition(lambda self: len(self.kept) > 0)
    @rule(data=st.data())
    def delete(self, data):
        gone = data.draw(st.sets(st.sampled_from(self.kept.ids), min_size=1))
        self.engine.delete(sorted(gone))
        self.kept = self.kept.take([i for i, name in enumerate(self.kept.ids) if name not in gone])

    @precondition(lambda self: len(self.kept) > 0)
    @rule(data=st.data(), seed=st.integers(0, 9))
    def replace(self, data, seed):
        gone = data.draw(st.sets(st.sampled_from(self.kept.ids), min_size=1))
        records = some(sorted(gone), seed=seed)
        self.engine.replace(records)
        left = self.kept.take([i for i, name in enumerate(self.kept.ids) if name not in gone])
        self.kept = join([left, records])

    @precondition(lambda self: self.engines != ("milvus",) and len(self.kept) > 1)
    @rule(kind=st.sampled_from(KINDS), recall=st.sampled_from([0.3, 1.0]))
    def set_kind(self, kind, recall):
        assert self.engine.set_kind(kind, target_recall=recall).kind == kind

    @rule()
    def reopen(self):
        self.engine.close()
        if isinstance(self.engine, DirectoryEngine):
            self.engine = DirectoryEngine.open(self.engine.folder)
        elif isinstance(self.engine, MilvusEngine):
            self.engine = MilvusEngine.open(self.engine.uri, self.engine.name)

    @invariant()
    def holds_what_was_put_in(self):
        assert self.engine.count() == len(self.kept)
        same(join([some([]), *self.engine.iterate(3)]), self.kept)
        queries = np.array([[0, 0, 0], [1, -1, 2]], np.float32)
        where = {"label": ["l0", "l2"]}
        filtered = brute(self.kept, queries, 4, self.metric, where)
        assert self.engine.search(queries, 4, where=where) == filtered
        expected = brute(self.kept, queries, 4, self.metric)
        if self.engine.is_exact:
            assert self.engine.search(queries, 4) == expected
            return
        everything = brute(self.kept, queries, len(self.kept), self.metric)
        for found, nearest in zip(self.engine.search(queries, 4), everything, strict=True):
            assert len({name for name, _ in found}) == min(4, len(self.kept))
            assert found == [one for one in nearest if one in found]  # scores and order are exact

    def teardown(self):
        self.engine.close()
        self.place.cleanup()


class AnyOrderInMilvus(AnyOrder):
    """The same in Milvus, which is slower."""

    engines = ("milvus",)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestAnyOrderInMilvus = needs_milvus(AnyOrderInMilvus.TestCase)
TestAnyOrderInMilvus.settings = settings(max_examples=5, stateful_step_count=10, deadline=None)


def test_files_that_were_given_with_an_index_stay(engine):
    for of in (engine, reopened(engine)):
        assert {name: of.attachment(name) for name in ATTACHMENTS} == ATTACHMENTS
        with pytest.raises(InputError, match="has no note"):
            of.attachment("note")


def test_a_note_stays_until_the_index_changes(engine):
    assert engine.note is None
    changes = (
        lambda: engine.add(some(["a", "b"])),
        lambda: engine.replace(some(["a"], seed=1)),
        lambda: engine.delete(["a"]),
        lambda: engine.annotate(None),
    )
    for change in changes:
        for note in ("old", "ä" * 70_000):
            engine.annotate(note)
            assert reopened(engine).note == note
        engine.add(some([]))
        engine.delete([])
        assert engine.note == note
        change()
        assert reopened(engine).note is None


def test_payloads_come_back_as_json(engine):
    payload = {"label": "ä\n", "n": 3, "x": 0.1, "none": None, "list": [1, "b"], "in": {"y": True}}
    engine.add(some(["a"], payloads=[payload]))
    assert reopened(engine).fetch(["a"]).payloads == (json.loads(json.dumps(payload)),)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("photos", ("faiss", "photos", "")),
        ("/a:b/photos", ("faiss", "/a:b/photos", "")),
        (Path("milvus:x"), ("faiss", "milvus:x", "")),
        ("faiss:photos#1", ("faiss", "photos#1", "")),
        ("C:\\photos", ("faiss", "C:\\photos", "")),
        ("milvus:x.db", ("milvus", "x.db", "setrep")),
        ("milvus:http://host:19530#shop", ("milvus", "http://host:19530", "shop")),
    ],
)
def test_an_address_says_which_engine_and_where(address, expected):
    assert door.parse(address) == expected


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("milvs:x.db", "Unknown engine 'milvs' in milvs:x.db. Did you mean 'milvus'"),
        ("faiss:", "names no place"),
        ("milvus:", "names no place"),
        ("nowhere", "There is no index at nowhere"),
        ("faiss:nowhere", "There is no index at nowhere"),
        pytest.param("milvus:{place}/no.db", "There is no index 'setrep' at", marks=needs_milvus),
        pytest.param("milvus:http://127.0.0.1:9", "Cannot open milvus:", marks=needs_milvus),
    ],
)
def test_an_address_of_nothing_is_refused_in_one_line(address, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        door.open_engine(address.format(place=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["faiss", pytest.param("milvus", marks=needs_milvus)])
def test_the_address_alone_decides_which_engine_holds_an_index(scheme, tmp_path):
    address = f"{scheme}:{tmp_path / 'index.db'}"
    kept = some(range(9))
    with door.create_engine(address, DIM, MEMBER_DIM) as engine:
        engine.add(kept)
    with pytest.raises(InputError, match=r"not empty|already"):
        door.create_engine(address, DIM, MEMBER_DIM)
    with door.open_engine(address) as engine:
        assert (engine.dim, engine.member_dim, engine.metric) == (DIM, MEMBER_DIM, "euclidean")
        same(join(list(engine.iterate())), kept)


def test_milvus_that_is_not_installed_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'setrep\[milvus\]'"):
        door.open_engine("milvus:x.db")


@pytest.fixture
def milvus(tmp_path):
    with CREATE["milvus"](tmp_path / "index", "euclidean") as found:
        found.add(some(["kept"]))
        yield found


@needs_milvus
@pytest.mark.parametrize(
    ("name", "payload", "message"),
    [
        ("x" * 513, {}, "takes an id of up to 512 bytes; that of collection .* has 513"),
        ("é" * 257, {}, "takes an id of up to 512 bytes; .* has 514"),
        (10**512, {}, "takes an id of up to 512 bytes; .* has 513"),
        ("\udc80", {}, "has text that is none"),
        ("x", {"a": "\udc80"}, "has text that is none"),
        ("x", {"\udc80": 1}, "has text that is none"),
        ("x", {"a": "y" * 65_536}, "takes a payload of up to 65,536 bytes; .* has 65,545"),
        ("x", {"a": 2**63}, "larger one in its label or metadata"),
        ("x", {"a": [1, {"b": -(2**63)}]}, "larger one in its label or metadata"),
    ],
)
@pytest.mark.parametrize("act", ["add", "replace"])
def test_what_milvus_cannot_keep_is_refused_before_anything_is_written(
    act, name, payload, message, milvus
):
    names = [*range(1500), name] if act == "add" else ["kept", name]
    payloads = [{"a": 1}] * (len(names) - 1) + [payload]
    before = milvus.ids(), milvus.note
    with pytest.raises(InputError, match=message) as caught:
        getattr(milvus, act)(some(names, payloads=payloads))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert (milvus.ids(), milvus.note) == before


@needs_milvus
def test_what_milvus_can_just_keep_comes_back(milvus):
    names = ["x" * 512, "é" * 256, 10**511, "a\0b", "\u202e", 'it\'s "7" \\ %']
    payload = {"a": "y" * 60_000, "b": [2**63 - 1, 1 - 2**63, {"é\"'\\": -1.5e308}]}
    milvus.add(some(names, payloads=[payload] * len(names)))
    assert milvus.ids() == ["kept", *names]
    same(milvus.fetch(names), some(names, payloads=[payload] * len(names)))
    milvus.delete(names[1:])
    assert milvus.ids() == ["kept", names[0]]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@needs_milvus
@given(st.lists(texts, min_size=1, max_size=5, unique=True), st.lists(texts, max_size=3))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_milvus_takes_any_text_as_id_and_in_filters(milvus, names, others):
    milvus.add(some(names, payloads=[{"label": name} for name in names]))
    assert list(milvus.fetch(names).ids) == names
    asked = {"label": [*names[:1], *others]}
    found = milvus.search(np.zeros((1, DIM), np.float32), 10, where=asked)[0]
    assert {name for name, _ in found} == {name for name in names if name in asked["label"]}
    milvus.delete(names)
    assert milvus.ids() == ["kept"]


@needs_milvus
def test_what_milvus_says_is_told_in_one_line(milvus, capfd):
    milvus.client.drop_collection(milvus.name)
    for act in (
        lambda: milvus.add(some(["a"])),
        lambda: milvus.search(np.zeros((1, DIM), np.float32), 1),
        lambda: milvus.count(),
        lambda: milvus.ids(),
        lambda: milvus.fetch(["a"]),
    ):
        with pytest.raises(InputError, match=r"^Milvus at .* says: ") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert "Traceback" not in "".join(capfd.readouterr())
    with pytest.raises(TypeError):  # a mistake in the program stays one
        milvus.client.query(no_such_argument=1)


@needs_milvus
def test_asking_for_an_index_makes_no_file(tmp_path):
    address = f"milvus:{tmp_path / 'no.db'}#shop"
    assert not places.exists(address)
    places.refuse(address)
    places.discard(address)
    with pytest.raises(InputError, match="There is no index 'shop'"):
        door.open_engine(address)
    assert not list(tmp_path.iterdir())


@needs_milvus
@pytest.mark.parametrize("largest", [20, 45, 64])
def test_milvus_finds_all_where_one_search_returns_fewer(largest, milvus, monkeypatch):
    monkeypatch.setattr(milvus_module, "LARGEST_K", largest)
    kept = some(range(60), seed=4)
    milvus.delete(["kept"])
    milvus.add(kept)
    queries = np.random.default_rng(2).integers(-2, 3, (5, DIM)).astype(np.float32)
    for k in (1, 10, 40, 59, 60, 100):
        assert milvus.search(queries, k) == brute(kept, queries, k)
    asked = {"year": list(range(0, 60, 2))}
    found = milvus.search(queries, 30, where=asked)
    assert found == brute(kept.take(range(0, 60, 2)), queries, 30)


@needs_milvus
def test_near_ties_in_milvus_are_told_apart_as_in_memory(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, nothing = tuple(range(2000)), (np.zeros((0, 1), np.float32), np.zeros(2001, np.int64))
    kept = Records(ids, vectors, *nothing, tuple({"x": float(of)} for of in ids))
    memory = MemoryEngine(64, 1)
    with MilvusEngine.create(f"{tmp_path / 'index'}.db", 64, 1) as engine:
        for one in (memory, engine):
            one.add(kept)
        for query in (np.zeros((1, 64), np.float32), vectors[:1] * 1e-4):
            assert engine.search(query, 5) == memory.search(query, 5)
        for odd in (np.inf, -np.inf, np.nan):
            for asked in ([odd], [odd, 3.0]):
                expected = memory.search(vectors[:1], 5, where={"x": asked})
                assert engine.search(vectors[:1], 5, where={"x": asked}) == expected
