"""A saved index is whole: the old one or the new, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, Match, files
from tests.indexes import make_full_index, make_index

ids = st.lists(st.text() | st.integers(), min_size=1, max_size=8, unique_by=lambda x: (x, type(x)))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
entries = st.none() | st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | numbers)


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
    opened = CollectionIndex.open(directory)
    assert isinstance(opened.embeddings, np.memmap)
    np.testing.assert_array_equal(opened.embeddings, vectors)
    query = np.random.default_rng(1).normal(size=4)
    assert opened.query_vector(query, 8) == index.query_vector(query, 8)
    assert (opened.ids, opened.labels, opened.metadata) == (
        tuple(names),
        tuple(labels),
        index.metadata,
    )


def test_a_saved_index_carries_its_set_encoder(tmp_path):
    index = make_full_index()
    index.save(tmp_path / "deep" / "index")
    opened = CollectionIndex.open(tmp_path / "deep" / "index")
    items = torch.arange(6.0).reshape(2, 3)
    assert opened.query(items) == index.query(items)
    assert opened.fingerprint == index.fingerprint == index.set_encoder.fingerprint
    written = sorted(path.name for path in (tmp_path / "deep" / "index").iterdir())
    assert written == ["collections.json", "embeddings.npy", "encoder", "manifest.json"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["index"]


def test_an_index_is_replaced_also_while_it_is_open(tmp_path):
    make_index(seed=0).save(tmp_path / "index")
    opened = CollectionIndex.open(tmp_path / "index")
    opened.save(tmp_path / "index")
    make_index(seed=1).save(tmp_path / "index")
    assert opened.query_vector(np.zeros(3)) == make_index(seed=0).query_vector(np.zeros(3))
    again = CollectionIndex.open(tmp_path / "index")
    assert again.query_vector(np.zeros(3)) == make_index(seed=1).query_vector(np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


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


class Killed(BaseException):
    """Stands for a kill: nothing after it may run, not even cleaning up."""


def count_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int | None) -> Callable[[], int]:
    """Raise before the n-th change on disk, and let nothing change from then on."""
    steps = 0

    def guarded(function: Callable) -> Callable:
        def step(*arguments: object, **options: object) -> object:
            nonlocal steps
            if stop_at is not None and steps >= stop_at:
                steps += 1
                raise Killed
            steps += 1
            return function(*arguments, **options)

        return step

    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "mkdir"),
        (Path, "unlink"),
        (Path, "write_text"),
        (files.np, "save"),
        (files.os, "fsync"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))
    return lambda: steps


@pytest.mark.parametrize("has_encoder", [False, True])
def test_a_kill_at_any_step_leaves_the_old_index_or_the_new(has_encoder, tmp_path, monkeypatch):
    def make(which: int) -> CollectionIndex:
        return make_full_index(scale=1.0 + which) if has_encoder else make_index(seed=which)

    def answers(index: CollectionIndex) -> list[Match]:
        return index.query_vector(np.ones(3), fingerprint=index.fingerprint)

    old, new = answers(make(0)), answers(make(1))
    with monkeypatch.context() as patch:
        make(0).save(tmp_path / "count")
        count = count_steps(patch, None)
        make(1).save(tmp_path / "count")
        num_steps = count()
    assert num_steps > 10
    seen = []
    for stop_at in range(num_steps):
        path = tmp_path / str(stop_at) / "index"
        make(0).save(path)
        with monkeypatch.context() as patch:
            count_steps(patch, stop_at)
            with pytest.raises(Killed):
                make(1).save(path)
        found = answers(CollectionIndex.open(path))
        assert found in (old, new)
        seen.append(found == new)
        make(1).save(path)  # the next save mends what the kill left
        assert answers(CollectionIndex.open(path)) == new
        assert not files.aside_of(path).exists()
    assert seen == sorted(seen)
    assert len(set(seen)) == 2


def test_a_failed_write_leaves_the_old_index_and_nothing_else(tmp_path, monkeypatch):
    make_index(seed=0).save(tmp_path / "index")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((files.os, "fsync"), (files.np, "save"), (Path, "write_text")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(InputError, match="No space left on device"):
                make_index(seed=1).save(tmp_path / "index")
        assert [path.name for path in tmp_path.iterdir()] == ["index"]
        assert CollectionIndex.open(tmp_path / "index").metadata[0] == {"seed": 0, "place": 0}


def test_when_the_new_index_cannot_be_moved_in_the_old_goes_back(tmp_path, monkeypatch):
    make_index(seed=0).save(tmp_path / "index")
    rename = Path.rename

    def refuse_staged(path: Path, target: Path) -> Path:
        if ".setrep-new-" in path.name:
            raise OSError(13, "Permission denied")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_staged)
        with pytest.raises(InputError, match="Permission denied"):
            make_index(seed=1).save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert CollectionIndex.open(tmp_path / "index").metadata[0] == {"seed": 0, "place": 0}


def test_a_replaced_index_does_not_come_back_when_it_was_only_half_removed(tmp_path, monkeypatch):
    make_index(seed=0).save(tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        make_index(seed=1).save(tmp_path / "index")
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(InputError, match="There is no index"):
        CollectionIndex.open(tmp_path / "index")


def test_the_next_save_removes_what_killed_ones_left(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    running = tmp_path / f".index.setrep-new-{os.getppid()}-0123abcd"
    other = tmp_path / f".other.setrep-new-{process.pid}-0123abcd"
    left = tmp_path / f".index.setrep-new-{process.pid}-0123abcd"
    for folder in (running, other, left):
        folder.mkdir()
        (folder / "embeddings.npy").write_text("part")
    make_index().save(tmp_path / "index")
    assert set(tmp_path.iterdir()) == {running, other, tmp_path / "index"}


def test_a_set_encoder_that_changed_since_is_refused(tmp_path):
    index = make_full_index()
    with torch.no_grad():
        index.set_encoder.encoder.projection.bias.add_(1)
    with pytest.raises(InputError, match="has changed"):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []
