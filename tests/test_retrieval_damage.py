"""Damaged and tampered indexes are refused in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, files
from tests.indexes import make_full_index, make_index


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
