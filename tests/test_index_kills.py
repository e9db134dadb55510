"""A failure at any step of another kind of search, a certificate or `setrep index`.

Every change of a file is a step of its own, of removals and of the halves of a write, too. A step
fails as on a full disk, and what follows goes on; or it is the last, as of a process that is gone.
"""

from __future__ import annotations

import io
import os
import shutil
from contextlib import nullcontext, suppress
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.errors import InputError
from setrep.index import places
from setrep.index.manifest import aside_of, read_manifest
from setrep.reports import indexing
from setrep.retrieval import CollectionIndex, store
from setrep.retrieval.model import read_origin
from tests.indexes import columns, draw_model, everything, index_of
from tests.set_encoders import make_encoder
from tests.test_directory_engine import KilledError

FULL, GONE = OSError(28, "No space left on device"), KilledError()
each_error = pytest.mark.parametrize("error", [FULL, GONE], ids=["full disk", "kill"])


class Torn:
    """A file of which every write is a step; the one that fails writes half."""

    def __init__(self, file, disk, path):
        self.file, self.disk, self.path = file, disk, path

    def write(self, content):
        try:
            self.disk.step(self.path)
        except (OSError, KilledError):
            if self.disk.count == self.disk.fail_at:
                self.file.write(bytes(content)[: len(bytes(content)) // 2])
            raise
        return self.file.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


class Disk:
    """Fails at the n-th change below a directory; after a kill nothing changes."""

    def __init__(self, patch, root, error, fail_at):
        self.root, self.error, self.fail_at, self.count = str(root), error, fail_at, 0
        for name in ("rename", "replace", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, self.stepped(getattr(os, name)))
        patch.setattr(os, "fsync", lambda number: self.step(self.root))
        self.real_open, self.real_rmtree = io.open, shutil.rmtree
        patch.setattr(io, "open", self.open)
        patch.setattr(shutil, "rmtree", self.rmtree)

    def is_here(self, path):
        return isinstance(path, str | Path) and str(path).startswith(self.root)

    def step(self, path):
        if not self.is_here(path):
            return
        self.count += 1
        is_gone = isinstance(self.error, KilledError) and self.count > self.fail_at
        if self.count == self.fail_at or is_gone:
            raise self.error

    def stepped(self, real):
        def act(path, *given, **named):
            self.step(path)
            return real(path, *given, **named)

        return act

    def open(self, path, mode="r", *given, **named):
        if not set(mode) & set("wax+"):
            return self.real_open(path, mode, *given, **named)
        self.step(path)
        file = self.real_open(path, mode, *given, **named)
        return Torn(file, self, path) if "w" in mode and self.is_here(path) else file

    def rmtree(self, path, ignore_errors=False, **options):
        if not self.is_here(path):
            self.real_rmtree(path, ignore_errors, **options)
            return
        with suppress(OSError) if ignore_errors else nullcontext():
            for child in sorted(Path(path).iterdir()):
                with suppress(OSError) if ignore_errors else nullcontext():
                    if child.is_dir():
                        self.rmtree(child, ignore_errors)
                    else:
                        os.unlink(child)
            os.rmdir(path)


def attempt(act, place, error, fail_at):
    """Do something with a failure at a step; say whether it was done and how many steps it took."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, place.parent, error, fail_at)
        try:
            act(place)
        except (InputError, KilledError) as told:
            is_one_line = "\n" not in str(told)
            return (False, disk.count) if is_one_line else (None, -1)
        return True, disk.count


def tries(act, begin, error):
    """Yield each place where `act` failed, at one step after the other, and whether it was done."""
    for fail_at in count(1):
        place = begin(str(fail_at))
        is_done, steps = attempt(act, place, error, fail_at)
        if steps < fail_at:
            assert is_done
            return
        yield place, is_done
        shutil.rmtree(place.parent)


@pytest.fixture(autouse=True, scope="module")
def quick_models():
    """Write and read the files of models once; sync nothing, since no power fails here."""
    written, read = cache(store.to_attachments), cache(indexing.SetEncoder.from_pretrained)
    encoders = {}

    def to_attachments(origin, set_encoder):
        encoders[origin.fingerprint] = set_encoder
        return written(origin, set_encoder)

    def from_attachments(engine, address):
        origin = read_origin(engine, address)
        return origin, encoders[origin.fingerprint]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "to_attachments", to_attachments)
        patch.setattr(store, "from_attachments", from_attachments)
        patch.setattr(indexing.SetEncoder, "from_pretrained", read)
        patch.setattr(os, "fsync", lambda number: None)
        yield


def goes_on(place):
    """Let the next writer change something: it tidies up whatever was left."""
    with CollectionIndex.open(place) as index:
        ids = list(index.ids)
        index.remove(ids[-1])
        assert [one[0] for one in held(index)[0]] == ids[:-1]
        assert index.engine.note is None
    segments = read_manifest(place).segments
    named = {f"{one.name}/{file}" for one in segments for file in one.sha256}
    found = [path for path in (place / "segments").rglob("*") if path.is_file()]
    assert {str(path.relative_to(place / "segments")) for path in found} == named
    assert not list(place.glob(".manifest*"))


MODEL = draw_model(0, 90, is_grid=False, labels=("x", "y"))
GONE_IDS, MORE = list(MODEL)[3:9], draw_model(1, 3, is_grid=False, start=200)
KINDS = {
    "ivf": ("flat", "ivf"),
    "hnsw": ("flat", "hnsw"),
    "pq": ("flat", "pq"),
    "another": ("ivf", "hnsw"),
    "none": ("ivf", "flat"),
}


def held(index):
    """Return all that an index holds, after it has answered queries by what it holds."""
    records = everything(index)[0]
    for name, vector, *_ in records[:: len(records) // 2]:
        found = index.query_vector(np.array(vector), 3, fingerprint=index.fingerprint)
        assert (found[0].id, found[0].score) == (name, 0.0)
    return records, index.engine.note


def held_at(place):
    with CollectionIndex.open(place) as index:
        return held(index), index.engine.kind.kind


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A certified index of two segments, some rows of which are deleted, by each kind."""
    folder = tmp_path_factory.mktemp("start")
    for kind in ("flat", "ivf"):
        index_of(MODEL).save(folder / kind)
        with CollectionIndex.open(folder / kind) as index:
            index.engine.set_kind(kind)
            index.remove(GONE_IDS)
            index.add(*columns(MORE))
            index.certify(max_size=2)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_kill_while_the_kind_is_set_leaves_the_old_kind_or_the_new(name, start, tmp_path):
    old, new = KINDS[name]

    def begin(folder):
        return shutil.copytree(start / old, tmp_path / folder / "index")

    def act(place):
        with CollectionIndex.open(place) as index:
            index.engine.set_kind(new)

    before, kinds = held_at(start / old)[0], []
    for place, is_done in tries(act, begin, GONE):
        found, kind = held_at(place)
        assert found == before  # whatever the kind
        assert kind == new or not is_done
        kinds.append(kind)
        if kind != new:
            act(place)
            assert held_at(place) == (before, new)
        goes_on(place)
        assert held_at(place)[1] == new
    first = kinds.index(new)
    assert kinds == [old] * first + [new] * (len(kinds) - first)
    assert first > 3


@pytest.mark.parametrize("name", KINDS)
def test_an_index_goes_on_by_the_kind_it_has_after_a_failure(name, start, tmp_path):
    old, new = KINDS[name]
    before, kinds = held_at(start / old)[0], []

    def begin(folder):
        return shutil.copytree(start / old, tmp_path / folder / "index")

    def act(place):
        with CollectionIndex.open(place) as index:
            try:
                index.engine.set_kind(new)
            finally:
                kinds.append((index.engine.kind.kind, held_at(place)[1]))
                assert held(index) == held_at(place)[0] == before
                if kinds[-1][0] != new:
                    index.engine.set_kind(new)
                    assert held(index) == before

    for place, is_done in tries(act, begin, FULL):
        inside, on_disk = kinds[-1]
        assert inside == on_disk  # new already if it could only not be forced to disk
        assert inside == new or not is_done
        assert held_at(place) == (before, new)
        goes_on(place)
    assert kinds[0] == (old, old)
    assert kinds[-1] == (new, new)


@each_error
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_a_failure_in_a_certificate_leaves_the_old_one_or_the_new(kind, error, start, tmp_path):
    def begin(folder):
        return shutil.copytree(start / kind, tmp_path / folder / "index")

    def act(place):
        with CollectionIndex.open(place) as index:
            index.certify(max_size=3)

    whole = begin("whole")
    before = held_at(whole)
    act(whole)
    after, seen = held_at(whole), []
    assert before[0][1] != after[0][1]
    for place, is_done in tries(act, begin, error):
        found = held_at(place)
        assert found in (before, after)
        assert found == after or not is_done
        seen.append(found == after)
        act(place)
        assert held_at(place) == after
        goes_on(place)
    assert seen == sorted(seen)
    assert not seen[3]


def test_no_kind_is_set_and_nothing_certified_while_another_writes_or_after(start, tmp_path):
    place = shutil.copytree(start / "flat", tmp_path / "index")
    acts = (lambda index: index.engine.set_kind("ivf"), lambda index: index.certify(max_size=3))
    with CollectionIndex.open(place) as writer, CollectionIndex.open(place) as late:
        writer.remove(list(MORE)[:1])
        expected = held(writer)
        for act in acts:
            with pytest.raises(InputError, match="Another process is writing to"):
                act(late)
        writer.close()
        for act in acts:
            with pytest.raises(InputError, match="changed since it was opened"):
                act(late)
    assert held_at(place) == (expected, "flat")


class Ledger:
    """What was written below an index and is not forced to disk yet, by the numbers of files."""

    def __init__(self, patch, root):
        self.root = str(root)
        self.open_, self.mkdir_, self.replace_ = io.open, os.mkdir, os.replace
        self.pending, self.num_manifests = set(), 0
        patch.setattr(io, "open", self.open)
        patch.setattr(os, "mkdir", self.mkdir)
        patch.setattr(os, "replace", self.replace)
        patch.setattr(os, "fsync", lambda number: self.pending.discard(os.fstat(number).st_ino))

    def open(self, path, mode="r", *given, **named):
        file = self.open_(path, mode, *given, **named)
        if "w" in mode and str(path).startswith(self.root):
            self.pending |= {os.stat(file.fileno()).st_ino, Path(path).parent.stat().st_ino}
        return file

    def mkdir(self, path, *given):
        self.mkdir_(path, *given)
        if str(path).startswith(self.root) and str(Path(path).parent) != self.root:
            self.pending.add(Path(path).parent.stat().st_ino)

    def replace(self, old, new):
        if not str(new).startswith(self.root):
            self.replace_(old, new)
            return
        folder = Path(new).parent.stat().st_ino
        assert self.pending <= {folder}
        self.replace_(old, new)
        self.pending.add(folder)
        self.num_manifests += 1


@pytest.mark.skipif(os.name != "posix", reason="directories are forced to disk on POSIX")
def test_what_a_manifest_names_is_forced_to_disk_before_it_counts(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(patch, tmp_path)
        index_of(MODEL).save(tmp_path / "index")
        assert not ledger.pending
        with CollectionIndex.open(tmp_path / "index") as index:
            for act in (
                lambda: index.add(*columns(MORE)),
                lambda: index.remove(GONE_IDS),
                lambda: index.engine.set_kind("ivf"),
                lambda: index.certify(max_size=2),
            ):
                before = ledger.num_manifests
                act()
                assert (ledger.pending, ledger.num_manifests) == (set(), before + 1)


def write_photos(root, *, collections, seed=0):
    """Write `root/<label>/<collection>/*.png`, as many as is told."""
    generator = np.random.default_rng(seed)
    for name, num_images in collections.items():
        (root / name).mkdir(parents=True)
        for number in range(num_images):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


SHOP = {"l0/c0": 1, "l0/c1": 2, "l1/c0": 2, "l1/c1": 1, "l1/c2": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Photos, a model, an index of the photos as they were, and the photos as they are.

    One collection has a photo more, one is new, and one is gone.
    """
    root = tmp_path_factory.mktemp("shop")
    write_photos(root / "photos", collections=SHOP)
    make_encoder().save_pretrained(root / "run")
    build(root, root / "old")
    shutil.copy(root / "photos" / "l0" / "c1" / "0.png", root / "photos" / "l1" / "c0" / "9.png")
    shutil.rmtree(root / "photos" / "l1" / "c2")
    write_photos(root / "photos", collections={"l0/c7": 1}, seed=1)
    return root


def build(shop, place, **options):
    """Index the photos, each collection embedded by itself, so that the digits are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "ITEMS_AT_ONCE", 1)
        return indexing.build_index(
            shop / "run", shop / "photos", place, labelled=True, device="cpu", **options
        )


def found_at(place):
    """Return all that is at an address, or none."""
    return held_at(place) if places.exists(place) else None


def bytes_of(place):
    """Return the files of an index, also while it lies aside; without the lock, which is empty."""
    place = place if place.exists() else aside_of(place)
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@each_error
def test_a_failure_while_an_index_is_overwritten_leaves_the_old_one_as_it_was(
    error, shop, tmp_path
):
    def begin(folder):
        return shutil.copytree(shop / "old", tmp_path / folder / "index")

    def act(place):
        build(shop, place, overwrite=True, kind="ivf", certify=True)

    before, untouched, whole = found_at(shop / "old"), bytes_of(shop / "old"), begin("whole")
    act(whole)
    after, seen = found_at(whole), []
    for place, is_done in tries(act, begin, error):
        found = found_at(place)
        assert found == after or (not is_done and found == before)
        assert found == after or bytes_of(place) == untouched
        assert place.exists() or error is GONE  # aside only where nobody could move it back
        seen.append(found == after)
        if not is_done:
            act(place)
            assert found_at(place) == after
            assert [path.name for path in place.parent.iterdir()] == ["index"]
    assert seen == sorted(seen)
    assert seen.index(True) > 50


def test_a_second_kill_after_one_between_the_two_moves_leaves_the_old_index_or_the_new(
    shop, tmp_path
):
    def begin(folder):
        return shutil.copytree(shop / "old", tmp_path / folder / "index")

    def act(place):
        build(shop, place, overwrite=True)

    whole = begin("whole")
    act(whole)
    allowed, number = [found_at(shop / "old"), found_at(whole)], 0
    between = next(place for place, _ in tries(act, begin, GONE) if not place.exists())

    def begin_again(folder):
        return shutil.copytree(between.parent, tmp_path / "again" / folder) / "index"

    for place, _ in tries(act, begin_again, GONE):
        number += 1
        assert found_at(place) in allowed
        act(place)
        assert found_at(place) == allowed[1]
        assert [path.name for path in place.parent.iterdir()] == ["index"]
    assert number > 3


def test_a_kill_while_an_index_is_built_leaves_none(shop, tmp_path):
    def begin(folder):
        (tmp_path / folder).mkdir()
        return tmp_path / folder / "index"

    def act(place):
        build(shop, place, overwrite=True)

    whole = begin("whole")
    act(whole)
    after, number = found_at(whole), 0
    for place, is_done in tries(act, begin, GONE):
        number += 1
        there = found_at(place)
        assert there in (None, after)
        assert there == after or not is_done
        act(place)
        assert found_at(place) == after
        assert [path.name for path in place.parent.iterdir()] == ["index"]
        goes_on(place)
    assert number > 30


def test_a_certificate_that_cannot_be_written_is_worked_out_by_the_next_update(shop, tmp_path):
    def act(place):
        build(shop, place, update=True)

    def begin(folder):
        return shutil.copytree(shop / "old", tmp_path / folder / "index")

    whole = begin("whole")
    act(whole)
    after = found_at(whole)
    for place, is_done in tries(act, begin, FULL):
        if not is_done:
            act(place)
        assert found_at(place) == after


@pytest.mark.parametrize(("error", "kind"), [(FULL, None), (GONE, "hnsw")])
def test_a_failure_in_an_update_leaves_each_collection_as_it_was_or_as_it_is(
    error, kind, shop, tmp_path
):
    """An update is several changes: of collections, of the kind and of the certificate."""

    def begin(folder):
        return shutil.copytree(shop / "old", tmp_path / folder / "index")

    def act(place):
        build(shop, place, update=True, kind=kind, certify=True)

    whole = begin("whole")
    act(whole)
    after, num_new = found_at(whole), []
    ((old, old_note), old_kind), ((new, new_note), new_kind) = found_at(shop / "old"), after
    as_was, as_is = ({one[0]: one for one in of} for of in (old, new))
    kept = as_was.keys() & as_is.keys()
    assert (len(old), len(new), len(kept)) == (5, 5, 4)
    for place, is_done in tries(act, begin, error):
        (found, note), kind_now = found_at(place)
        names = {one[0] for one in found}
        assert all(one in (as_was.get(one[0]), as_is.get(one[0])) for one in found)
        assert kept <= names
        assert names >= as_was.keys() or found == new  # what is gone is removed last
        assert note == (old_note if found == old else None) or (found, note) == (new, new_note)
        assert kind_now == old_kind or (found, kind_now) == (new, new_kind)
        num_new.append(sum(one in new for one in found))
        if not is_done:
            act(place)
        assert found_at(place) == after
        assert [path.name for path in place.parent.iterdir()] == ["index"]
        goes_on(place)
    assert num_new == sorted(num_new)
    assert set(num_new) == {3, 4, 5}
