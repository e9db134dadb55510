"""STL-10, mapped from its binary files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from setrep.data import load_dataset, read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fake_published import random_images, stl10_files
from tests.fakes import write_files

IMAGES = {"train": random_images(12, 96, seed=1), "test": random_images(6, 96, seed=2)}
CLASSES = ("airplane", "bird", "car")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SETREP_DATA", raising=False)


@pytest.fixture
def root(tmp_path):
    write_files(tmp_path / "data/stl10_binary", stl10_files(IMAGES, CLASSES))
    return tmp_path / "data"


def refusal(root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset("stl10", data_root=root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("split", ["train", "test"])
def test_columns_become_rows_and_labels_count_from_zero(split, root):
    dataset = load_dataset("stl10", data_root=root, split=split)
    np.testing.assert_array_equal(dataset.items, IMAGES[split])
    np.testing.assert_array_equal(dataset.labels, np.arange(len(dataset)) % 3)
    assert dataset.label_names == CLASSES
    assert dataset.item_format == ItemFormat("image", 3, 96)
    np.testing.assert_array_equal(dataset.gather([4, 1]).numpy(), IMAGES[split][[4, 1]])


def test_the_whole_split_stays_on_the_disk(root):
    base = load_dataset("stl10", data_root=root).items
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert base.mode == "r"


def test_torchvision_reads_the_fake_alike(root, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    theirs = datasets.STL10(root, split="train")
    ours = load_dataset("stl10", data_root=root)
    np.testing.assert_array_equal(ours.items, theirs.data)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert list(ours.label_names) == theirs.classes


def test_another_size_is_scaled_as_pictures_are(root):
    dataset = load_dataset("stl10", data_root=root, image_size=32)
    assert dataset.items.shape == (12, 3, 32, 32)
    picture = Image.fromarray(np.ascontiguousarray(IMAGES["train"][5].transpose(1, 2, 0)))
    np.testing.assert_array_equal(dataset.items[5], read_image(picture, dataset.item_format))


def test_splits_and_notes(root):
    start = "STL-10 (original), 3 of 10 classes, "
    assert load_dataset("stl10", data_root=root).source_note == (
        f"{start}12 of 5000 training images"
    )
    asked = {"data_root": root, "num_validation_items": 1, "split_seed": 3}
    held = load_dataset("stl10", **asked, split="validation")
    assert held.source_note == f"{start}3 of 5000 training images (validation: 1 of each class)"
    train = load_dataset("stl10", **asked)
    pixels = {item.tobytes() for items in (train.items, held.items) for item in items}
    assert len(pixels) == len(train) + len(held) == 12
    test = load_dataset("stl10", **asked, split="test")
    assert test.source_note == f"{start}6 of 8000 test images"


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("train_X.bin", lambda content: content[:-1], "cut short"),
        ("train_X.bin", lambda content: b"", "its 0 bytes are not whole images of 27648"),
        ("train_X.bin", lambda content: content[:-27648], "has 12 labels for 11 images"),
        ("train_X.bin", None, "No such file"),
        ("train_y.bin", lambda content: content[:-1], "has 11 labels for 12 images"),
        ("train_y.bin", lambda content: bytes([*content[:-1], 4]), "label 4 at position 11"),
        ("train_y.bin", lambda content: bytes([0, *content[1:]]), "label 0 at position 0"),
        ("train_y.bin", None, "No such file"),
        ("class_names.txt", lambda content: b"", "0 class names"),
        ("class_names.txt", lambda content: b"a a b", "not all distinct"),
        ("class_names.txt", None, "No such file"),
    ],
)
def test_files_that_do_not_fit_are_refused(name, change, problem, root):
    path = root / "stl10_binary" / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    message = refusal(root)
    assert problem in message
    assert str(path.parent) in message


def test_without_data_one_line_says_what_to_put_where(tmp_path):
    (tmp_path / "data").mkdir()
    message = refusal(tmp_path / "data")
    assert (
        f"Unpack the official stl10_binary.tar.gz to {tmp_path / 'data'}/stl10_binary/" in message
    )
    assert "--data-root or SETREP_DATA" in refusal(None)
    assert "Known: full" in refusal(tmp_path / "data", subset="unlabelled")
