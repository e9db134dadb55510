from __future__ import annotations

import io
import json
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

from setrep.aggregators import CentroidAggregator
from setrep.config import EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, Match, files
from setrep.set_encoder import SetEncoder

VECTOR = ItemFormat("vector", 3, 1)


def make_encoder(scale: float = 1.0, name: str = "identity") -> SetEncoder:
    config = EncoderConfig(name=name, projection="linear", projection_dim=3, normalize=False)
    encoder = build_encoder(config, VECTOR)
    with torch.no_grad():
        encoder.projection.weight.copy_(scale * torch.eye(3))
        encoder.projection.bias.zero_()
    return SetEncoder(
        encoder,
        CentroidAggregator(3),
        item_format=VECTOR,
        encoder_config=config,
        aggregator_name="centroid",
    )


def make_index(seed: int = 0, count: int = 6, dim: int = 3) -> CollectionIndex:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    metadata = [{"seed": seed, "place": place} for place in range(count)]
    return CollectionIndex.from_embeddings(
        vectors, [f"id {i}" for i in range(count)], list(range(count)), metadata
    )


def make_full_index(scale: float = 1.0) -> CollectionIndex:
    collections = [torch.eye(3)[:2], 5 + torch.eye(3), torch.full((4, 3), -3.0)]
    return CollectionIndex.build(make_encoder(scale), collections, ["a", "b", 3], ["x", "y", None])


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
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_a_query_equals_brute_force(count, dim, k, exponent, is_lattice, seed):
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
    assert index.query_vector(torch.tensor([1.0, 0.0])) == [
        Match(7, 0.0, "cat", {"path": ["a", "b"]}),
        Match(9, -2.0, "dog", None),
    ]
    assert type(index.ids[0]) is int
    assert repr(index) == "CollectionIndex(2 collections of dimension 2)"


def test_a_collection_of_items_finds_its_neighbours():
    index = make_full_index()
    assert index.query(torch.zeros(2, 3), k=2)[0].id == "a"
    assert index.query([torch.full((3,), 5.0), np.full(3, 6.0)])[0] == Match(
        "b", pytest.approx(-((5.5 - 16 / 3) ** 2) * 3, rel=1e-4), "y", None
    )
    one_item = index.query(torch.full((3,), -3.0), k=1)
    assert one_item == [Match(3, 0.0, None, None)]


def test_an_index_finds_its_own_collections_first():
    generator = torch.Generator().manual_seed(0)
    collections = [torch.randn(size, 3, generator=generator) for size in (1, 4, 2, 7)]
    index = CollectionIndex.build(make_encoder(), collections, range(4))
    for place, collection in enumerate(collections):
        best = index.query(collection, k=1)[0]
        assert (best.id, best.score) == (place, pytest.approx(0, abs=1e-6))


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


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "emptied"])
@pytest.mark.parametrize(
    "name",
    [
        *("manifest.json", "embeddings.npy", "collections.json"),
        *("encoder/model.json", "encoder/model.safetensors"),
    ],
)
def test_damaged_files_are_refused_in_one_line(name, damage, tmp_path):
    make_full_index().save(tmp_path / "index")
    path = tmp_path / "index" / name
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "truncated":
        path.write_bytes(content[:-3])
    elif damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        CollectionIndex.open(tmp_path / "index")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "index") in str(caught.value)


def change_manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"format": "other"}, "not an index"),
        ({"fingerprint": "f" * 64}, "another model"),
        ({"dim": 4}, "does not fit"),
        ({"num_collections": 2}, "does not fit"),
        ({"sha256": {}}, "is damaged"),
        ({"has_encoder": "yes", "sha256": None}, "is damaged"),
        ({"has_encoder": False, "fingerprint": 5}, "fingerprint that is no text"),
        ({"schema": "x" * 100_000}, "schema 'x{1,30}\\."),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(changes, message, tmp_path):
    make_full_index().save(tmp_path)
    change_manifest(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        CollectionIndex.open(tmp_path)


def replace_file(directory: Path, name: str, content: bytes) -> None:
    """Change a file of an index, and its checksum, too."""
    (directory / name).write_bytes(content)
    checksums = json.loads((directory / "manifest.json").read_text())["sha256"]
    change_manifest(directory, sha256={**checksums, name: files.digest(directory / name)})


def as_npy(array: np.ndarray, **savez: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, array) if savez else np.save(file, array)
    return file.getvalue()


TAMPERED = {
    "a deep table": ("collections.json", b"[" * 100_000, "is damaged"),
    "a table that is a list": ("collections.json", b"[1]", "is damaged"),
    "a table without ids": ("collections.json", b'{"labels": [], "metadata": []}', "is damaged"),
    "a table of numbers": (
        "collections.json",
        b'{"ids": 3, "labels": 3, "metadata": 3}',
        "no lists",
    ),
    "no array": ("embeddings.npy", b"", "is damaged"),
    "half a zip": ("embeddings.npy", b"PK\x03\x04 cut", "is damaged"),
    "a header of Python 2, cut": (
        "embeddings.npy",
        b"\x93NUMPY\x01\x00\x04\x00{(3L",
        "is damaged",
    ),
    "an archive of arrays": ("embeddings.npy", as_npy(np.zeros((3, 3)), x=np.eye(1)), "is damaged"),
    "NaN": ("embeddings.npy", as_npy(np.full((3, 3), np.nan, np.float32)), "NaN or huge"),
    "huge values": ("embeddings.npy", as_npy(np.full((3, 3), -1e38, np.float32)), "NaN or huge"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_files_tampered_with_are_refused_also_where_the_checksum_is_right(name, tmp_path):
    file, content, message = TAMPERED[name]
    make_full_index().save(tmp_path)
    replace_file(tmp_path, file, content)
    with pytest.raises(InputError, match=message) as caught:
        CollectionIndex.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_index_of_nothing_is_refused(tmp_path):
    make_index().save(tmp_path)
    replace_file(tmp_path, "embeddings.npy", as_npy(np.zeros((0, 3), np.float32)))
    replace_file(tmp_path, "collections.json", b'{"ids": [], "labels": [], "metadata": []}')
    change_manifest(tmp_path, num_collections=0)
    with pytest.raises(InputError, match="does not fit"):
        CollectionIndex.open(tmp_path)


def test_a_deep_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not an index"):
        CollectionIndex.open(tmp_path)


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


def test_a_missing_index_is_said_so(tmp_path):
    with pytest.raises(InputError, match="There is no index at"):
        CollectionIndex.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not an index"):
        CollectionIndex.open(tmp_path)


def test_pickled_vectors_are_never_loaded(tmp_path):
    make_index().save(tmp_path)
    np.save(tmp_path / "embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["sha256"]["embeddings.npy"] = files.digest(tmp_path / "embeddings.npy")
    change_manifest(tmp_path, **manifest)
    with pytest.raises(InputError, match="is damaged"):
        CollectionIndex.open(tmp_path)


def test_an_index_of_bare_vectors_takes_vectors_only():
    with pytest.raises(InputError, match="built from bare vectors"):
        make_index().query(torch.zeros(2, 3))


def test_vectors_of_another_model_or_dimension_are_refused():
    known = CollectionIndex.from_embeddings(np.eye(2), ["a", "b"], fingerprint="one")
    assert known.query_vector([1, 0], 1, fingerprint="one")[0].id == "a"
    for fingerprint in ("two", None):
        with pytest.raises(InputError, match=f"of model {fingerprint}.*model one"):
            known.query_vector([1, 0], fingerprint=fingerprint)
    with pytest.raises(InputError, match=r"of model one.*model None"):
        make_index().query_vector([1, 0, 0], fingerprint="one")
    for vector in ([1.0, 0.0], [[1.0, 0.0, 0.0]], 1.0):
        with pytest.raises(InputError, match="one vector of dimension 3"):
            make_index().query_vector(vector)
    with pytest.raises(InputError, match="NaN"):
        make_index().query_vector([1.0, np.nan, 0.0])
    for k in (0, -1):
        with pytest.raises(InputError, match="k must be at least 1"):
            make_index().query_vector(np.zeros(3), k)


def test_a_set_encoder_that_changed_since_is_refused(tmp_path):
    index = make_full_index()
    with torch.no_grad():
        index.set_encoder.encoder.projection.bias.add_(1)
    with pytest.raises(InputError, match="has changed"):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


BAD_INDEXES = {
    "no vectors": (np.zeros((0, 3)), [], {}, "at least one"),
    "one axis": (np.zeros(3), ["a", "b", "c"], {}, "shape"),
    "NaN": ([[np.nan]], ["a"], {}, "NaN"),
    "too large": ([[1e20]], ["a"], {}, "beyond"),
    "text": ([["x"]], ["a"], {}, "real numbers"),
    "too few ids": ([[1.0], [2.0]], ["a"], {}, "2 collections, but 1 ids"),
    "too many labels": ([[1.0]], ["a"], {"labels": [1, 2]}, "1 collections, but 2 labels"),
    "repeated ids": ([[1.0], [2.0]], ["a", "a"], {}, "'a' is given twice"),
    "an id of another type": ([[1.0]], [1.5], {}, "An id must be a string or an integer"),
    "a boolean id": ([[1.0]], [True], {}, "An id must be"),
    "a label of another type": ([[1.0]], ["a"], {"labels": [[1]]}, "A label must be"),
    "metadata of another type": ([[1.0]], ["a"], {"metadata": ["x"]}, "must be a dict"),
    "metadata that are not JSON": ([[1.0]], ["a"], {"metadata": [{"x": {1}}]}, "must be JSON"),
    "metadata with NaN": ([[1.0]], ["a"], {"metadata": [{"x": np.nan}]}, "must be JSON"),
    "metadata without an end": (
        [[1.0]],
        ["a"],
        {"metadata": [{"x": nested(5000)}]},
        "must be JSON",
    ),
}


@pytest.mark.parametrize("name", BAD_INDEXES)
def test_what_cannot_be_indexed_is_refused_in_one_line(name):
    vectors, names, options, message = BAD_INDEXES[name]
    with pytest.raises(InputError, match=message) as caught:
        CollectionIndex.from_embeddings(vectors, names, **options)
    assert "\n" not in str(caught.value)
