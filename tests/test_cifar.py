"""CIFAR-10 and CIFAR-100, from image files, from pickled batches, and from the network."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from setrep.data import load_dataset, read_image
from setrep.data.cifar100_superclasses import FILE, SUPERCLASSES
from setrep.item_format import ItemFormat
from tests.cifar_requests import quiet_machine as quiet_machine
from tests.cifar_requests import refusal
from tests.fake_published import (
    HUNDRED,
    IMAGES,
    TEN,
    fake_cifar,
    folder_files,
    python2_pickle,
)
from tests.fakes import encoded, write_files

LAYOUTS = [
    ("cifar10", "cifar10.tar.xz"),
    ("cifar10", "cifar10"),
    ("cifar10", "cifar-10-batches-py"),
    ("cifar10", "cifar-10-python.tar.gz"),
    ("cifar100", "cifar100.tar.xz"),
    ("cifar100", "cifar100"),
    ("cifar100", "cifar-100-python"),
    ("cifar100", "cifar-100-python.tar.gz"),
]


def contents(dataset):
    """Return each image with the name of its label, in no order."""
    names = [dataset.label_names[label] for label in dataset.labels]
    return Counter(zip((item.tobytes() for item in dataset.items), names, strict=True))


# The layouts.


@pytest.mark.parametrize(("name", "place"), LAYOUTS)
def test_every_layout_gives_the_same_images_and_labels(name, place, tmp_path):
    root = fake_cifar(tmp_path / "data", name, place)
    classes = TEN if name == "cifar10" else HUNDRED
    for split, images in IMAGES.items():
        dataset = load_dataset(name, data_root=root, split=split)
        expected = Counter((item.tobytes(), classes[row % 3]) for row, item in enumerate(images))
        assert contents(dataset) == expected
        assert dataset.label_names == classes
        assert dataset.item_format == ItemFormat("image", 3, 32)
        assert dataset.items.dtype == np.uint8
        assert dataset.keys is None


@pytest.mark.parametrize("place", ["cifar10", "cifar-10-batches-py"])
def test_images_are_scaled_where_another_size_is_asked(place, tmp_path):
    dataset = load_dataset(
        "cifar10", data_root=fake_cifar(tmp_path / "data", "cifar10", place), image_size=20
    )
    assert dataset.items.shape == (30, 3, 20, 20)
    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in IMAGES["train"]]
    expected = {read_image(p, dataset.item_format).tobytes() for p in pictures}
    assert {item.tobytes() for item in dataset.items} == expected


def test_the_first_place_counts_and_image_files_come_before_batches(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar-10-batches-py")
    assert "(original)" in load_dataset("cifar10", data_root=root).source_note
    fake_cifar(root, "cifar10", "cifar10")
    assert "(PNG)" in load_dataset("cifar10", data_root=root).source_note


def test_nothing_is_written_to_the_data_root(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar10")
    fake_cifar(root, "cifar100", "cifar-100-python.tar.gz")

    def state():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = state()
    load_dataset("cifar10", data_root=root)
    load_dataset("cifar100", data_root=root, label_level="coarse")
    assert state() == before


# The source note.


def test_the_source_note_counts_and_names_the_encoding(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar-10-batches-py")

    def note(**named):
        return load_dataset("cifar10", data_root=root, **named).source_note

    start = "CIFAR-10 (original), 3 of 10 classes, "
    assert note() == f"{start}30 of 50000 training images"
    assert note(split="test") == f"{start}6 of 10000 test images"
    kept = note(num_train_items=6, split_seed=4)
    assert kept == f"{start}6 of 50000 training images (of each class in proportion, split_seed 4)"
    held = note(split="validation", num_validation_items=2)
    assert held == f"{start}6 of 50000 training images (validation: 2 of each class)"
    held = note(split="validation", validation_groups=["bird"])
    assert held == f"{start}10 of 50000 training images (validation: bird)"


def test_jpeg_files_are_named_with_their_quality_and_broken_ones_counted(tmp_path):
    files = {
        name.replace(".png", ".jpg"): encoded(Image.new("RGB", (32, 32), (9, 200, 30)), "JPEG")
        for name in folder_files(IMAGES, TEN)
    }
    broken = sorted(files)[-1]
    files[broken] = files[broken][:100]
    root = tmp_path / "data"
    write_files(root / "cifar10", files)
    assert f"{root / 'cifar10' / broken}: not a whole image" in refusal("cifar10", root)
    note = load_dataset("cifar10", data_root=root, on_bad_image="skip").source_note
    assert note == (
        "CIFAR-10 (JPEG q75), 3 of 10 classes, 29 of 50000 training images; "
        "1 unreadable images skipped"
    )
    assert "q75" in load_dataset("cifar10", data_root=root, split="test").source_note


# Splits.


@pytest.mark.parametrize("place", ["cifar100.tar.xz", "cifar-100-python"])
def test_train_and_validation_share_no_image_and_test_stays(place, tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar100", place)
    asked = {"data_root": root, "num_validation_items": 3, "split_seed": 1}
    train = load_dataset("cifar100", **asked, num_train_items=12)
    held = load_dataset("cifar100", **asked, split="validation")
    assert (np.bincount(train.labels) == 4).all()
    assert (np.bincount(held.labels) == 3).all()
    assert not contents(train) & contents(held)
    assert contents(train) + contents(held) < contents(load_dataset("cifar100", data_root=root))
    test = load_dataset("cifar100", **asked, split="test")
    assert contents(test) == contents(load_dataset("cifar100", data_root=root, split="test"))
    assert "nothing is held out" in refusal("cifar100", root, split="validation")


def test_whole_classes_are_held_out_with_the_label_numbers_as_they_were(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar10")
    asked = {"data_root": root, "validation_groups": ["bird"]}
    assert set(load_dataset("cifar10", **asked).labels) == {0, 2}
    assert set(load_dataset("cifar10", **asked, split="validation").labels) == {1}
    assert set(load_dataset("cifar10", **asked, split="test").labels) == {0, 1, 2}


# Superclasses.


@pytest.mark.parametrize("place", ["cifar100", "cifar-100-python"])
def test_coarse_labels_have_the_fine_classes_as_natural_collections(place, tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar100", place)
    fine = load_dataset("cifar100", data_root=root)
    coarse = load_dataset("cifar100", data_root=root, label_level="coarse", collection_level="fine")
    assert coarse.label_names == ("aquatic_mammals", "fruit_and_vegetables")
    assert coarse.key_names == fine.label_names == HUNDRED
    np.testing.assert_array_equal(coarse.keys, fine.labels)
    np.testing.assert_array_equal(coarse.labels, np.array([1, 0, 0])[fine.labels])
    np.testing.assert_array_equal(coarse.items, fine.items)
    assert load_dataset("cifar100", data_root=root, label_level="coarse").keys is None
    held = load_dataset(
        "cifar100",
        data_root=root,
        label_level="coarse",
        collection_level="fine",
        split="validation",
        validation_groups=["aquatic_mammals"],
    )
    assert set(held.keys) == {1, 2}
    assert "one single collection" in refusal("cifar100", root, collection_level="fine")


def test_the_data_roots_own_table_counts(tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar100", "cifar100")
    table = {"apple": "a", "beaver": "b", "dolphin": "a"}
    (root / FILE).write_text(json.dumps({"coarse_of_fine": table}))
    dataset = load_dataset("cifar100", data_root=root, label_level="coarse")
    assert dataset.label_names == ("a", "b")
    assert np.bincount(dataset.labels).tolist() == [20, 10]
    del table["apple"]
    (root / FILE).write_text(json.dumps({"coarse_of_fine": table}))
    message = refusal("cifar100", root, label_level="coarse")
    assert "'apple' has no superclass" in message
    assert FILE in message


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"coarse_of_fine": 3}', "[" * 10**5])
def test_a_damaged_table_is_refused(content, tmp_path):
    root = fake_cifar(tmp_path / "data", "cifar100", "cifar100")
    (root / FILE).write_text(content)
    assert f"{root / FILE}" in refusal("cifar100", root, label_level="coarse")
    assert len(load_dataset("cifar100", data_root=root)) == 30


def test_there_are_20_superclasses_of_5_classes():
    parts = [name for names in SUPERCLASSES.values() for name in names.split()]
    assert (len(SUPERCLASSES), len(parts), len(set(parts))) == (20, 100, 100)
    assert {len(names.split()) for names in SUPERCLASSES.values()} == {5}
    assert list(SUPERCLASSES) == sorted(SUPERCLASSES)


def test_torchvision_reads_what_the_fakes_write(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    root = fake_cifar(tmp_path / "data", "cifar10", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    theirs = datasets.CIFAR10(root, train=True)
    ours = load_dataset("cifar10", data_root=root)
    np.testing.assert_array_equal(ours.items, theirs.data.transpose(0, 3, 1, 2))
    assert ours.labels.tolist() == theirs.targets
    assert list(ours.label_names) == theirs.classes


def test_the_fake_pickles_differ_from_those_of_python_3():
    assert b"_codecs" not in python2_pickle({"data": b"x"})
