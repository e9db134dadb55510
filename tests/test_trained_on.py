"""No class that was trained on is ever called held out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from setrep.config import resolve
from setrep.data.augmentation import add_rotated_classes
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from setrep.reports import runs
from setrep.reports.bounds import verify_bounds
from setrep.reports.trained_on import TrainedOn


def dataset(*names: str, kind: str = "image") -> ItemDataset:
    shape = (1, 8, 8) if kind == "image" else (3,)
    return ItemDataset(
        name="letters",
        split="test",
        items=np.zeros((len(names), *shape), dtype=np.uint8 if kind == "image" else np.float32),
        labels=np.arange(len(names)),
        label_names=names,
        item_format=ItemFormat("image", 1, 8) if kind == "image" else ItemFormat("vector", 3, 1),
        label_level="letter",
    )


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(
    ("trained", "tested", "shared"),
    [
        (["a", "b"], ["c", "d"], None),
        (["a", "b", "x@y"], ["c", "b"], "b"),
        (["a", "x@y"], ["c", "x@y"], "x@y"),
        (["Greek", "Latin"], ["Attic/character01", "Greek/character02"], "Greek"),
        (["Greek/character01"], ["Greek", "Attic"], "Greek"),
        (["Greek/character01"], ["Greek/character02"], None),
        (["Gree"], ["Greek/character02"], None),
    ],
)
def test_a_split_with_a_class_that_was_trained_on_is_refused(trained, tested, shared, rotated):
    config = resolve({"augmentation": {"rotated_classes": rotated}})
    seen = dataset(*trained)
    known = TrainedOn.read(config, add_rotated_classes(seen) if rotated else seen)
    assert known.labels == tuple(sorted(trained))
    if shared is None:
        known.refuse_shared(dataset(*tested))
    else:
        with pytest.raises(InputError, match=f"such as '{shared}'"):
            known.refuse_shared(dataset(*tested))
        known.refuse_shared(replace(dataset(*tested), name="other"))


def test_only_labels_that_have_items_count():
    seen = dataset("a", "b").subset([0])
    TrainedOn.read(resolve({}), seen).refuse_shared(dataset("b"))


def test_vectors_are_not_turned_and_keep_their_names():
    config = resolve({"augmentation": {"rotated_classes": True}})
    assert TrainedOn.read(config, dataset("a@1", kind="vector")).labels == ("a@1",)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on 4 of 6 labels, the other 2 held out."""
    place = tmp_path_factory.mktemp("run")
    values = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(place / "vectors.npz", values=values, labels=np.repeat(np.arange(6), 10))
    settings = {
        "data": {"dataset": "vectors", "data_root": str(place / "vectors.npz")},
        "training": {"max_steps": 1, "device": "cpu"},
        "evaluation": {"sizes": [2], "num_bootstrap": 5, "baselines": False},
        "output_dir": str(place / "run"),
    }
    runs.train(runs.configure([settings]))
    return place / "run"


def test_a_run_is_evaluated_on_its_own_held_out_classes_only(run: Path):
    assert runs.evaluate(run).protocol == "held_out_classes"
    for look in (runs.evaluate, verify_bounds):
        with pytest.raises(InputError, match="labels that are trained on"):
            look(run, {"data": {"split_seed": 2}})


def test_a_small_data_set_trains_with_the_default_episode(run: Path):
    """The default takes 8 classes; here are 4 to train on."""
    assert runs.saved_config(run).episode.classes_per_episode == 4


def test_a_run_can_be_looked_at_from_anywhere(tmp_path: Path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(tmp_path / "vectors.npz", values=values, labels=np.repeat(np.arange(6), 10))
    monkeypatch.chdir(tmp_path)
    settings = {
        "data": {"dataset": "vectors", "data_root": "vectors.npz"},
        "training": {"max_steps": 1, "device": "cpu"},
        "evaluation": {"sizes": [2], "num_bootstrap": 5, "baselines": False},
        "output_dir": "run",
    }
    runs.train(runs.configure([settings]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert runs.evaluate("../run").items.num_queries == 20


@pytest.mark.parametrize("name", ["evaluation.json", "metrics.jsonl", "model.json", "checkpoint"])
def test_a_directory_with_files_of_ones_own_is_left_alone(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"already holds {name}"):
        runs.train(runs.configure([{"output_dir": str(tmp_path), "training": {"max_steps": 1}}]))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "kept", [None, [], "digits", {"dataset": "a"}, {"dataset": "a", "labels": 7}, {"x": 1}]
)
def test_a_tampered_list_of_trained_labels_is_refused_in_one_line(kept):
    with pytest.raises(InputError, match="trained_on") as caught:
        TrainedOn.from_json(kept)
    assert "\n" not in str(caught.value)


def test_what_is_kept_is_read_back():
    seen = TrainedOn("a", ("x", "y"))
    assert TrainedOn.from_json(json.loads(json.dumps(asdict(seen)))) == seen
