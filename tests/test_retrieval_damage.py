"""Damaged and tampered indexes are refused in one line, or are what they were."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from setrep.errors import InputError
from setrep.index.directory import DirectoryEngine
from setrep.retrieval import CollectionIndex
from tests.indexes import everything, make_encoder, make_full_index, make_index

QUERY = torch.eye(3)


def make_changed_index(place: Path) -> None:
    """Save an index of two segments, of one of which something is deleted, with a certificate."""
    make_full_index().save(place)
    with CollectionIndex.open(place) as index:
        index.add([QUERY, 2 * QUERY, 3 * QUERY], ["c", 4, "d"], ["y", "x", "z"], [{"q": 1}] * 3)
        index.remove(["b", "d"])
        index.certify({"x": 2 * QUERY, "y": QUERY, 3: -QUERY})


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    place = tmp_path_factory.mktemp("damage") / "index"
    make_changed_index(place)
    return place


@pytest.fixture(scope="module")
def whole(start):
    return seen(start)


@pytest.fixture
def place(start, tmp_path):
    shutil.copytree(start, tmp_path / "index")
    return tmp_path / "index"


def use(place: Path):
    """Return all that an index holds and answers."""
    with CollectionIndex.open(place) as index:
        return everything(index), index.query(QUERY, 9), index.query(QUERY, rerank="chamfer")


def seen(place: Path):
    """Return all that an index holds and answers, or none if it is refused in one line."""
    try:
        return use(place)
    except InputError as caught:
        error = str(caught)
    assert "\n" not in error
    assert len(error) < 500, "a long message"
    return None


def files_of(place: Path) -> list[Path]:
    """Return all files but the lock, whose content says nothing."""
    return sorted(path for path in place.rglob("*") if path.is_file() and path.name != "lock")


NAMES = (
    *("manifest.json", "index.json", "model.json", "model.safetensors"),
    *("vectors.npy", "members.npy", "offsets.npy", "rows.json"),
)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_in_one_line(name, place, whole):
    assert {path.name for path in files_of(place)} == set(NAMES)
    assert seen(place) == whole
    for path in files_of(place):
        if path.name != name:
            continue
        content = path.read_bytes()
        for damaged in (content[:-3], content[: len(content) // 2], content[:1], b"", None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(InputError) as caught:
                use(place)
            assert "\n" not in str(caught.value)
            assert str(place) in str(caught.value)
            path.write_bytes(content)
    assert seen(place) == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_changes_no_answer(name, place, whole):
    generator = np.random.default_rng(len(name))
    for path in files_of(place):
        if path.name != name:
            continue
        content = path.read_bytes()
        spots = generator.integers(0, len(content), 200 if name == "manifest.json" else 12)
        for spot in {0, len(content) - 1, *spots.tolist()}:
            bit = 1 << int(generator.integers(8))
            path.write_bytes(content[:spot] + bytes([content[spot] ^ bit]) + content[spot + 1 :])
            assert seen(place) in (None, whole), (spot, content[spot - 20 : spot + 20])
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["attachments", "segments", "index"])
def test_a_directory_that_is_gone_is_refused(name, place):
    shutil.rmtree(place if name == "index" else place / name)
    assert seen(place) is None
    place.mkdir(exist_ok=True)
    (place / name).write_text("")
    assert seen(place) is None


def test_a_lost_lock_is_no_damage(place, whole):
    (place / "lock").unlink()
    assert seen(place) == whole
    with CollectionIndex.open(place) as index:
        index.remove("a")


def change_manifest(directory: Path, **changes: object) -> None:
    """Change fields of the manifest, or take away those that are to be `...`, and its checksum."""
    path = directory / "manifest.json"
    content = {**json.loads(path.read_text()), **changes}
    content = {name: of for name, of in content.items() if of is not ... and name != "sha256"}
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": sha256}))


ODD = (
    None,
    ...,
    True,
    -1,
    0,
    4,
    2.5,
    10**30,
    "",
    "other",
    "x" * 100_000,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
)


@pytest.mark.parametrize(
    "field",
    ["format", "schema", "dim", "member_dim", "metric", "attachments", "segments", "note"],
)
def test_fields_of_the_manifest_may_hold_anything(field, place, whole):
    kept = (place / "manifest.json").read_bytes()
    fine = {"note": (None,)}.get(field, ())
    for value in ODD:
        change_manifest(place, **{field: value})
        found = seen(place)
        if value in fine:
            assert found is not None
        elif field == "segments" and value in ([], {}, ""):
            pass  # an index of nothing
        else:
            assert found in (None, whole), value
            assert found is None
        (place / "manifest.json").write_bytes(kept)
    change_manifest(place, more={"x": 1}, setrep_version=7)
    assert seen(place) in (None, whole)


@pytest.mark.parametrize("field", ["name", "sha256", "deleted", "kind"])
def test_fields_of_a_segment_may_hold_anything(field, place):
    segments = json.loads((place / "manifest.json").read_text())["segments"]
    for value in (
        *ODD,
        "..",
        "../..",
        [-1],
        [99],
        ["x"],
        [True],
        [10**30],
        [0, 0],
        {"rows.json": ""},
        {"kind": "ivf", "recall_at_10": 1.0, "parameters": {"nprobe": 1, "nlist": 1}},
    ):
        changed = {name: of for name, of in {**segments[0], field: value}.items() if of is not ...}
        change_manifest(place, segments=[changed, *segments[1:]])
        found = seen(place)
        is_readable = field == "deleted" and (value in ([], {}, "", [1], [0, 0], [True]))
        assert found is None or is_readable, value
    change_manifest(place, segments=[segments[0], segments[0], *segments[1:]])
    assert seen(place) is None


def replace_attachment(place: Path, name: str, content: bytes) -> None:
    """Change a file of an index, and its checksum, too."""
    (place / "attachments" / name).write_bytes(content)
    kept = json.loads((place / "manifest.json").read_text())["attachments"]
    change_manifest(place, attachments={**kept, name: hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "is of another schema than 1"),
        ({"schema": "1"}, "is of another schema than 1"),
        ({"schema": ...}, "is damaged"),
        ({"setrep_version": ...}, "is damaged"),
        ({"fingerprint": 5}, "is damaged"),
        ({"root": ["/"]}, "is damaged"),
        ({"encoder_fingerprint": True}, "is damaged"),
        ({"more": None}, "is damaged"),
        ({"encoder_fingerprint": "f" * 64}, "names another model"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(changes, message, place):
    content = json.loads((place / "attachments" / "index.json").read_text())
    content = {name: of for name, of in {**content, **changes}.items() if of is not ...}
    replace_attachment(place, "index.json", json.dumps(content).encode())
    with pytest.raises(InputError, match=message) as caught:
        CollectionIndex.open(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["index.json", "model.json", "model.safetensors"])
def test_attachments_tampered_with_are_refused_also_where_the_checksum_is_right(
    name, content, place
):
    replace_attachment(place, name, content)
    with pytest.raises(InputError) as caught:
        CollectionIndex.open(place)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_dimension_is_refused(place, tmp_path):
    from setrep.set_encoder import vector_set_encoder

    other = vector_set_encoder(5)
    other.save_pretrained(tmp_path / "model")
    for name in ("model.json", "model.safetensors"):
        replace_attachment(place, name, (tmp_path / "model" / name).read_bytes())
    content = json.loads((place / "attachments" / "index.json").read_text())
    content |= {"encoder_fingerprint": other.fingerprint, "fingerprint": other.fingerprint}
    replace_attachment(place, "index.json", json.dumps(content).encode())
    with pytest.raises(InputError, match="names another model than the index holds"):
        CollectionIndex.open(place)


def replace_file(place: Path, name: str, content: bytes) -> None:
    """Change a file of the first segment, and its checksum, too."""
    segments = json.loads((place / "manifest.json").read_text())["segments"]
    (place / "segments" / segments[0]["name"] / name).write_bytes(content)
    segments[0]["sha256"][name] = hashlib.sha256(content).hexdigest()
    change_manifest(place, segments=segments)


def as_npy(array: np.ndarray, **savez: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, array) if savez else np.save(file, array)
    return file.getvalue()


def rows(**changes: object) -> bytes:
    """Return ids and payloads of the three collections of `make_full_index`, changed."""
    payloads = [{"label": label} for label in ("x", "y", None)]
    return json.dumps({"ids": ["a", "b", 3], "payloads": payloads, **changes}).encode()


TAMPERED = {
    "a deep table": ("rows.json", b"[" * 100_000),
    "a table that is a list": ("rows.json", b"[1]"),
    "a table without ids": ("rows.json", b'{"payloads": []}'),
    "a table of numbers": ("rows.json", rows(ids=3)),
    "an id twice": ("rows.json", rows(ids=["a", "a", "b"])),
    "an id that is another segment's": ("rows.json", rows(ids=["c", "b", 3])),
    "an id that is no name": ("rows.json", rows(ids=["a", "b", True])),
    "too few ids": ("rows.json", rows(ids=["a", "b"])),
    "too few payloads": ("rows.json", rows(payloads=[{"label": "x"}] * 2)),
    "payloads that are none": ("rows.json", rows(payloads=["x", 3, None])),
    "payloads without a label": ("rows.json", rows(payloads=[{}] * 3)),
    "labels that are none": ("rows.json", rows(payloads=[{"label": [1]}] * 3)),
    "sources that are none": ("rows.json", rows(payloads=[{"label": "x", "sources": 3}] * 3)),
    "no array": ("vectors.npy", b""),
    "a header of Python 2, cut": ("vectors.npy", b"\x93NUMPY\x01\x00\x04\x00{(3L"),
    "an archive of arrays": ("vectors.npy", as_npy(np.zeros((3, 3)), x=np.eye(1))),
    "NaN": ("vectors.npy", as_npy(np.full((3, 3), np.nan, np.float32))),
    "huge values": ("vectors.npy", as_npy(np.full((3, 3), -1e38, np.float32))),
    "another dimension": ("vectors.npy", as_npy(np.zeros((3, 4), np.float32))),
    "other numbers": ("vectors.npy", as_npy(np.zeros((3, 3), np.complex64))),
    "text": ("vectors.npy", as_npy(np.full((3, 3), "x"))),
    "pickled vectors": ("vectors.npy", as_npy(np.full((3, 3), None))),
    "one axis": ("members.npy", as_npy(np.zeros(9, np.float32))),
    "members that are NaN": ("members.npy", as_npy(np.full((9, 3), np.nan, np.float32))),
    "members of other numbers": ("members.npy", as_npy(np.zeros((9, 3)))),
    "too few sources": ("rows.json", rows(payloads=[{"label": "x", "sources": ["a"]}] * 3)),
    "fewer members": ("members.npy", as_npy(np.zeros((8, 3), np.float32))),
    "offsets that fall": ("offsets.npy", as_npy(np.array([0, 5, 2, 9]))),
    "offsets below zero": ("offsets.npy", as_npy(np.array([0, -2, 5, 9]))),
    "offsets of two axes": ("offsets.npy", as_npy(np.array([[0, 2, 5, 9]]))),
    "broken offsets": ("offsets.npy", as_npy(np.array([0, 2.5, 5, 9]))),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_files_tampered_with_are_refused_also_where_the_checksum_is_right(name, place):
    replace_file(place, *TAMPERED[name])
    assert seen(place) is None


def test_an_index_of_another_kind_is_refused(tmp_path):
    DirectoryEngine.create(tmp_path / "index", 3, 3).close()
    with pytest.raises(InputError, match="holds no index of collections") as caught:
        CollectionIndex.open(tmp_path / "index")
    assert "\n" not in str(caught.value)
    make_encoder().save_pretrained(tmp_path / "model")
    for place in (tmp_path / "model", tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="There is no index at"):
            CollectionIndex.open(place)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is damaged or of something else"):
        CollectionIndex.open(tmp_path)
    make_index().save(tmp_path / "whole")
    assert len(CollectionIndex.open(tmp_path / "whole")) == 6
