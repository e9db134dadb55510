"""Approximate kinds of index: what they find, how well, and what they never return."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from setrep.errors import InputError
from setrep.index import faiss_door, local
from setrep.index.directory import DirectoryEngine
from setrep.index.kinds import FLAT, KINDS, SearchKind, kind_for
from setrep.index.manifest import sum_of
from setrep.index.memory import MemoryEngine
from setrep.index.records import Records

COUNT, DIM = 2500, 16
APPROXIMATE = [kind for kind in KINDS if kind != "flat"]
every_kind = pytest.mark.parametrize("kind", APPROXIMATE)
every_metric = pytest.mark.parametrize("metric", ["euclidean", "inner_product"])


def mixture(count: int, seed: int):
    """Draw points of 100 clusters that overlap; the clusters are always the same."""
    centres = np.random.default_rng(7).normal(size=(100, DIM))
    generator = np.random.default_rng([seed, count])
    chosen = centres[generator.integers(0, 100, count)]
    return (chosen + 0.7 * generator.normal(size=chosen.shape)).astype(np.float32)


VECTORS = mixture(COUNT, 0)


def records(first: int, vectors) -> Records:
    ids = tuple(range(first, first + len(vectors)))
    nothing = np.zeros((0, 1), np.float32), np.zeros(len(ids) + 1, np.int64)
    return Records(ids, vectors, *nothing, tuple({"group": name % 7} for name in ids))


def memory(metric="euclidean", vectors=VECTORS):
    engine = MemoryEngine(DIM, 1, metric)
    engine.add(records(0, vectors))
    return engine


@pytest.fixture
def directory(tmp_path):
    with DirectoryEngine.create(tmp_path / "index", DIM, 1) as engine:
        engine.add(records(0, VECTORS))
        yield engine


def brute(vectors, queries, metric):
    """Score all pairs in float64."""
    wide, asked = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "inner_product":
        return asked @ wide.T
    return np.stack([-((wide - one) ** 2).sum(axis=1) for one in asked])


def exact_scores(engine, queries):
    """Return the score of every collection, as a flat engine gives it."""
    assert engine.is_exact
    return [dict(found) for found in engine.search(queries, engine.count())]


@every_kind
@every_metric
def test_recall_is_what_is_claimed_and_what_was_asked_for(kind, metric):
    engine = memory(metric)
    found = engine.set_kind(kind, target_recall=0.9)
    assert engine.kind == found
    assert found.kind == kind
    assert not engine.is_exact
    assert found.recall_at_10 >= 0.87
    rows = np.random.default_rng(3).permutation(COUNT)[:600]
    scores = brute(VECTORS, VECTORS[rows], metric)
    shares = []
    for row, of_row, nearest in zip(rows, scores, engine.search(VECTORS[rows], 11), strict=True):
        of_row[row] = -np.inf
        expected = set(np.argsort(-of_row)[:10].tolist())
        others = [name for name, _ in nearest if name != row][:10]
        shares.append(len(expected & set(others)) / 10)
    error = np.std(shares) * (1 / len(shares) + 1 / 1000) ** 0.5  # of both samples
    assert np.mean(shares) >= found.recall_at_10 - 4 * error


@every_metric
def test_less_search_finds_less(metric):
    few, many = (memory(metric).set_kind("ivf", target_recall=share) for share in (0.5, 0.99))
    assert few.parameters["nprobe"] < many.parameters["nprobe"]
    assert few.recall_at_10 < many.recall_at_10


@every_kind
@every_metric
def test_every_score_is_exact_and_they_fall(kind, metric):
    engine, queries = memory(metric), mixture(20, 1)
    expected = exact_scores(engine, queries)
    engine.set_kind(kind)
    found = engine.search(queries, 15)
    assert found == engine.search(queries, 15)
    for nearest, scores in zip(found, expected, strict=True):
        assert [scores[name] for name, _ in nearest] == [score for _, score in nearest]
        ranked = sorted(nearest, key=lambda one: (-one[1], one[0]))
        assert nearest == ranked
        assert len({name for name, _ in nearest}) == 15


@every_kind
def test_a_search_with_a_filter_is_exact(kind):
    engine, queries = memory(), mixture(20, 2)
    where = {"group": [2, 5]}
    expected = engine.search(queries, 9, where=where)
    engine.set_kind(kind, target_recall=0.3)
    assert engine.search(queries, 9, where=where) == expected


@every_kind
def test_more_than_an_index_finds_is_found_exactly(kind):
    engine, queries = memory(), mixture(3, 3)
    expected = engine.search(queries, COUNT - 100)
    engine.set_kind(kind, target_recall=0.2)
    assert [len(found) for found in engine.search(queries, 900)] == [900] * 3
    assert engine.search(queries, COUNT - 100) == expected


def check_changes(engine):
    """Delete, add and replace in an index that has a kind, and look for what is gone or new."""
    queries, new = VECTORS[:40], mixture(60, 4)
    gone = [name for name, _ in engine.search(queries[:1], 30)[0]] + list(range(20))
    engine.delete(sorted(set(gone)))
    engine.add(records(COUNT, new))
    first, second = [name for name in range(100, 400) if name not in gone][:2]
    moved = records(0, VECTORS[[1000, 1010]])
    engine.replace(replace(moved, ids=(first, second)))
    assert not engine.is_exact
    flat = MemoryEngine(DIM, 1)
    for part in engine.iterate():
        flat.add(part)
    found, scores = engine.search(queries, 12), exact_scores(flat, queries)
    for nearest, of_query in zip(found, scores, strict=True):
        assert not {name for name, _ in nearest} & set(gone)
        assert [of_query[name] for name, _ in nearest] == [score for _, score in nearest]
    # What came later is searched exactly.
    for place, nearest in enumerate(engine.search(new, 1)):
        assert nearest == [(COUNT + place, 0.0)]
    for row, name in ((1000, first), (1010, second)):
        assert (name, 0.0) in engine.search(VECTORS[[row]], 2)[0]


@every_kind
def test_deleted_never_come_and_added_always_do(kind):
    engine = memory()
    engine.set_kind(kind)
    check_changes(engine)


@every_kind
def test_a_kind_is_kept_in_the_directory(kind, directory):
    before = directory.search(VECTORS[:9], 5)
    directory.annotate("as it was")
    directory.set_kind("ivf")
    kept = directory.set_kind(kind)
    assert directory.note == "as it was"  # what the index holds has not changed
    (entry,) = directory.manifest.segments
    path = directory.folder / "segments" / entry.name / entry.index_file
    assert list(directory.folder.rglob("*.faiss")) == [path]
    found = directory.search(VECTORS[:30], 7)
    with DirectoryEngine.open(directory.folder) as other:
        assert other.kind == kept
        assert other.search(VECTORS[:30], 7) == found
    check_changes(directory)
    with DirectoryEngine.open(directory.folder) as other:
        assert other.search(VECTORS[:30], 7) == directory.search(VECTORS[:30], 7)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with DirectoryEngine.open(directory.folder) as other:
        with pytest.raises(InputError, match="is damaged: set the kind of the index again") as told:
            other.search(VECTORS[:1], 1)
        assert "\n" not in str(told.value)
        directory.close()
        other.set_kind("flat")
        assert other.is_exact
        assert not list(directory.folder.rglob("*.faiss"))
        other.delete(list(range(COUNT, COUNT + 60)))
        assert other.search(VECTORS[30:39], 5) != before


@every_kind
def test_compaction_indexes_anew_with_the_same_parameters(kind, directory):
    before = directory.set_kind(kind)
    (old,) = directory.manifest.segments
    directory.add(records(COUNT, mixture(50, 5)))
    directory.delete(list(range(1300)))
    (entry,) = directory.manifest.segments
    assert entry.name != old.name
    assert directory.kind == entry.kind
    assert set(entry.kind.parameters) == set(before.parameters)
    for name in ("efSearch", "efConstruction", "M", "nprobe", "overfetch", "m"):
        assert entry.kind.parameters.get(name) == before.parameters.get(name)
    assert 0.7 < entry.kind.recall_at_10 <= 1
    found = directory.search(VECTORS[1400:1430], 3)
    assert [nearest[0] for nearest in found] == [(name, 0.0) for name in range(1400, 1430)]
    directory.delete([*range(1301, COUNT), *range(COUNT, COUNT + 50)])
    assert directory.kind == FLAT  # of one collection no recall can be measured
    assert directory.search(VECTORS[:1], 3)[0][0][0] == 1300


def test_small_additions_are_joined_without_the_index(directory):
    directory.set_kind("ivf")
    (old,) = directory.manifest.segments
    for number in range(35):
        directory.add(records(COUNT + number, mixture(1, number)))
    assert len(directory.manifest.segments) < 10
    assert directory.manifest.segments[0] == old
    directory.add(records(2 * COUNT, mixture(COUNT, 50)))
    for number in range(35):
        directory.add(records(3 * COUNT + number, mixture(1, number)))
    assert directory.manifest.segments[0].name != old.name
    assert directory.kind.kind == "ivf"


def test_auto_chooses_by_size(monkeypatch):
    assert kind_for(0) == kind_for(50_000) == "flat"
    assert kind_for(1_000_000) != "flat"
    engine = memory()
    assert engine.set_kind("auto") == FLAT == SearchKind("flat", 1.0, {})
    monkeypatch.setattr(local, "kind_for", lambda count: {COUNT: "pq"}[count])
    assert engine.set_kind("auto").kind == engine.kind.kind == "pq"
    assert engine.set_kind("flat") == FLAT
    assert engine.is_exact


@every_kind
@pytest.mark.parametrize("count", [2, 3, 30])
def test_a_few_equal_collections_are_enough_for_an_index(kind, count):
    engine = memory(vectors=np.ones((count, DIM), np.float32))
    assert engine.set_kind(kind).recall_at_10 == 1.0
    assert engine.search(np.ones((1, DIM), np.float32), 1)[0][0][1] == 0.0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("hnws", {}, "Unknown kind of index 'hnws'. Did you mean 'hnsw'"),
        ("ivf", {"target_recall": 0.0}, "above 0 and at most 1, not 0.0"),
        ("ivf", {"target_recall": 1.5}, "above 0 and at most 1, not 1.5"),
        ("ivf", {"target_recall": float("nan")}, "above 0 and at most 1, not nan"),
        ("hnsw", {}, "needs 2 collections or more, not 1"),
        ("flat", {"parameters": {"nlist": 3}}, "has no parameter 'nlist'.*are: none"),
        ("hnsw", {"parameters": {"nprobe": 3}}, "no parameter 'nprobe'.*M, efConstruction, efS"),
        ("auto", {"parameters": {"nprobe": 3}}, "no parameter 'nprobe'"),
        ("ivf", {"parameters": {"nprobe": 0}}, "nprobe must be an integer from 1 to 1,048,576"),
        ("ivf", {"parameters": {"nprobe": 2.0}}, "nprobe must be an integer .*, not 2.0"),
        ("ivf", {"parameters": {"nlist": 10**30}}, "nlist must be an integer"),
    ],
)
def test_what_no_index_can_be_is_refused_in_one_line(kind, options, message):
    engine = memory(vectors=VECTORS[:1])
    with pytest.raises(InputError, match=message) as caught:
        engine.set_kind(kind, **options)
    assert "\n" not in str(caught.value)
    assert engine.kind == FLAT


def test_parameters_are_taken_as_they_are_and_their_recall_is_measured():
    engine = memory()
    for kind, asked in {
        "ivf": {"nlist": 20, "nprobe": 3},
        "hnsw": {"M": 8, "efConstruction": 20, "efSearch": 24},
        "pq": {"nlist": 10, "m": 2, "nbits": 4, "nprobe": 10, "overfetch": 1},
    }.items():
        found = engine.set_kind(kind, parameters=asked)
        assert found == engine.kind
        assert (found.kind, found.parameters) == (kind, asked)
        assert 0 < found.recall_at_10 < 1
        assert engine.set_kind(kind, parameters=asked) == found
    fewer = engine.set_kind("ivf", parameters={"nlist": 20, "nprobe": 1}).recall_at_10
    assert fewer < engine.set_kind("ivf", parameters={"nlist": 20, "nprobe": 20}).recall_at_10 == 1
    with pytest.raises(InputError, match="m must divide the dimension of the vectors, 16; 5 does"):
        engine.set_kind("pq", parameters={"m": 5})


def test_without_faiss_one_line_says_so(directory, monkeypatch):
    directory.set_kind("hnsw")
    directory.close()
    missing = ModuleNotFoundError("No module named 'faiss'", name="faiss")

    def fail(name):
        raise missing

    faiss_door._import_faiss.cache_clear()
    monkeypatch.setattr(faiss_door, "importlib", SimpleNamespace(import_module=fail))
    try:
        with DirectoryEngine.open(directory.folder) as other:
            with pytest.raises(InputError, match=r"'hnsw' needs FAISS: pip install") as caught:
                other.search(VECTORS[:1], 1)
            assert "\n" not in str(caught.value)
            with pytest.raises(InputError, match="'ivf' needs FAISS"):
                other.set_kind("ivf")
            assert other.search(VECTORS[:1], 1, where={"group": [0]}) == [[(0, 0.0)]]
            other.set_kind("flat")
            assert other.search(VECTORS[:1], 1) == [[(0, 0.0)]]
    finally:
        monkeypatch.setattr(faiss_door, "importlib", importlib)
        faiss_door._import_faiss.cache_clear()


def test_queries_that_are_not_finite_are_refused_by_every_kind():
    engine = memory()
    engine.set_kind("hnsw")
    with pytest.raises(InputError, match="queries hold NaN"):
        engine.search(np.full((1, DIM), np.nan, np.float32), 1)


def test_the_same_index_is_built_of_the_same_vectors():
    for kind in ("ivf", "pq"):  # several threads may link HNSW differently
        first, second = memory(), memory()
        assert first.set_kind(kind) == second.set_kind(kind)
        assert first.search(VECTORS[:50], 9) == second.search(VECTORS[:50], 9)


@every_kind
@pytest.mark.parametrize("change", ["flat", "hnsw", "compaction", "removal"])
def test_a_reader_goes_on_exactly_where_a_writer_has_removed_its_index(kind, change, tmp_path):
    place = tmp_path / "index"
    with DirectoryEngine.create(place, DIM, 1) as engine:
        engine.add(records(0, VECTORS[:300]))
        engine.set_kind(kind)
    reader = DirectoryEngine.open(place)
    with DirectoryEngine.open(place) as writer:
        if change == "compaction":
            writer.delete(list(range(200)))
        elif change != "removal":
            writer.set_kind(change)
    if change == "removal":
        shutil.rmtree(place)
    queries = mixture(20, 3)
    exact = memory(vectors=VECTORS[:300]).search(queries, 5)
    assert reader.search(queries, 5) == exact
    assert (
        reader.search(queries[:1], 300)[0]
        == memory(vectors=VECTORS[:300]).search(queries[:1], 300)[0]
    )


def remake(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, with a checksum that is right again."""
    content = json.loads((place / "manifest.json").read_text())
    change(content["segments"][0])
    content["sha256"] = sum_of(content)
    (place / "manifest.json").write_text(json.dumps(content))


@every_kind
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("nprobe", of) for of in (-1, 0, 2**40, 10**30, 1.5, True, "1", None, [])),
        *(("efSearch", of) for of in (0, -3, 10**30)),
        *(("overfetch", of) for of in (0, 10**30)),
        ("nlist", 7),
    ],
)
def test_parameters_that_no_index_has_are_refused(kind, name, value, directory):
    directory.set_kind(kind)
    if name not in directory.kind.parameters:
        return
    remake(directory.folder, lambda entry: entry["kind"]["parameters"].update({name: value}))
    with pytest.raises(InputError, match=r"damaged|not of these vectors") as caught:
        DirectoryEngine.open(directory.folder).search(VECTORS[:1], 3)
    assert "\n" not in str(caught.value)


@every_kind
def test_an_index_of_another_kind_or_of_other_vectors_is_refused(kind, directory, tmp_path):
    directory.set_kind(kind)

    def replace_by(other: DirectoryEngine) -> Callable[[dict[str, Any]], None]:
        def change(entry: dict[str, Any]) -> None:
            theirs = other.manifest.segments[0]
            files = other.folder / "segments" / theirs.name
            mine = next(name for name in entry["sha256"] if name.endswith(".faiss"))
            content = (files / theirs.index_file).read_bytes()
            path = directory.folder / "segments" / entry["name"] / mine
            path.unlink()  # it may be mapped
            path.write_bytes(content)
            entry["sha256"][mine] = hashlib.sha256(content).hexdigest()

        return change

    for number, (other_kind, count) in enumerate(
        [*((one, COUNT) for one in APPROXIMATE), (kind, 99)]
    ):
        if (other_kind, count) == (kind, COUNT):
            continue
        with DirectoryEngine.create(tmp_path / str(number), DIM, 1) as other:
            other.add(records(0, VECTORS[:count]))
            other.set_kind(other_kind)
            remake(directory.folder, replace_by(other))
        with pytest.raises(InputError, match="not of these vectors"):
            DirectoryEngine.open(directory.folder).search(VECTORS[:1], 3)


@every_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_by_every_kind(kind, value, directory):
    directory.set_kind(kind)

    def spoil(entry: dict[str, Any]) -> None:
        path = directory.folder / "segments" / entry["name"] / "vectors.npy"
        path.unlink()  # it is mapped
        np.save(path, np.full((COUNT, DIM), value, np.float32))
        entry["sha256"]["vectors.npy"] = hashlib.sha256(path.read_bytes()).hexdigest()

    remake(directory.folder, spoil)
    with pytest.raises(InputError, match="NaN, infinity"):
        DirectoryEngine.open(directory.folder).search(VECTORS[:5], 3)


def test_an_index_that_proposes_what_is_not_there_is_refused():
    engine = memory()
    engine.set_kind("ivf")

    class Broken:
        ntotal = COUNT

        def search(self, queries, count, params):
            return None, np.full((len(queries), count), COUNT)

    engine._built = replace(engine._built, index=Broken())
    engine.__dict__.pop("_mixed", None)
    with pytest.raises(InputError, match="approximate index is damaged"):
        engine.search(VECTORS[:2], 3)
