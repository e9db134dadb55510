"""CIFAR that is missing, damaged or does not fit, and its download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.data import cifar_files, load_dataset
from setrep.data.cifar10 import CIFAR10
from setrep.data.cifar100 import CIFAR100
from tests.cifar_requests import quiet_machine as quiet_machine
from tests.cifar_requests import refusal
from tests.fake_published import (
    FOLDERS,
    IMAGES,
    TEN,
    cifar_values,
    fake_batches,
    fake_cifar,
    folder_files,
)
from tests.fakes import encoded, write_files


def changed(name, change):
    """Return the values of a batch directory, with the changes of one file."""
    return {file: value | change.get(file, {}) for file, value in cifar_values(name).items()}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("cifar10", {"data_batch_2": {"labels": [0]}}, "6 images but 1 labels"),
        ("cifar10", {"data_batch_2": {"labels": None}}, "6 images but 0 labels"),
        ("cifar10", {"data_batch_5": {"labels": [0, 1, 2, 0, 1, 3]}}, "label 3 at position 5"),
        ("cifar10", {"data_batch_5": {"labels": [0, -1, 2, 0, 1, 2]}}, "label -1 at position 1"),
        ("cifar10", {"data_batch_5": {"labels": [0, 1, 2, 0, 1, True]}}, "label True"),
        ("cifar10", {"data_batch_1": {"data": [1, 2]}}, "no images in 'data'"),
        ("cifar10", {"data_batch_1": {"data": np.zeros((6, 7), np.uint8)}}, "found shape (6, 7)"),
        ("cifar10", {"data_batch_1": {"data": np.zeros((6, 9), np.int8)}}, "not of uint8"),
        ("cifar10", {"batches.meta": {"label_names": [1, 2]}}, "no list of names 'label_names'"),
        ("cifar10", {"batches.meta": {"label_names": ["a", "a"]}}, "not all distinct"),
        ("cifar10", {"batches.meta": {"label_names": []}}, "0 names"),
        ("cifar100", {"train": {"fine_labels": [100] * 30}}, "label 100 at position 0"),
        ("cifar100", {"meta": {"fine_label_names": None}}, "no list of names 'fine_label_names'"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(name, change, problem, tmp_path):
    root = tmp_path / "data"
    fake_batches(root / FOLDERS[name], changed(name, change))
    message = refusal(name, root)
    assert problem in message
    assert str(root / FOLDERS[name] / next(iter(change))) in message


def test_a_missing_a_truncated_and_a_hostile_batch_are_named(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar-10-batches-py")
    batch = root / "cifar-10-batches-py/data_batch_3"
    content = batch.read_bytes()
    batch.write_bytes(content[:5000])
    assert f"{batch} is no batch of CIFAR" in refusal("cifar10", root)
    batch.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "it names os.system, which images do not need" in refusal("cifar10", root)
    batch.unlink()
    assert "lacks the file data_batch_3" in refusal("cifar10", root)
    assert len(load_dataset("cifar10", data_root=root, split="test")) == 6


def test_broken_archives_and_other_layouts_are_refused(tmp_path):
    root = tmp_path / "data"
    path = write_files(root / "cifar10.tar.xz", folder_files(IMAGES, TEN))
    path.write_bytes(path.read_bytes()[:-4000])
    assert f"{path} is" in refusal("cifar10", root)
    image = encoded(Image.new("RGB", (32, 32)))
    for name in ("1.png", "train/1.png", "val/cat/1.png", "train/cat/set/1.png"):
        path.unlink()
        write_files(path, {name: image, "train/cat/0.png": image})
        assert "expected train/<class>/* and test/<class>/*" in refusal("cifar10", root)
    path.unlink()
    write_files(path, {"train/cat/0.png": image, "notes.txt": b"", "train/cat/notes.txt": b""})
    assert load_dataset("cifar10", data_root=root).label_names == ("cat",)
    assert "holds no test images of CIFAR-10" in refusal("cifar10", root, split="test")
    assert "directory" in refusal("cifar10", path)


@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100])
def test_without_data_and_network_one_line_says_what_to_put_where(cifar, tmp_path):
    name = cifar.official.name
    (tmp_path / "data").mkdir()
    message = refusal(name, tmp_path / "data")
    assert "no network in tests" in message
    assert f"Put the official {cifar.archive}" in message
    assert f"into {tmp_path / 'data'}, or {name}.tar.xz with train/<class>/*" in message
    message = refusal(name, None)
    assert "into DATA" in message
    assert "--data-root or SETREP_DATA" in message


def test_a_missing_archive_is_downloaded_once(tmp_path, monkeypatch):
    calls = []

    def download(cifar, into):
        calls.append(cifar.archive)
        return fake_batches(into / cifar.archive, cifar_values("cifar100"), top=f"{cifar.folder}/")

    monkeypatch.setattr(cifar_files, "download", download)
    (tmp_path / "data").mkdir()
    for split in ("train", "train", "test"):
        dataset = load_dataset("cifar100", data_root=tmp_path / "data", split=split)
        assert "(original)" in dataset.source_note
    assert calls == ["cifar-100-python.tar.gz"]
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("cifar", "md5"),
    [
        (CIFAR10, "c58f30108f718f92721af3b95e74349a"),
        (CIFAR100, "eb9058c3a382ffc7106e4002c42a8d85"),
    ],
)
def test_torchvision_fetches_the_official_archive_and_checks_its_sum(
    cifar, md5, tmp_path, monkeypatch, capsys
):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.undo()
    asked = []

    def download_url(url, root, filename, md5):
        asked.append((url, md5))
        print("progress")
        Path(root, filename).write_bytes(b"x")

    monkeypatch.setattr(datasets.utils, "download_url", download_url)
    path = cifar_files.download(cifar, tmp_path / "into")
    assert path == tmp_path / "into" / cifar.archive
    assert [file.name for file in path.parent.iterdir()] == [cifar.archive]
    assert asked == [(f"https://www.cs.toronto.edu/~kriz/{cifar.archive}", md5)]
    assert capsys.readouterr().out == ""
    official = datasets.CIFAR10 if cifar is CIFAR10 else datasets.CIFAR100
    files = [name for name, _ in (*official.train_list, *official.test_list)]
    assert files == [*cifar.batches.train, *cifar.batches.test]
    assert official.base_folder == cifar.folder
    assert official.meta["filename"] == cifar.batches.meta
    assert official.meta["key"] == cifar.batches.names_key
