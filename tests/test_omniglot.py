"""Omniglot on small fakes of its layout: levels, splits, subsets, and what a request may ask."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest

from setrep.data import load_dataset, omniglot_files, read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fakes import PARTS, REAL, fake_omniglot, glyph, write_files
from tests.fakes import omniglot_files as part_files


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path, monkeypatch):
    """Give each test a cache of its own and no network."""
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))

    def download(part, into):
        raise URLError("no network in tests")

    monkeypatch.setattr(omniglot_files, "download", download)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("SETREP_DATA", raising=False)
    return fake_omniglot(tmp_path / "data")


def load(root, **named):
    return load_dataset("omniglot", data_root=root, image_size=14, **named)


def alphabets(dataset):
    return {name.split("/")[0] for name in dataset.label_names}


def refusal(root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load(root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_background_is_trained_on_and_the_evaluation_part_tested_on(root):
    train, test = load(root), load(root, split="test")
    assert alphabets(train) == set(PARTS["images_background"])
    assert alphabets(test) == set(PARTS["images_evaluation"])
    assert (train.split, test.split) == ("train", "test")
    assert (len(train), len(train.label_names), train.items.shape) == (40, 10, (40, 1, 14, 14))
    assert train.label_names[:4] == (
        "Attic/character01",
        "Attic/character02",
        "Attic/character03",
        "Bugis/character01",
    )
    np.testing.assert_array_equal(train.labels, np.repeat(np.arange(10), 4))
    assert train.keys is None


def test_ink_is_bright_on_black_at_the_size_of_the_drawings(root):
    dataset = load_dataset("omniglot", data_root=root)
    assert dataset.item_format == ItemFormat("image", 1, 105, is_inverted=True)
    ink = 1 - np.asarray(glyph("Attic1", drawer=1), dtype=np.uint8)
    np.testing.assert_array_equal(dataset.items[0, 0], 255 * ink)
    drawing = glyph("Deseret3", drawer=4).convert("L")
    np.testing.assert_array_equal(load(root).items[-1], read_image(drawing, load(root).item_format))


def test_a_directory_holds_the_same_as_its_zip(root, tmp_path):
    fake_omniglot(tmp_path / "unpacked", as_directory=True)
    for split in ("train", "test"):
        zipped, unpacked = (load(place, split=split) for place in (root, tmp_path / "unpacked"))
        np.testing.assert_array_equal(zipped.items, unpacked.items)
        assert zipped.label_names == unpacked.label_names
        assert zipped.source_note == unpacked.source_note


def test_alphabets_can_be_the_labels_and_characters_the_collections(root):
    dataset = load(root, label_level="alphabet", collection_level="character")
    assert dataset.label_names == ("Attic", "Bugis", "Cham", "Deseret")
    assert len(dataset.key_names) == 10
    for label, key in zip(dataset.labels, dataset.keys, strict=True):
        assert dataset.key_names[key].startswith(dataset.label_names[label] + "/")
    sampled = load(root, label_level="alphabet")
    np.testing.assert_array_equal(sampled.labels, dataset.labels)
    assert sampled.keys is None


def test_characters_as_labels_and_as_collections_are_refused(root):
    message = refusal(root, label_level="character", collection_level="character")
    assert "Use label_level=alphabet, or collection_level=sampled" in message
    refusal(root, collection_level="character")


@pytest.mark.parametrize(
    "held", [{"num_validation_groups": 2}, {"validation_groups": ["Cham", "Attic"]}]
)
def test_validation_alphabets_come_out_of_the_background(held, root):
    parts = {split: load(root, split=split, **held) for split in ("train", "validation", "test")}
    found = [alphabets(part) for part in parts.values()]
    assert set.union(*found[:2]) == set(PARTS["images_background"])
    assert sum(map(len, found)) == len(set.union(*found))
    assert len(found[1]) == 2
    assert found[2] == set(PARTS["images_evaluation"])
    assert len(parts["train"]) + len(parts["validation"]) == 40
    whole = load(root)
    for split in ("train", "validation"):
        part = parts[split]
        for item, label in zip(part.items, part.labels, strict=True):
            number = whole.label_names.index(part.label_names[label])
            assert (whole.items[whole.labels == number] == item).all(axis=(1, 2, 3)).any()


def test_the_split_seed_chooses_the_validation_alphabets(root):
    drawn = [
        alphabets(load(root, split="validation", num_validation_groups=1, split_seed=seed))
        for seed in (0, 1, 2, 3, 4, 5, 0)
    ]
    assert drawn[0] == drawn[-1]
    assert len({frozenset(names) for names in drawn}) > 1


@pytest.mark.parametrize("subset", ["small1", "small2"])
def test_a_subset_is_trained_on_whole_and_validated_outside_it(subset, root):
    inside = set(PARTS[f"images_background_{subset}"])
    train = load(root, subset=subset, num_validation_groups=1)
    assert alphabets(train) == inside
    everything = load(root, subset=subset, split="validation")
    assert alphabets(everything) == set(PARTS["images_background"]) - inside
    for seed in range(4):
        some = load(
            root, subset=subset, split="validation", num_validation_groups=1, split_seed=seed
        )
        assert alphabets(some) < alphabets(everything)
    assert alphabets(load(root, subset=subset, split="test")) == set(PARTS["images_evaluation"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_alphabet_of_the_subset_cannot_validate(split, root):
    message = refusal(root, subset="small1", split=split, validation_groups=["Deseret", "Bugis"])
    assert "'Bugis' belongs to the subset small1" in message


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"validation_groups": ["Deserte"]}, "no background alphabet 'Deserte'"),
        ({"validation_groups": ["Deserte"]}, "Did you mean 'Deseret'?"),
        ({"validation_groups": ["Yi"]}, "no background alphabet 'Yi'"),
        ({"num_validation_groups": 5}, "there are only 4 to choose from"),
        ({"num_validation_groups": 4}, "leaves nothing to train on"),
        ({"num_validation_groups": 1, "validation_groups": ["Cham"]}, "not both"),
        ({"split": "validation"}, "no background alphabet is held out"),
        ({"split": "tset"}, "Did you mean 'test'?"),
        ({"subset": "smal1"}, "Did you mean 'small1'?"),
        ({"label_level": "letter"}, "Known: character, alphabet"),
        ({"collection_level": "alphabet"}, "Known: sampled, character"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(named, problem, root):
    assert problem in refusal(root, **named)


@pytest.mark.parametrize(
    ("named", "note"),
    [
        ({}, "4 of 30 background alphabets, 10 characters, 40 drawings"),
        ({"split": "test"}, "2 of 20 evaluation alphabets, 5 characters, 20 drawings"),
        ({"subset": "small1"}, "2 of 5 background small1 alphabets, 5 characters, 20 drawings"),
        (
            {"split": "validation", "subset": "small1"},
            "2 of 30 background alphabets, 5 characters, 20 drawings (validation: Cham, Deseret)",
        ),
    ],
)
def test_the_source_note_says_what_was_read(named, note, root):
    assert load(root, **named).source_note == f"Omniglot, {note}"


def test_the_source_note_stays_short_with_many_alphabets(tmp_path):
    many = {f"Alphabet{number}": 1 for number in range(9)}
    parts = {"images_background": many, "images_background_small1": {"Alphabet0": 1}}
    root = fake_omniglot(tmp_path / "data", parts, num_drawings=1)
    note = load(root, split="validation", subset="small1").source_note
    assert note.endswith("(validation: 8 alphabets outside small1)")
    note = load(root, split="validation", num_validation_groups=6).source_note
    assert note.endswith("(validation: 6 alphabets)")


def test_a_whole_part_with_missing_characters_is_not_called_whole(tmp_path):
    parts = {"images_background_small1": {f"Alphabet{number}": 1 for number in range(5)}}
    root = fake_omniglot(tmp_path / "data", parts, num_drawings=1)
    note = load(root, subset="small1").source_note
    assert "all 5 background small1 alphabets, 5 of 136 characters, 5 drawings" in note


def test_a_truncated_drawing_is_named_or_counted(tmp_path):
    files = part_files("images_background", {"Attic": 2, "Bugis": 2}, 3)
    name = "images_background/Bugis/character02/0002_03.png"
    files[name] = files[name][:150]
    path = write_files(tmp_path / "data/omniglot-py/images_background.zip", files)
    message = refusal(tmp_path / "data")
    assert f"{path}: {name}: not a whole image" in message
    skipped = load(tmp_path / "data", on_bad_image="skip")
    assert len(skipped) == 11
    assert skipped.source_note.endswith("11 drawings; 1 unreadable images skipped")
    held = {"validation_groups": ["Bugis"], "on_bad_image": "skip"}
    assert "skipped" not in load(tmp_path / "data", **held).source_note
    assert "1 unrea" in load(tmp_path / "data", split="validation", **held).source_note


@pytest.mark.real_data
@REAL
@pytest.mark.parametrize(
    ("named", "num_characters", "num_drawings", "note"),
    [
        ({}, 964, 19_280, "all 30 background alphabets"),
        ({"subset": "small1"}, 136, 2_720, "all 5 background small1 alphabets"),
        ({"subset": "small2"}, 156, 3_120, "all 5 background small2 alphabets"),
        ({"split": "test"}, None, None, "of 20 evaluation alphabets"),
        (
            {"split": "validation", "subset": "small1"},
            964 - 136,
            16_560,
            "(validation: 25 alphabets outside small1)",
        ),
    ],
)
def test_the_official_files_have_the_official_counts(named, num_characters, num_drawings, note):
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset("omniglot", image_size=8, **named)
        assert note in dataset.source_note
        if num_characters is not None:
            assert (len(dataset.label_names), len(dataset)) == (num_characters, num_drawings)
        assert len(dataset) == 20 * len(dataset.label_names)
        assert (np.bincount(dataset.labels) == 20).all()


@pytest.mark.real_data
@REAL
def test_two_drawings_of_omniglot_are_the_same_and_both_are_kept():
    dataset = load_dataset("omniglot", validation_groups=["Braille"], split="validation")
    first = dataset.items[dataset.labels == dataset.label_names.index("Braille/character01")]
    assert len(np.unique(first, axis=0)) == 19
