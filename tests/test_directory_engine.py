"""What a kill, a full disk, damage and other processes do to an engine in a directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from setrep.errors import InputError
from setrep.index import directory, disk, index_files, manifest, segments
from setrep.index.directory import DirectoryEngine
from setrep.index.records import join
from tests.test_engines import DIM, MEMBER_DIM, same, some

FIRST, SECOND, THIRD = some(range(6)), some(range(6, 10), seed=1), some(range(20, 22), seed=2)
OPERATIONS = {
    "create": lambda place: DirectoryEngine.create(place, DIM, MEMBER_DIM).close(),
    "add": lambda place: change(place, lambda engine: engine.add(THIRD)),
    "delete": lambda place: change(place, lambda engine: engine.delete([1, 8])),
    "replace": lambda place: change(place, lambda engine: engine.replace(some([2, 7], seed=3))),
    "compact": lambda place: change(place, lambda engine: engine.delete([6, 7, 9])),
    "kind": lambda place: change(place, lambda engine: engine.set_kind("ivf")),
    "other kind": lambda place: change(place, lambda engine: engine.set_kind("pq")),
    "no kind": lambda place: change(place, lambda engine: engine.set_kind("flat")),
    "index anew": lambda place: change(place, lambda engine: engine.delete(list(range(6)))),
}
OF_A_KIND = ("other kind", "no kind", "index anew")  # begin with an index that has one


class KilledError(BaseException):
    """What no handler catches, as if the process were gone."""


def change(place, act):
    with DirectoryEngine.open(place) as engine:
        act(engine)


def everything(place):
    with DirectoryEngine.open(place) as engine:
        engine.search(np.zeros((1, DIM), np.float32), 1)  # by whatever kind it has
        return join([some([]), *engine.iterate()])


def kind_at(place):
    with DirectoryEngine.open(place) as engine:
        return engine.kind.kind


@pytest.fixture
def start(tmp_path):
    """An index of two segments."""
    place = tmp_path / "start"
    with DirectoryEngine.create(place, DIM, MEMBER_DIM) as engine:
        engine.add(FIRST)
        engine.add(SECOND)
    return place


class Faults:
    """Fails at the n-th write, rename, sync, removal or new directory, before or half-way."""

    def __init__(self, patch, error):
        self.count, self.fail_at, self.error = 0, -1, error
        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "mkdir"),
            (Path, "unlink"),
            (shutil, "rmtree"),
            *((owner, "write") for owner in (segments, manifest, index_files)),
        ):
            patch.setattr(owner, name, self.wrap(getattr(owner, name), name))

    def wrap(self, real, name):
        def act(*given, **named):
            self.count += 1
            if self.count != self.fail_at:
                return real(*given, **named)
            if name == "write":  # half of the file is there
                Path(given[0]).write_bytes(given[1][: len(given[1]) // 2])
            raise self.error

        return act


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KilledError()])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_failure_anywhere_leaves_the_old_index_or_the_new_one(name, error, start, tmp_path):
    act = OPERATIONS[name]
    if name in OF_A_KIND:
        change(start, lambda engine: engine.set_kind("hnsw"))
    before = everything(start)
    done = tmp_path / "done"
    if name != "create":
        shutil.copytree(start, done)
    act(done)
    after, kinds = everything(done), (kind_at(start), kind_at(done))
    fail_at = 0
    while True:
        fail_at += 1
        place = tmp_path / f"tried{fail_at}"
        if name != "create":
            shutil.copytree(start, place)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, error)
            faults.fail_at = fail_at
            try:
                act(place)
                is_done = True
            except (InputError, KilledError):
                is_done = False
        if faults.count < fail_at:
            assert is_done
            break
        if name == "create" and not (place / "manifest.json").exists():
            shutil.rmtree(place, ignore_errors=True)
        else:
            found = everything(place)
            is_new = found.ids == after.ids and kind_at(place) == kinds[1]
            same(found, after if is_new else before)
            assert kind_at(place) == kinds[is_new]
            assert is_new or not is_done
        if name == "create" and (place / "manifest.json").exists():
            continue
        if not (name != "create" and is_new):
            act(place)  # the same again, as a user would
        same(everything(place), after)
        if name != "create":
            change(place, lambda engine: engine.add(some(["last"])))
            kept = {entry.name for entry in manifest.read_manifest(place).segments}
            assert {path.name for path in (place / "segments").iterdir()} == kept
            assert not list(place.glob(".manifest*"))
            named = {file for one in manifest.read_manifest(place).segments for file in one.sha256}
            assert {path.name for path in (place / "segments").glob("*/*")} == named
    least = {"create": 4, "add": 10, "replace": 10, "compact": 12, "kind": 12, "index anew": 12}
    assert fail_at > least.get(name, 3)


WRITER = """
import sys
import numpy as np
from setrep.index.directory import DirectoryEngine
from setrep.index.records import Records

def some(ids):
    members, offsets = np.ones((8, 2), np.float32), np.array([0, 2, 4, 6, 8])
    vectors = np.full((4, 3), ids[0], np.float32)
    return Records(tuple(ids), vectors, members, offsets, tuple({"label": i} for i in ids))

number = int(sys.argv[2])
print("ready", flush=True)
while True:
    with DirectoryEngine.open(sys.argv[1]) as engine:
        engine.add(some(range(number, number + 4)))
        engine.delete([number, number + 2])
    number += 4
    print(number, flush=True)
"""


def test_kills_at_random_moments_break_nothing(start):
    generator, number = np.random.default_rng(0), 100
    for _ in range(30):
        command = [sys.executable, "-c", WRITER, str(start), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.0, 0.2))
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split()
        found = everything(start)
        numbers = [name for name in found.ids if name >= 100]
        last = int(told[-1]) if told else number
        # All that was told is there, and of what came after either nothing, the added, or all.
        assert [name for name in numbers if name < last] == [
            name for name in range(100, last) if name % 4 in (1, 3)
        ]
        after = [name for name in numbers if name >= last]
        assert after in ([], [last, last + 1, last + 2, last + 3], [last + 1, last + 3])
        number = 104 + 4 * ((max([99, *numbers]) - 100) // 4)
        with DirectoryEngine.open(start) as engine:
            engine.delete([name for name in numbers if name % 4 in (0, 2)])


def test_one_process_writes_and_others_read(start):
    with DirectoryEngine.open(start) as writer, DirectoryEngine.open(start) as reader:
        writer.add(THIRD)
        same(join(list(reader.iterate())), join([FIRST, SECOND]))  # what it opened
        with pytest.raises(InputError, match="Another process is writing to"):
            reader.add(some(["late"]))
        writer.delete(list(range(6, 10)))  # removes a segment that the reader has mapped
        same(join(list(reader.iterate())), join([FIRST, SECOND]))
    with pytest.raises(InputError, match="changed since it was opened; open it again"):
        reader.add(some(["late"]))
    same(everything(start), join([FIRST, THIRD]))


def test_many_small_additions_are_written_as_one(tmp_path):
    place = tmp_path / "index"
    with DirectoryEngine.create(place, DIM, MEMBER_DIM) as engine:
        for number in range(70):
            engine.add(some([number], seed=number))
        assert len(engine.manifest.segments) <= 33
        expected = join([some([number], seed=number) for number in range(70)])
        same(join(list(engine.iterate())), expected)
    same(everything(place), expected)


def test_small_additions_leave_a_large_segment_as_it_is(tmp_path):
    with DirectoryEngine.create(tmp_path / "index", DIM, MEMBER_DIM) as engine:
        engine.add(some(list(range(1000, 1100))))
        large = engine.manifest.segments[0].name
        for number in range(90):
            engine.add(some([number]))
            assert engine.manifest.segments[0].name == large
            assert len(engine.manifest.segments) <= 33
            sizes = [len(part) for part in engine._parts]
        assert engine.ids() == [*range(1000, 1100), *range(90)]
        assert sizes[0] == 100
        for number in range(100, 160):
            engine.add(some([number]))
        assert engine.manifest.segments[0].name != large  # as much has come since


@pytest.mark.parametrize("file_name", ["vectors.npy", "members.npy", "offsets.npy", "rows.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_files_are_refused_in_one_line(file_name, damage, start):
    path = next((start / "segments").glob(f"*/{file_name}"))
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-3])
    if (file_name, damage) == ("members.npy", "flip"):  # checked when they are first used
        with DirectoryEngine.open(start) as engine:
            assert len(engine.search(np.zeros((1, DIM), np.float32), 10)[0]) == 10
            assert len(engine.fetch([0, 6], with_members=False)) == 2
            for _ in range(2):
                with pytest.raises(InputError, match=r"members.npy is damaged"):
                    engine.fetch([0, 6])
            with pytest.raises(InputError, match=r"members.npy is damaged"):
                engine.delete([0, 1, 2, 3, 6, 7, 8])  # would write the rest anew
    with pytest.raises(InputError, match=r"damaged|Cannot read") as caught:
        everything(start)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no index at"),
        (b"{", "damaged or of something else"),
        (b"[]", "damaged or of something else"),
        (b'{"format": "other"}', "is not an index of setrep"),
        (b'{"format": "setrep.DirectoryEngine", "schema": 2}', "is of another schema than 1"),
        (b'{"format": "setrep.DirectoryEngine", "schema": 1}', "damaged or of something else"),
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(content, message, start):
    (start / "manifest.json").unlink()
    if content is not None:
        (start / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        DirectoryEngine.open(start)
    assert "\n" not in str(caught.value)


def test_a_tampered_segment_is_refused_although_its_checksum_is_right(start):
    content = json.loads((start / "manifest.json").read_bytes())
    entry = content["segments"][0]
    path = start / "segments" / entry["name"] / "rows.json"
    rows = json.loads(path.read_bytes())
    path.write_text(json.dumps(rows | {"ids": rows["ids"][:-1]}))
    entry["sha256"]["rows.json"] = disk.digest(path)
    content["sha256"] = manifest.sum_of(content)
    (start / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"takes 5 vectors"):
        DirectoryEngine.open(start)


def test_an_index_begins_in_an_empty_directory(start, tmp_path):
    before = sorted(start.rglob("*"))
    with pytest.raises(InputError, match="is not empty"):
        DirectoryEngine.create(start, DIM, MEMBER_DIM)
    assert sorted(start.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write to"):
        DirectoryEngine.create(tmp_path / "file" / "index", DIM, MEMBER_DIM)


def test_arrays_are_mapped_not_loaded(start):
    with DirectoryEngine.open(start) as engine:
        assert all(isinstance(part.vectors, np.memmap) for part in engine._parts)


def test_writing_an_index_imports_no_torch(start):
    code = (
        "import sys; from setrep.index.directory import DirectoryEngine; "
        f"engine = DirectoryEngine.open({str(start)!r}); engine.delete([1]); engine.close(); "
        "print(engine.count(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", "False"]


def test_a_change_that_may_not_outlive_a_loss_of_power_is_made_and_said(start, monkeypatch):
    real = directory.sync_directory

    def fail(folder):
        raise OSError(5, "Input/output error")

    with DirectoryEngine.open(start) as engine:
        monkeypatch.setattr(directory, "sync_directory", fail)
        for change in (
            lambda: engine.add(some(["more"])),
            lambda: engine.delete([0]),
            lambda: engine.annotate("x"),
        ):
            with pytest.raises(InputError, match=r"is changed, but .*output error") as caught:
                change()
            assert "\n" not in str(caught.value)
            same(join(list(engine.iterate())), everything(start))
        assert engine.ids() == [*range(1, 10), "more"]
        monkeypatch.setattr(directory, "sync_directory", real)
        engine.delete([1])
    assert everything(start).ids == (*range(2, 10), "more")


def test_a_writer_whose_index_was_replaced_or_moved_writes_nothing(start, tmp_path):
    with DirectoryEngine.open(start) as writer:
        writer.delete([0])
        shutil.rmtree(start)
        with pytest.raises(InputError, match="No such file or directory"):
            writer.delete([1])
        with DirectoryEngine.create(start, DIM, MEMBER_DIM) as other:
            other.add(THIRD)
        with pytest.raises(InputError, match="was changed since it was opened; open it again"):
            writer.delete([1])
        same(everything(start), THIRD)
        with DirectoryEngine.open(start) as second:
            second.delete([THIRD.ids[0]])
            with pytest.raises(InputError, match="Another process is writing"):
                writer.delete([1])
    with DirectoryEngine.open(start) as writer:
        writer.add(some(["more"]))
        kept = writer.ids()
        start.rename(tmp_path / "moved")
        with pytest.raises(InputError, match="Cannot write to"):
            writer.add(some(["late"]))
        assert list(everything(tmp_path / "moved").ids) == kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_was_forked_off_has_no_lock(start):
    with DirectoryEngine.open(start) as writer:
        writer.delete([0])
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                try:
                    writer.delete([1])
                except InputError as error:
                    code = 0 if "Another process is writing" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        writer.delete([2])
    assert everything(start).ids == (1, *range(3, 10))


@pytest.mark.parametrize("times", [1, 5])
def test_an_index_that_changes_while_it_is_opened_is_opened_again(times, start, monkeypatch):
    past, real, calls = manifest.read_manifest(start), manifest.read_manifest, []
    with DirectoryEngine.open(start) as engine:
        engine.delete(list(range(9)))  # the segments that the past names are gone
        engine.add(THIRD)

    def late(folder):
        calls.append(folder)
        return past if len(calls) <= 2 * times and len(calls) % 2 else real(folder)

    monkeypatch.setattr(directory, "read_manifest", late)
    with DirectoryEngine.open(start) as engine:
        assert engine.ids() == [9, *THIRD.ids]
    assert len(calls) == 2 * times + 1
