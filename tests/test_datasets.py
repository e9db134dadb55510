"""The registry, and the data sets `digits` and `folder`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.data import list_datasets, load_dataset, read_image
from setrep.errors import InputError
from tests.fakes import REAL, encoded, fake_folder, write_files

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))


def refusal(name, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset(name, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def load_folder(root, **named):
    return load_dataset("folder", data_root=root, image_size=8, **named)


# The registry.


def test_every_data_set_says_what_it_offers():
    infos = {info.name: info for info in list_datasets()}
    sharing = {"cifar10", "cifar100", "tinyimagenet", "stl10"}
    assert set(infos) == {"digits", "omniglot", "folder", "vectors"} | sharing
    assert {info.name for info in infos.values() if info.shares_classes} == sharing
    for info in infos.values():
        assert info.splits == SPLITS
        assert info.collection_levels[0] == "sampled"
        assert info.subsets[0] == "full"
        assert info.summary
        assert info.needs


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    assert "Did you mean 'omniglot'?" in refusal("omniglott")
    assert "Did you mean 'test'?" in refusal("digits", split="tests")
    assert "Known: full" in refusal("digits", subset="small1")
    assert "Known: sampled" in refusal("digits", collection_level="character")
    assert "Did you mean 'skip'?" in refusal("digits", on_bad_image="skp")
    assert "at least 1, not 0" in refusal("digits", image_size=0)
    assert "at least 0" in refusal("digits", num_validation_groups=-1)


# The digits.


def test_the_digits_seven_eight_and_nine_are_only_tested_on():
    train, test = load_dataset("digits"), load_dataset("digits", split="test")
    assert train.label_names == tuple("0123456")
    assert test.label_names == ("7", "8", "9")
    assert (len(train), len(test)) == (1264, 533)
    assert train.items.shape == (1264, 1, 8, 8)
    assert train.source_note == "scikit-learn digits, classes 0, 1, 2, 3, 4, 5, 6, 1264 images"


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    source = load_digits()
    test = load_dataset("digits", split="test")
    rows = source.target >= 7
    np.testing.assert_array_equal(test.labels, source.target[rows] - 7)
    np.testing.assert_array_equal(test.items[:, 0], np.rint(source.images[rows] * 255 / 16))
    assert load_dataset("digits", split="test", image_size=13).items.shape == (533, 1, 13, 13)


def test_validation_digits_come_out_of_training():
    held = {"validation_groups": ["4", "0"]}
    assert load_dataset("digits", split="validation", **held).label_names == ("0", "4")
    train = load_dataset("digits", **held)
    assert train.label_names == ("1", "2", "3", "5", "6")
    assert set(train.labels) == set(range(5))
    assert load_dataset("digits", split="test", **held).label_names == ("7", "8", "9")
    assert "no digit '7'" in refusal("digits", validation_groups=["7"])


# Folders of images.


def test_labels_without_split_folders_are_parted_by_seed(tmp_path):
    root = fake_folder(tmp_path / "pets", [f"label{n}" for n in range(10)], num_collections=0)
    for seed in range(3):
        named = {"split_seed": seed, "num_validation_groups": 2}
        parts = [load_folder(root, split=split, **named) for split in SPLITS]
        assert [len(part.label_names) for part in parts] == [5, 2, 3]
        assert len({name for part in parts for name in part.label_names}) == 10
        assert sum(map(len, parts)) == 30
        assert parts[2].label_names == load_folder(root, split="test", split_seed=seed).label_names
    tests = {load_folder(root, split="test", split_seed=seed).label_names for seed in range(4)}
    assert len(tests) > 1
    assert load_folder(root).source_note == "pets, 7 of 10 labels, 21 images"


@pytest.mark.parametrize("name", ["pets", "pets.zip", "pets.tar.xz"])
def test_directories_below_a_label_are_collections(name, tmp_path):
    root = fake_folder(tmp_path / name)
    dataset = load_folder(root, collection_level="collection")
    assert len(dataset.label_names) == 3
    assert dataset.key_names == tuple(
        f"{label}/set{number}" for label in dataset.label_names for number in (0, 1)
    )
    np.testing.assert_array_equal(dataset.labels, np.repeat([0, 1, 2], 6))
    np.testing.assert_array_equal(dataset.keys, np.repeat(np.arange(6), 3))
    assert load_folder(root).keys is None
    assert dataset.source_note == f"{name}, 3 of 4 labels, 18 images"


def test_collections_of_one_name_below_two_labels_are_two(tmp_path):
    dataset = load_folder(fake_folder(tmp_path / "pets"), collection_level="collection")
    assert len(set(zip(dataset.labels, dataset.keys, strict=True))) == len(dataset.key_names)


def test_items_are_the_images_cut_square_and_scaled(tmp_path):
    image = Image.effect_noise((30, 20), 90).convert("RGB")
    image.putpixel((3, 4), (255, 0, 0))
    files = {f"{label}/1.png": encoded(image) for label in "ab"}
    dataset = load_folder(write_files(tmp_path / "pets", files))
    assert dataset.item_format.shape == (3, 8, 8)
    assert not dataset.item_format.is_inverted
    np.testing.assert_array_equal(dataset.items[0], read_image(image, dataset.item_format))
    default = load_dataset("folder", data_root=tmp_path / "pets")
    assert default.items.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("modes", [("L", "1"), ("L", "LA"), ("L", "RGB"), ("RGBA", "L"), ("P",)])
def test_there_is_one_channel_if_no_image_of_any_split_has_colour(modes, tmp_path):
    files = {}
    for number, label in enumerate("abcdef"):
        image = Image.new("RGB", (5, 5), (9 * number, 200, 30)).convert(modes[number % len(modes)])
        files[f"{label}/1.png"] = encoded(image)
    root = write_files(tmp_path / "pets", files)
    channels = 1 if set(modes) <= {"L", "1", "LA"} else 3
    for split in ("train", "test"):
        assert load_folder(root, split=split).item_format.channels == channels


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_split_directories_are_taken_as_they_are(validation, tmp_path):
    root = fake_folder(tmp_path / "pets", splits=["train", validation, "test"])
    (root / "test/dog").rename(root / "test/eel")
    parts = {split: load_folder(root, split=split) for split in SPLITS}
    for part in parts.values():
        assert part.label_names == ("ape", "bee", "cat", "dog", "eel")
    assert set(parts["train"].labels) == set(parts["validation"].labels) == {0, 1, 2, 3}
    assert set(parts["test"].labels) == {0, 1, 2, 4}
    assert not np.array_equal(parts["train"].items, parts["test"].items)
    message = refusal("folder", data_root=root, num_validation_groups=1)
    assert "There is a validation directory already" in message


def test_labels_may_be_held_out_of_a_train_directory(tmp_path):
    root = fake_folder(tmp_path / "pets", splits=["train", "test"])
    held = {"validation_groups": ["bee"]}
    assert set(load_folder(root, split="validation", **held).labels) == {1}
    assert set(load_folder(root, **held).labels) == {0, 2, 3}
    assert set(load_folder(root, split="test", **held).labels) == {0, 1, 2, 3}
    assert "no label is held out" in refusal("folder", data_root=root, split="validation")


def test_a_split_without_a_directory_is_refused(tmp_path):
    root = fake_folder(tmp_path / "pets", splits=["val"])
    for split in ("train", "test"):
        message = refusal("folder", data_root=root, split=split)
        assert f"no directory for the split '{split}' beside validation" in message


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "holds no images"),
        (["notes.txt", "a/Thumbs.db", "a/.hidden.png"], "holds no images"),
        (["1.png"], "must all lie in"),
        (["a/1.png", "b/c/1.png"], "a/1.png"),
        (["a/b/c/1.png"], "must all lie in"),
        (["train/a/1.png", "test/1.png"], "must all lie in"),
        (["a/1.png"], "at least 2 labels; found 1: a"),
    ],
)
def test_another_layout_is_refused(names, problem, tmp_path):
    image = encoded(Image.new("L", (4, 4)))
    (tmp_path / "pets").mkdir()
    root = write_files(tmp_path / "pets", dict.fromkeys(names, image))
    assert problem in refusal("folder", data_root=root)


def test_natural_collections_are_refused_where_there_are_none(tmp_path):
    root = fake_folder(tmp_path / "pets", num_collections=0)
    assert "has no collections" in refusal("folder", data_root=root, collection_level="collection")


def test_a_folder_has_to_be_named_and_to_be_there(tmp_path, monkeypatch):
    monkeypatch.delenv("SETREP_DATA", raising=False)
    assert "--data-root DIR" in refusal("folder")
    assert "does not exist" in refusal("folder", data_root=tmp_path / "none")


def test_strange_files_and_names_beside_the_images_do_no_harm(tmp_path, caplog):
    image = encoded(Image.new("L", (1, 1), 7))
    names = ["猫/ä b.png", "猫/UPPER.PNG", "ñandú/#1%.png", "ñandú/'q\".png"]
    strays = ["猫/Thumbs.db", "猫/.DS_Store", ".git/1.png", "__MACOSX/猫/1.png", "empty/notes.txt"]
    files = dict.fromkeys(names, image) | dict.fromkeys(strays, b"x")
    for place in ("pets", "pets.zip"):
        parts = [
            load_folder(write_files(tmp_path / place, files), split=split)
            for split in ("train", "test")
        ]
        assert sorted(name for part in parts for name in part.label_names) == ["ñandú", "猫"]
        assert [len(part) for part in parts] == [2, 2]
        assert (parts[0].items == 7).all()
    assert "empty holds no images and is left out" in caplog.text


def test_a_broken_image_of_a_folder_is_named_or_counted(tmp_path):
    root = fake_folder(tmp_path / "pets", ["a", "b"], num_collections=0)
    label = load_folder(root).label_names[0]
    bad = root / label / "1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    assert f"{bad}: not a" in refusal("folder", data_root=root)
    note = load_folder(root, on_bad_image="skip").source_note
    assert note == "pets, 1 of 2 labels, 2 images; 1 unreadable images skipped"


def test_the_source_note_names_no_directory_above(tmp_path, monkeypatch):
    monkeypatch.chdir(fake_folder(tmp_path / "pets"))
    assert load_folder(".").source_note.startswith("pets, ")


# Real files.


@pytest.mark.real_data
@pytest.mark.slow
@REAL
def test_a_real_tar_is_read_as_a_folder():
    path = Path(os.environ["SETREP_DATA"], "tinyimagenet100.tar.xz")
    dataset = load_folder(path, split="validation")
    assert len(dataset) == 5000
    assert (np.bincount(dataset.labels) == 50).all()
    assert dataset.source_note == "tinyimagenet100.tar.xz, 100 of 100 labels, 5000 images"
