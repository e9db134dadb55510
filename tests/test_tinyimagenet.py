"""Tiny-ImageNet, as published and as folders of classes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.data import load_dataset, read_image
from setrep.data.archive import open_archive
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fake_published import folder_files, original_tinyimagenet_files, random_images
from tests.fakes import REAL, encoded, write_files

IMAGES = {"train": random_images(12, 64, seed=1), "test": random_images(6, 64, seed=2)}
WNIDS = ("n01443537", "n01629819", "n01641577")
VALIDATION = "images of the published validation split (the test split has no labels)"


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    if "real_data" not in request.keywords:
        monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("SETREP_DATA", raising=False)


def write(root, place, change=None):
    """Write the images in one of the layouts, with some files changed or left out."""
    if place.startswith("tiny-imagenet-200"):
        top = "tiny-imagenet-200/" if place.endswith(".zip") else ""
        files = original_tinyimagenet_files(IMAGES, WNIDS)
    else:
        top = ""
        images = {"train": IMAGES["train"], "val": IMAGES["test"]}
        files = {f"./{name}": file for name, file in folder_files(images, WNIDS).items()}
        files["./classes.txt"] = b"n01443537\tgoldfish\n"
    files |= change or {}
    files = {top + name: file for name, file in files.items() if file is not None}
    write_files(root / place, files)
    return root


def refusal(root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset("tinyimagenet", data_root=root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    "place",
    ["tinyimagenet100.tar.xz", "tinyimagenet100", "tiny-imagenet-200", "tiny-imagenet-200.zip"],
)
def test_every_layout_gives_the_same_images_and_labels(place, tmp_path):
    root = write(tmp_path / "data", place)
    encoding = "JPEG" if place.startswith("tiny-") else "PNG"  # as the suffix says
    for split, images in IMAGES.items():
        dataset = load_dataset("tinyimagenet", data_root=root, split=split)
        found = {
            item.tobytes(): dataset.label_names[label]
            for item, label in zip(dataset.items, dataset.labels, strict=True)
        }
        assert found == {item.tobytes(): WNIDS[row % 3] for row, item in enumerate(images)}
        assert dataset.label_names == WNIDS
        assert dataset.item_format == ItemFormat("image", 3, 64)
        end = f"6 of 10000 {VALIDATION}" if split == "test" else "12 of 100000 training images"
        assert dataset.source_note == f"Tiny-ImageNet ({encoding}), 3 of 200 classes, {end}"


def test_grey_images_have_three_equal_channels(tmp_path):
    grey = Image.effect_noise((64, 64), 90)
    root = write(tmp_path / "data", "tinyimagenet100", {"train/n01443537/0000.png": encoded(grey)})
    dataset = load_dataset("tinyimagenet", data_root=root)
    expected = np.broadcast_to(np.asarray(grey), (3, 64, 64))
    np.testing.assert_array_equal(dataset.items[0], expected)


def test_validation_comes_out_of_train_and_not_out_of_the_published_one(tmp_path):
    root = write(tmp_path / "data", "tiny-imagenet-200")
    asked = {"data_root": root, "num_validation_items": 1}
    held = load_dataset("tinyimagenet", **asked, split="validation", image_size=16)
    assert held.items.shape == (3, 3, 16, 16)
    assert held.source_note.endswith("3 of 100000 training images (validation: 1 of each class)")
    assert len(load_dataset("tinyimagenet", **asked)) == 9


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"val/val_annotations.txt": None}, "lacks val/val_annotations.txt"),
        ({"val/val_annotations.txt": b""}, "or it is empty"),
        ({"val/val_annotations.txt": b"val_0000.JPEG\n"}, "no class in line 1"),
        ({"val/images/val_9999.JPEG": b""}, "val_9999.JPEG is not where an image is looked for"),
        ({"train/n01443537/1.JPEG": b""}, "train/n01443537/1.JPEG is not where"),
        ({"val/n01443537/1.JPEG": b""}, "val/n01443537/1.JPEG is not where"),
    ],
)
@pytest.mark.parametrize("place", ["tiny-imagenet-200", "tiny-imagenet-200.zip"])
def test_an_original_that_does_not_fit_is_refused(place, change, problem, tmp_path):
    root = write(tmp_path / "data", place, change)
    assert problem in refusal(root)


def test_other_layouts_and_broken_images_are_refused(tmp_path):
    image = encoded(Image.new("RGB", (64, 64)))
    root = write(tmp_path / "data", "tinyimagenet100", {"test/n01443537/1.png": image})
    assert "expected train/<class>/* and val/<class>/*" in refusal(root)
    (root / "tinyimagenet100/test/n01443537/1.png").unlink()
    bad = root / "tinyimagenet100/train/n01443537/0000.png"
    bad.write_bytes(bad.read_bytes()[:300])
    assert f"{bad}: not a whole image" in refusal(root)
    assert len(load_dataset("tinyimagenet", data_root=root, on_bad_image="skip")) == 11


def test_without_data_one_line_says_what_to_put_where(tmp_path):
    (tmp_path / "data").mkdir()
    message = refusal(tmp_path / "data")
    assert "nothing downloads it. Put the official tiny-imagenet-200.zip" in message
    assert f"into {tmp_path / 'data'}, or tinyimagenet100.tar.xz" in message
    assert "--data-root or SETREP_DATA" in refusal(None)
    (tmp_path / "file").touch()
    assert "is a directory, but" in refusal(tmp_path / "file")


@pytest.mark.real_data
@pytest.mark.slow
@REAL
@pytest.mark.parametrize(
    ("split", "folder", "num_items"), [("train", "train", 10_000), ("test", "val", 5_000)]
)
def test_the_real_subset_has_its_counts_and_pixels(split, folder, num_items):
    root = os.environ["SETREP_DATA"]
    dataset = load_dataset("tinyimagenet", data_root=root, split=split)
    assert dataset.items.shape == (num_items, 3, 64, 64)
    assert (np.bincount(dataset.labels) == num_items // 100).all()
    assert "100 of 200 classes" in dataset.source_note
    assert ("published validation split" in dataset.source_note) == (split == "test")
    archive = open_archive(Path(root, "tinyimagenet100.tar.xz"))
    names = [name for name in archive.names if name.startswith(f"{folder}/")]
    assert len(names) == num_items
    chosen = {names[row]: row for row in (0, 1234, num_items - 1)}
    for name, content in archive.read_many(chosen):
        expected = read_image(content, dataset.item_format)
        np.testing.assert_array_equal(dataset.items[chosen[name]], expected)
        assert dataset.label_names[dataset.labels[chosen[name]]] == name.split("/")[1]


@pytest.mark.real_data
@pytest.mark.slow
@REAL
def test_the_real_subset_has_267_grey_images():
    splits = [
        load_dataset("tinyimagenet", data_root=os.environ["SETREP_DATA"], split=split)
        for split in ("train", "test")
    ]
    grey = [
        (items == items[:, :1]).all(axis=(1, 2, 3)).sum() for items in (s.items for s in splits)
    ]
    assert sum(grey) >= 267
