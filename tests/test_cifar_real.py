"""The real CIFAR archives: counts, pixels, known duplicates and superclasses."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from setrep.data import load_dataset, read_image
from setrep.data.archive import open_archive
from setrep.data.cifar100_superclasses import FILE, superclasses
from tests.fakes import REAL


@functools.cache
def real_archive(name):
    return open_archive(Path(os.environ["SETREP_DATA"], f"{name}.tar.xz"))


@functools.cache
def real(name, **named):
    """Read a real data set once for all tests."""
    return load_dataset(name, data_root=os.environ["SETREP_DATA"], **named)


@pytest.mark.real_data
@pytest.mark.slow
@REAL
@pytest.mark.parametrize(
    ("name", "split", "num_items", "num_classes", "ending"),
    [
        ("cifar10", "train", 50_000, 10, "50000 training images"),
        ("cifar10", "test", 5_000, 10, "5000 of 10000 test images"),
        ("cifar100", "train", 50_000, 100, "50000 training images"),
        ("cifar100", "test", 10_000, 100, "10000 test images"),
    ],
)
def test_the_real_archives_have_their_counts_and_pixels(
    name, split, num_items, num_classes, ending
):
    dataset = real(name, split=split)
    assert dataset.items.shape == (num_items, 3, 32, 32)
    assert (np.bincount(dataset.labels) == num_items // num_classes).all()
    assert len(dataset.label_names) == num_classes
    title = "CIFAR-10" if name == "cifar10" else "CIFAR-100"
    assert dataset.source_note == f"{title} (JPEG q90), {ending}"
    archive = real_archive(name)
    names = [file for file in archive.names if file.startswith(f"{split}/") and "." in file]
    chosen = {names[row]: row for row in (0, 1, 777, num_items // 2, num_items - 1)}
    for file, content in archive.read_many(chosen):
        row = chosen[file]
        pixels = np.asarray(read_image(content, dataset.item_format))
        np.testing.assert_array_equal(dataset.items[row], pixels)
        assert dataset.label_names[dataset.labels[row]] == file.split("/")[1]


@pytest.mark.real_data
@pytest.mark.slow
@REAL
def test_the_known_duplicates_of_the_real_cifar100_are_found():
    train, test = real("cifar100", split="train"), real("cifar100", split="test")
    label_of = {
        item.tobytes(): int(label) for item, label in zip(train.items, train.labels, strict=True)
    }
    assert len(train) - len(label_of) == 14
    leaked = [
        label_of[item.tobytes()] != label
        for item, label in zip(test.items, test.labels, strict=True)
        if item.tobytes() in label_of
    ]
    assert len(leaked) == 10
    assert sum(leaked) == 6


@pytest.mark.real_data
@REAL
def test_the_table_of_superclasses_is_the_real_one():
    table = json.loads(Path(os.environ["SETREP_DATA"], FILE).read_text())["coarse_of_fine"]
    names = sorted(table)
    assert superclasses(names, None) == table
    assert superclasses(names, Path(os.environ["SETREP_DATA"])) == table


@pytest.mark.real_data
@pytest.mark.slow
@REAL
def test_the_real_superclasses_have_2500_images_of_5_classes():
    dataset = real("cifar100", label_level="coarse", collection_level="fine")
    assert (np.bincount(dataset.labels) == 2500).all()
    pairs = set(zip(dataset.labels.tolist(), dataset.keys.tolist(), strict=True))
    assert len(pairs) == 100
    assert len(dataset.label_names) == 20
    names = {dataset.key_names[key]: dataset.label_names[label] for label, key in pairs}
    assert names["whale"] == "aquatic_mammals"
