"""Vectors of one's own: what an `.npz` must hold, and how its labels are parted."""

from __future__ import annotations

import io
import json
import warnings
import zipfile

import numpy as np
import pytest

from setrep.data import load_dataset
from setrep.errors import InputError

SPLITS = ("train", "validation", "test")


def refusal(path, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset("vectors", data_root=path, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def write_vectors(path, **changed):
    """Write 40 vectors of 8 labels with 2 keys each; `None` leaves an array out."""
    values = np.random.default_rng(0).normal(size=(40, 3))
    arrays = {"values": values, "labels": np.arange(40) // 5, "keys": np.arange(40) // 5 * 2}
    arrays["keys"][::2] += 1
    arrays |= changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def load_vectors(path, **named):
    return load_dataset("vectors", data_root=path, **named)


def test_vectors_are_read_with_their_labels_and_keys(tmp_path):
    path = write_vectors(tmp_path / "points.npz")
    values = np.load(path)["values"].astype(np.float32)
    parts = [
        load_vectors(path, split=split, num_validation_groups=2, collection_level="key")
        for split in SPLITS
    ]
    assert [len(part.label_names) for part in parts] == [4, 2, 2]
    for part in parts:
        assert part.item_format.kind == "vector"
        assert part.items.dtype == np.float32
        assert len(part.key_names) == 2 * len(part.label_names)
        for item, label, key in zip(part.items, part.labels, part.keys, strict=True):
            (row,) = np.flatnonzero((values == item).all(axis=1))
            assert part.label_names[label] == str(row // 5)
            assert part.key_names[key] == str(row // 5 * 2 + (row % 2 == 0))
    assert sum(map(len, parts)) == 40
    assert parts[0].source_note == "points.npz, 4 of 8 labels, 20 vectors"


def test_vectors_need_no_keys_unless_they_are_asked_for(tmp_path):
    path = write_vectors(tmp_path / "points.npz", keys=None, labels=np.array([*"aabb"] * 10))
    dataset = load_vectors(path)
    assert dataset.keys is None
    assert dataset.label_names in (("a",), ("b",))
    assert "no array 'keys'" in refusal(path, collection_level="key")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"values": None}, "has no array 'values'; found labels, keys"),
        ({"labels": None}, "has no array 'labels'"),
        ({"values": np.zeros((0, 3)), "labels": np.zeros(0, int)}, "not float64 (0, 3)"),
        ({"values": np.zeros((40, 0))}, "not float64 (40, 0)"),
        ({"values": np.zeros(40)}, "not float64 (40,)"),
        ({"values": np.zeros((40, 3), dtype=int)}, "must be floats"),
        ({"values": np.zeros((40, 3), dtype=complex)}, "must be floats"),
        ({"labels": np.zeros(39, int)}, "labels must be 40 whole numbers or strings"),
        ({"labels": np.zeros(40)}, "labels must be 40 whole numbers or strings"),
        ({"labels": np.zeros((40, 1), int)}, "not int64 (40, 1)"),
        ({"keys": np.zeros(4, int)}, "keys must be 40 whole numbers or strings"),
        ({"keys": np.zeros(40, int)}, "the key '0' has the labels"),
        ({"labels": np.zeros(40, int)}, "at least 2 labels; found 1: 0"),
        ({"labels": np.array([*"ab"] * 20, dtype=object)}, "is not an .npz of plain arrays"),
    ],
)
def test_wrong_arrays_are_refused(changed, problem, tmp_path):
    path = write_vectors(tmp_path / "points.npz", **changed)
    assert problem in refusal(path, collection_level="key")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_vector_that_is_not_finite_is_named_by_its_row(bad, tmp_path):
    values = np.zeros((40, 3))
    values[[17, 30], 1] = bad
    path = write_vectors(tmp_path / "points.npz", values=values)
    message = refusal(path)
    assert "row 17 of values is not finite in float32 (2 such rows)" in message


def test_a_file_that_is_no_npz_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("SETREP_DATA", raising=False)
    np.save(tmp_path / "one.npy", np.zeros((4, 3)))
    write_vectors(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    (tmp_path / "text.npz").write_text(json.dumps({"values": []}))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "directory.npz").mkdir()
    for name in ("one.npy", "cut.npz", "text.npz", "empty.npz", "directory.npz"):
        message = refusal(tmp_path / name)
        assert f"{name} is not an .npz of plain arrays" in message
    assert "--data-root FILE.npz" in refusal(None)


def test_pickled_arrays_are_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (warnings.warn, ("a pickle was loaded",))

    traps = np.array([Trap()] * 40, dtype=object)
    path = write_vectors(tmp_path / "points.npz", labels=traps)
    assert "is not an .npz of plain arrays" in refusal(path)


def write_members(path, compression=zipfile.ZIP_DEFLATED, **contents):
    """Write an `.npz` of the arrays of `write_vectors`, some members replaced by these bytes."""
    write_vectors(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {f"{name}.npy": content for name, content in contents.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape, dtype="<f4", content=b""):
    """Return a file of one array that claims this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + content


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("was read"))
    path = write_members(tmp_path / "b.npz", values=npy((40, 200_000), content=bytes(32_000_000)))
    assert "its member 'values.npy' would unpack" in refusal(path)
    path = write_members(tmp_path / "b.npz", other=bytes(32_000_000))
    assert "its member 'other.npy' would unpack" in refusal(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"values": npy((40, 10**12))},
        {"values": npy((40, 3), content=bytes(479))},
        {"values": npy((40, 3), content=bytes(481))},
        {"values": npy((-40, -3), content=bytes(480))},
        {"labels": npy((40,), "<U500000000")},
        {"labels": npy((40,), "<i8", bytes(319))},
        {"labels": npy((40,), "|O", bytes(320))},
        {"values": b"\x93NUMPY\x03\x00"},
        {"values": b"\x93NUMPY\x01\x00\x04\x00{(3L"},
        {"values": b""},
    ],
)
def test_an_array_that_claims_more_than_it_has_is_refused_unread(changed, tmp_path, monkeypatch):
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("was read"))
    path = write_members(tmp_path / "points.npz", **changed)
    assert "is not an .npz of plain arrays" in refusal(path)


def test_labels_of_no_bytes_are_refused_by_their_number(tmp_path):
    path = write_members(tmp_path / "points.npz", labels=npy((10**12,), "<U0"))
    assert "labels must be 40 whole numbers or strings" in refusal(path)


def test_values_in_the_order_of_fortran_and_of_other_widths_are_the_same(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float16)
    expected = load_vectors(write_vectors(tmp_path / "a.npz", values=values.astype(np.float32)))
    for number, form in enumerate([values, np.asfortranarray(values), values.astype(">f8")]):
        found = load_vectors(write_vectors(tmp_path / f"{number}.npz", values=form))
        assert found.items.dtype == np.float32
        assert np.array_equal(found.items, expected.items)
