"""A saved index is whole: the old one or the new, whatever happens in between."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index import places
from setrep.retrieval import CollectionIndex, store
from tests.indexes import (
    columns,
    draw_items,
    draw_model,
    everything,
    index_of,
    make_encoder,
    make_full_index,
    make_index,
    same_encoder,
)
from tests.test_directory_engine import Faults, KilledError

needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
EACH = ["directory", pytest.param("milvus", marks=needs_milvus)]
ids = st.lists(st.text() | st.integers(), min_size=1, max_size=8, unique_by=lambda x: (x, type(x)))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
entries = st.none() | st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | numbers)


def address_in(folder: Path, engine: str, name: str = "index") -> str:
    """Return an address of an engine."""
    if engine == "milvus":
        return f"milvus:{folder / 'index.db'}#{name}"
    return str(folder / name)


@given(ids, st.data())
@settings(max_examples=40, deadline=None)
def test_a_saved_index_gives_the_same_answers(tmp_path_factory, names, data):
    count = len(names)
    labels = data.draw(
        st.lists(st.none() | st.text() | st.integers(), min_size=count, max_size=count)
    )
    metadata = data.draw(st.lists(entries, min_size=count, max_size=count))
    vectors = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    index = CollectionIndex.from_embeddings(vectors, names, labels, metadata)
    directory = tmp_path_factory.mktemp("indexes") / "index"
    index.save(directory)
    with CollectionIndex.open(directory) as opened:
        part = next(opened.engine.iterate())
        np.testing.assert_array_equal(part.vectors, vectors)
        query = np.random.default_rng(1).normal(size=4)
        found = opened.query_vector(query, 8)
        assert found == index.query_vector(query, 8)
        assert opened.ids == tuple(names)
        told = {match.id: (match.label, match.metadata) for match in found}
        expected = zip(labels, [entry or {} for entry in metadata], strict=True)
        assert told == dict(zip(names, expected, strict=True))
        assert everything(opened) == everything(index)


@pytest.mark.parametrize("engine", EACH)
def test_a_saved_index_carries_its_set_encoder(engine, tmp_path):
    address = address_in(tmp_path, engine)
    index = make_full_index()
    index.save(address)
    opened = CollectionIndex.open(address)
    items = torch.arange(6.0).reshape(2, 3)
    assert opened.query(items) == index.query(items)
    assert opened.fingerprint == index.fingerprint == index.set_encoder.fingerprint
    assert everything(opened) == everything(index)
    assert (opened.address, index.address) == (address, None)
    opened.close()


def test_the_files_of_an_index_are_these(tmp_path):
    make_full_index().save(tmp_path / "deep" / "index")
    place = tmp_path / "deep" / "index"
    assert [path.name for path in place.parent.iterdir()] == ["index"]
    written = {path.relative_to(place).parts[0] for path in place.rglob("*")}
    assert written == {"attachments", "lock", "manifest.json", "segments"}
    attached = sorted(path.name for path in (place / "attachments").iterdir())
    assert attached == ["index.json", "model.json", "model.safetensors"]


@pytest.mark.parametrize("engine", EACH)
def test_an_index_is_created_empty_and_written_at_once(engine, tmp_path):
    address = address_in(tmp_path, engine)
    model = draw_model(0, 4)
    with CollectionIndex.create(address, same_encoder(), root=tmp_path) as index:
        assert (len(index), index.address, index.origin.root) == (0, address, str(tmp_path))
        index.add(*columns(model))
        inside = everything(index)
    with CollectionIndex.open(address) as opened:
        assert everything(opened) == inside
        assert inside[0] == everything(index_of(model))[0]
    for _ in range(2):
        with pytest.raises(InputError, match="There is an index at") as caught:
            CollectionIndex.create(address, same_encoder())
        assert "\n" not in str(caught.value)
    with CollectionIndex.open(address) as opened:
        assert everything(opened) == inside
    if engine == "directory":
        with pytest.raises(InputError, match="exists and is not an index"):
            CollectionIndex.create(tmp_path, same_encoder())
        (tmp_path / "empty").mkdir()
        assert len(CollectionIndex.create(tmp_path / "empty", same_encoder())) == 0
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["empty", "index"]


@pytest.mark.parametrize("engine", EACH)
def test_an_index_is_replaced_also_while_it_is_open(engine, tmp_path):
    address = address_in(tmp_path, engine)
    make_index(seed=0).save(address)
    opened = CollectionIndex.open(address)
    opened.save(address)
    opened.save(address if engine == "milvus" else f"faiss:{tmp_path}/./index")
    if engine == "milvus":
        opened.close()
    make_index(seed=1).save(address)
    if engine == "directory":
        assert opened.query_vector(np.zeros(3)) == make_index(seed=0).query_vector(np.zeros(3))
        with pytest.raises(InputError):
            opened.add_embeddings([[0.0, 0.0, 0.0]], ["late"])
        assert [path.name for path in tmp_path.iterdir()] == ["index"]
        opened.close()
    again = CollectionIndex.open(address)
    assert everything(again) == everything(make_index(seed=1))
    again.close()


def test_where_it_was_opened_it_is_saved_already(tmp_path):
    make_index().save(tmp_path / "index")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with CollectionIndex.open(tmp_path / "index") as opened:
        for address in (tmp_path / "index", f"faiss:{tmp_path}/./index"):
            opened.save(address)
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        opened.remove("id 0")
        opened.save(tmp_path / "index")
        assert opened.ids == CollectionIndex.open(tmp_path / "index").ids == make_index().ids[1:]


def test_an_index_is_saved_elsewhere_and_where_it_was_removed(tmp_path):
    make_full_index().save(tmp_path / "index")
    opened = CollectionIndex.open(tmp_path / "index")
    opened.save(tmp_path / "copy")
    shutil.rmtree(tmp_path / "index")
    opened.save(tmp_path / "index")
    for name in ("copy", "index"):
        found = CollectionIndex.open(tmp_path / name)
        assert everything(found) == everything(make_full_index())


def test_an_empty_directory_is_taken_and_any_other_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    make_index().save(tmp_path / "empty")
    assert len(CollectionIndex.open(tmp_path / "empty")) == 6
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("photos", "file", "file/index"):
        with pytest.raises(InputError) as caught:
            make_index().save(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "photos" / "one.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "photos"]


OLD = {
    name: kept._replace(label=label)
    for (name, kept), label in zip(draw_model(0, 4).items(), ("x", "y", 7, "x"), strict=True)
}
NEW, MORE = draw_model(1, 4), draw_model(2, 4, start=10)
ITEMS = draw_items(np.random.default_rng(3), is_grid=True)


def create_and_add(place: Path) -> None:
    """Go on where an earlier attempt ended."""
    is_there = places.exists(place)
    with (
        CollectionIndex.open(place)
        if is_there
        else CollectionIndex.create(place, same_encoder()) as index
    ):
        if not len(index):
            index.add(*columns(NEW))


def changed(act):
    """Return what opens an index, changes it and closes it."""

    def change(place: Path) -> None:
        with CollectionIndex.open(place) as index:
            act(index)

    return change


OPERATIONS = {
    "save": lambda place: index_of(NEW).save(place),
    "replace": lambda place: index_of(NEW).save(place),
    "create": create_and_add,
    "add": changed(lambda index: index.add(*columns(MORE))),
    "remove": changed(lambda index: index.remove(list(OLD)[:3])),
    "update": changed(lambda index: index.update(next(iter(OLD)), torch.from_numpy(ITEMS))),
    "certify": changed(lambda index: index.certify(dict.fromkeys(("x", "y", 7), ITEMS))),
}
IS_FROM_NOTHING, SAVES = ("save", "create"), ("save", "replace", "create")


class Steps(Faults):
    """Fails at one change on disk; a kill lets nothing change after it."""

    def __init__(self, patch, error, fail_at):
        super().__init__(patch, error)
        self.fail_at = fail_at
        patch.setattr(Path, "rename", self.wrap(Path.rename, "rename"))

    def wrap(self, real, name):
        fail = super().wrap(real, name)

        def act(*given, **named):
            if isinstance(self.error, KilledError) and -1 < self.fail_at <= self.count:
                self.count += 1
                raise self.error
            return fail(*given, **named)

        return act


def attempt(act, place, error, fail_at):
    """Do something with a failure at a step; say whether it was done and how many steps it took.

    The model's files go through temporary directories, which are left out.
    """
    with pytest.MonkeyPatch.context() as patch:
        index = index_of(OLD)
        files = store.to_attachments(index.origin, index.set_encoder)
        patch.setattr(store, "to_attachments", lambda *_: files)
        patch.setattr(store, "from_attachments", lambda *_: (index.origin, index.set_encoder))
        steps = Steps(patch, error, fail_at)
        try:
            act(place)
        except (InputError, KilledError):
            return False, steps.count
        return True, steps.count


def held(place: Path):
    """Return all that is at an address, or none."""
    if not places.exists(place):
        return None
    with CollectionIndex.open(place) as index:
        return everything(index)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KilledError()])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_failure_at_any_step_leaves_the_old_index_or_the_new(name, error, tmp_path):
    act = OPERATIONS[name]

    index_of(OLD).save(tmp_path / "old")

    def start(folder: str) -> Path:
        place = tmp_path / folder / "index"
        place.parent.mkdir()
        if name not in IS_FROM_NOTHING:
            shutil.copytree(tmp_path / "old", place)
        return place

    done = start("done")
    before = held(done)
    act(done)
    after, seen = held(done), []
    assert after not in (None, before)
    allowed = [before, after]
    if name == "create":
        allowed.insert(1, [[], *after[1:]])  # nothing, an index of nothing, and all
    for fail_at in range(1, 1000):
        place = start(f"tried{fail_at}")
        is_done, count = attempt(act, place, error, fail_at)
        if count < fail_at:
            assert is_done
            break
        found = held(place)
        assert found in allowed
        assert found == after or not is_done
        seen.append(allowed.index(found))
        if found != after:
            act(place)  # the same again, as a user would
            assert held(place) == after
        if name in SAVES:  # what earlier attempts left is gone with the next
            index_of(NEW).save(place)
            assert [path.name for path in place.parent.iterdir()] == ["index"]
        shutil.rmtree(place.parent)
    assert fail_at > (3 if name == "certify" else 8)
    assert seen == sorted(seen)
    assert set(range(len(allowed))) - set(seen) <= {len(allowed) - 1}


@pytest.mark.parametrize("name", ["add", "remove", "update", "certify"])
def test_an_index_goes_on_after_a_failed_change(name, tmp_path):
    acts = {
        "add": lambda index: index.add(*columns(MORE)),
        "remove": lambda index: index.remove(list(OLD)[:3]),
        "update": lambda index: index.update(next(iter(OLD)), torch.from_numpy(ITEMS)),
        "certify": lambda index: index.certify(dict.fromkeys(("x", "y", 7), ITEMS)),
    }
    whole = index_of(OLD)
    acts[name](whole)
    for fail_at in range(1, 1000):
        place = tmp_path / str(fail_at)
        index_of(OLD).save(place)
        with CollectionIndex.open(place) as index:
            before = everything(index)
            error = OSError(28, "No space left on device")
            is_done, count = attempt(
                lambda _, index=index: acts[name](index), place, error, fail_at
            )
            assert everything(index) == held(place)
            if not is_done and everything(index) == before:
                acts[name](index)
            assert everything(index) == everything(whole)  # also where only a sync has failed
        assert held(place) == everything(whole)
        if count < fail_at:
            break
    assert fail_at > 3


def test_a_failed_save_leaves_the_old_index_and_nothing_else(tmp_path):
    index_of(OLD).save(tmp_path / "index")
    before = held(tmp_path / "index")
    error = OSError(28, "No space left on device")
    for fail_at in (1, 5, 20):
        is_done, _ = attempt(OPERATIONS["replace"], tmp_path / "index", error, fail_at)
        assert not is_done
        assert [path.name for path in tmp_path.iterdir()] == ["index"]
        assert held(tmp_path / "index") == before


def test_a_set_encoder_that_changed_since_is_refused(tmp_path):
    index = make_full_index()
    with torch.no_grad():
        index.set_encoder.encoder.projection.bias.add_(1)
    with pytest.raises(InputError, match="has changed"):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_an_index_in_use_is_not_replaced(tmp_path):
    make_full_index().save(tmp_path / "index")
    before = held(tmp_path / "index")
    with CollectionIndex.open(tmp_path / "index") as writer:
        writer.remove("a")
        writer.add([torch.eye(3)[:2]], ["a"], ["x"])
        with pytest.raises(InputError, match="Another process is writing to"):
            make_index().save(tmp_path / "index")
        with (
            CollectionIndex.open(tmp_path / "index") as reader,
            pytest.raises(InputError, match="Another process is writing to"),
        ):
            reader.remove("b")
    found = held(tmp_path / "index")
    assert sorted(found[0], key=str) == sorted(before[0], key=str)
    make_index().save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_readers_keep_what_they_opened(tmp_path):
    index_of(OLD).save(tmp_path / "index")
    readers = [CollectionIndex.open(tmp_path / "index") for _ in range(3)]
    before = everything(readers[0])
    with CollectionIndex.open(tmp_path / "index") as writer:
        writer.remove(list(OLD)[:3])
        writer.add(*columns(MORE))
        after = everything(writer)
        assert [everything(reader) for reader in readers] == [before] * 3
        assert readers[1].query(list(ITEMS), 2) == index_of(OLD).query(list(ITEMS), 2)
        with CollectionIndex.open(tmp_path / "index") as late:
            assert everything(late) == after
    with pytest.raises(InputError, match="changed since it was opened"):
        readers[0].remove(next(iter(OLD)))
    with pytest.raises(InputError, match="changed since it was opened"):
        readers[1].certify(dict.fromkeys(("x", "y", 7), ITEMS))


def test_a_saved_index_with_another_model_is_no_surprise(tmp_path):
    make_full_index(1.0).save(tmp_path / "index")
    make_full_index(2.0).save(tmp_path / "index")
    opened = CollectionIndex.open(tmp_path / "index")
    assert opened.fingerprint == make_encoder(2.0).fingerprint
    assert opened.query(torch.eye(3)[:2])[0].score == 0.0


@pytest.mark.parametrize("engine", EACH)
@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_a_saved_index_is_searched_as_before_where_its_engine_can(kind, engine, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(400, 8))
    index = CollectionIndex.from_embeddings(vectors, range(400))
    index.set_kind(kind, target_recall=0.7)
    address = address_in(tmp_path, engine)
    index.save(address)
    with CollectionIndex.open(address) as opened:
        if engine == "milvus":
            assert opened.kind.kind == "flat"
            return
        assert opened.kind == index.kind
        assert opened.kind.kind == kind
        for row in range(20):
            assert opened.query_vector(vectors[row] + 0.5) == index.query_vector(vectors[row] + 0.5)


def test_a_relative_address_is_of_where_it_was_opened(tmp_path, monkeypatch):
    for name, ids in (("one", ["a", "b"]), ("two", ["c"])):
        (tmp_path / name).mkdir()
        CollectionIndex.from_embeddings(np.eye(2)[: len(ids)], ids).save(tmp_path / name / "index")
    monkeypatch.chdir(tmp_path / "one")
    with CollectionIndex.open("index") as index:
        monkeypatch.chdir(tmp_path / "two")
        index.save("index")
    assert CollectionIndex.open("index").ids == ("a", "b")


@pytest.mark.parametrize("at", [1, 2])
def test_an_index_that_is_replaced_while_it_is_opened_is_opened_again(at, tmp_path, monkeypatch):
    place, real, calls = tmp_path / "index", store.from_attachments, []
    index_of(OLD).save(place)

    def replacing(engine, address):
        calls.append(address)
        if len(calls) <= at:  # by one of another model and dimension
            CollectionIndex.from_embeddings(
                CollectionBatch(torch.eye(2, len(calls) + 4), torch.tensor([0, 2])), ["new"]
            ).save(place)
        return real(engine, address)

    monkeypatch.setattr(store, "from_attachments", replacing)
    with CollectionIndex.open(place) as index:
        assert index.ids == ("new",)
        assert index.set_encoder.dim == index.dim == at + 4


def test_a_file_that_may_not_grow_is_told_and_nothing_is_changed(tmp_path):
    pytest.importorskip("resource")
    place = tmp_path / "index"
    CollectionIndex.from_embeddings(np.eye(3), ["a", "b", "c"]).save(place)
    code = f"""
import resource, signal, numpy as np
from setrep.errors import InputError
from setrep.index.directory import DirectoryEngine
from setrep.index.records import Records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told, most = set(), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with DirectoryEngine.open({str(place)!r}) as engine:
    for limit in (0, 100, 1000, 2000, 9000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        vectors = np.ones((900, 3), np.float32)
        nothing = np.zeros((0, 3), np.float32), np.zeros(901, np.int64)
        try:
            engine.add(Records(tuple(range(900)), vectors, *nothing, tuple({{}} for _ in vectors)))
        except InputError as error:
            told.add(str(error))
        assert engine.count() == 3
for one in sorted(told):
    print(one)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == done.stdout.count("The index is unchanged") >= 1
    assert "damaged" not in done.stdout
    assert "None" not in done.stdout
    assert CollectionIndex.open(place).ids == ("a", "b", "c")
