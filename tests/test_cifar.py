"""CIFAR-10 and CIFAR-100, from image files, from pickled batches, and from the network."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from setrep.data import cifar_files, load_dataset, read_image
from setrep.data.archive import open_archive
from setrep.data.cifar10 import CIFAR10
from setrep.data.cifar100 import CIFAR100
from setrep.data.cifar100_superclasses import FILE, SUPERCLASSES, superclasses
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fake_published import (
    cifar10_values,
    cifar100_values,
    fake_batches,
    folder_files,
    python2_pickle,
    random_images,
)
from tests.fakes import REAL, encoded, write_files

IMAGES = {"train": random_images(30, 32, seed=1), "test": random_images(6, 32, seed=2)}
TEN = ("airplane", "bird", "cat")
HUNDRED = ("apple", "beaver", "dolphin")  # fruit and vegetables, and two aquatic mammals
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
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


@pytest.fixture(autouse=True)
def quiet_machine(request, tmp_path, monkeypatch):
    """Give each test a cache of its own and no network."""
    if "real_data" in request.keywords:
        return
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SETREP_DATA", raising=False)

    def download(cifar, into):
        raise URLError("no network in tests")

    monkeypatch.setattr(cifar_files, "download", download)


def values_of(name):
    return cifar10_values(IMAGES, TEN) if name == "cifar10" else cifar100_values(IMAGES, HUNDRED)


def write(root, name, place):
    """Write the images in one of the layouts; return the data root."""
    if "python" in place or "batches" in place:
        top = f"{FOLDERS[name]}/" if ".tar" in place else ""
        fake_batches(root / place, values_of(name), top=top)
    else:
        write_files(root / place, folder_files(IMAGES, TEN if name == "cifar10" else HUNDRED))
    return root


def refusal(name, root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset(name, data_root=root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def contents(dataset):
    """Return each image with the name of its label, in no order."""
    names = [dataset.label_names[label] for label in dataset.labels]
    return Counter(zip((item.tobytes() for item in dataset.items), names, strict=True))


# The layouts.


@pytest.mark.parametrize(("name", "place"), LAYOUTS)
def test_every_layout_gives_the_same_images_and_labels(name, place, tmp_path):
    root = write(tmp_path / "data", name, place)
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
        "cifar10", data_root=write(tmp_path / "data", "cifar10", place), image_size=20
    )
    assert dataset.items.shape == (30, 3, 20, 20)
    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in IMAGES["train"]]
    expected = {read_image(p, dataset.item_format).tobytes() for p in pictures}
    assert {item.tobytes() for item in dataset.items} == expected


def test_the_first_place_counts_and_image_files_come_before_batches(tmp_path):
    root = write(tmp_path / "data", "cifar10", "cifar-10-batches-py")
    assert "(original)" in load_dataset("cifar10", data_root=root).source_note
    write(root, "cifar10", "cifar10")
    assert "(PNG)" in load_dataset("cifar10", data_root=root).source_note


def test_nothing_is_written_to_the_data_root(tmp_path):
    root = write(tmp_path / "data", "cifar10", "cifar10")
    write(root, "cifar100", "cifar-100-python.tar.gz")

    def state():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = state()
    load_dataset("cifar10", data_root=root)
    load_dataset("cifar100", data_root=root, label_level="coarse")
    assert state() == before


# The source note.


def test_the_source_note_counts_and_names_the_encoding(tmp_path):
    root = write(tmp_path / "data", "cifar10", "cifar-10-batches-py")

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
    root = write(tmp_path / "data", "cifar100", place)
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
    root = write(tmp_path / "data", "cifar10", "cifar10")
    asked = {"data_root": root, "validation_groups": ["bird"]}
    assert set(load_dataset("cifar10", **asked).labels) == {0, 2}
    assert set(load_dataset("cifar10", **asked, split="validation").labels) == {1}
    assert set(load_dataset("cifar10", **asked, split="test").labels) == {0, 1, 2}


# Superclasses.


@pytest.mark.parametrize("place", ["cifar100", "cifar-100-python"])
def test_coarse_labels_have_the_fine_classes_as_natural_collections(place, tmp_path):
    root = write(tmp_path / "data", "cifar100", place)
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
    root = write(tmp_path / "data", "cifar100", "cifar100")
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
    root = write(tmp_path / "data", "cifar100", "cifar100")
    (root / FILE).write_text(content)
    assert f"{root / FILE}" in refusal("cifar100", root, label_level="coarse")
    assert len(load_dataset("cifar100", data_root=root)) == 30


def test_there_are_20_superclasses_of_5_classes():
    parts = [name for names in SUPERCLASSES.values() for name in names.split()]
    assert (len(SUPERCLASSES), len(parts), len(set(parts))) == (20, 100, 100)
    assert {len(names.split()) for names in SUPERCLASSES.values()} == {5}
    assert list(SUPERCLASSES) == sorted(SUPERCLASSES)


# What is missing or wrong.


def changed(name, change):
    """Return the values of a batch directory, with the changes of one file."""
    return {file: value | change.get(file, {}) for file, value in values_of(name).items()}


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
    root = write(tmp_path / "data", "cifar10", "cifar-10-batches-py")
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
        return fake_batches(into / cifar.archive, values_of("cifar100"), top=f"{cifar.folder}/")

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


def test_torchvision_reads_what_the_fakes_write(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    root = write(tmp_path / "data", "cifar10", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    theirs = datasets.CIFAR10(root, train=True)
    ours = load_dataset("cifar10", data_root=root)
    np.testing.assert_array_equal(ours.items, theirs.data.transpose(0, 3, 1, 2))
    assert ours.labels.tolist() == theirs.targets
    assert list(ours.label_names) == theirs.classes


# Real files.


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


def test_the_fake_pickles_differ_from_those_of_python_3():
    assert b"_codecs" not in python2_pickle({"data": b"x"})
