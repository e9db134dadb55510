"""Contrastive runs from settings to `evaluation.json`: methods, priors, banks and restarts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from setrep.config import METHOD_OF_LOSS, resolve
from setrep.errors import InputError
from setrep.protocols.items import evaluate_items
from setrep.reports import runs
from setrep.reports.tables import evaluation_table
from setrep.training.build import names
from setrep.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four classes of vectors, named as training or test items."""
    generator = np.random.default_rng(0)
    labels = np.arange(160) % 4
    centres = generator.normal(size=(4, 6))
    path = tmp_path_factory.mktemp("data") / "four.npz"
    values = centres[labels] + 0.3 * generator.normal(size=(160, 6))
    splits = np.where(np.arange(160) < 120, "train", "test")
    np.savez(path, values=values.astype(np.float32), labels=labels, splits=splits)
    return path


def settings(data: Path, output: Path, **more) -> dict:
    base = {
        "data": {"dataset": "vectors", "data_root": str(data)},
        "augmentation": {"noise": 0.3},
        "head": {"hidden_dim": 16, "dim": 8},
        "training": {"max_steps": 6, "batch_size": 40, "device": "cpu", "log_every": 1},
        "evaluation": {
            "protocol": "train_bank",
            "sizes": [2],
            "num_bootstrap": 5,
            "baselines": False,
            "knn_k": 10,
        },
        "output_dir": str(output),
    }
    for section, values in more.items():
        base[section] = base.get(section, {}) | values
    return base


def train(data: Path, output: Path, *, resume: bool = False, **more):
    return runs.train(
        runs.configure([settings(data, output, **more)], resume=resume), resume=resume
    )


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


CONTRASTIVE = [name for name, method in METHOD_OF_LOSS.items() if method != "supervised"]


def test_every_loss_has_a_method():
    assert set(METHOD_OF_LOSS) == set(names("losses"))
    assert set(METHOD_OF_LOSS.values()) == set(names("methods"))


@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_a_named_loss_brings_its_method_and_trains(loss: str, data: Path, tmp_path: Path):
    result = train(data, tmp_path / "run", loss={"name": loss})
    assert result.evaluation.protocol == "train_bank"
    made_on = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (made_on["precision"], made_on["seed"]) == ("float32", 0)
    assert result.evaluation.items.num_bank == 120
    assert result.evaluation.class_balance == {
        "tau_plus": pytest.approx(29 / 119),
        "num_classes": 4,
        "effective_num_classes": pytest.approx(119 / 29),
        "smallest_class_prior": 0.25,
        "largest_class_prior": 0.25,
    }
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(record["loss"]) for record in found)
    assert runs.evaluate(tmp_path / "run").items == result.evaluation.items


@pytest.mark.parametrize(
    ("asked", "method", "loss"),
    [
        ({}, "supervised", "supcon"),
        ({"loss": {"name": "nt_xent"}}, "contrastive", "nt_xent"),
        ({"training": {"method": "contrastive"}}, "contrastive", "nt_xent"),
        ({"training": {"method": "difficulty_weighted"}}, "difficulty_weighted", None),
        ({"data": {"dataset": "cifar10"}}, "contrastive", "nt_xent"),
        ({"data": {"dataset": "cifar10"}, "loss": {"name": "triplet"}}, "supervised", "triplet"),
        ({"data": {"dataset": "omniglot"}}, "supervised", "triplet"),
        (
            {"data": {"dataset": "omniglot"}, "loss": {"name": "debiased_positives"}},
            "contrastive",
            "debiased_positives",
        ),
    ],
)
def test_the_method_follows_from_what_is_asked(asked: dict, method: str, loss: str | None):
    config = resolve(asked)
    assert config.training.method == method
    assert config.loss.name == (loss or method)
    if method == "contrastive":
        assert config.encoder.projection == "none"
        assert config.encoder.name != "identity"


def test_neighbours_vote_with_the_temperature_of_the_loss_unless_another_is_asked_for():
    asked = {"data": {"dataset": "cifar10"}, "loss": {"temperature": 0.2}}
    assert resolve(asked).evaluation.knn_temperature == 0.2
    asked["evaluation"] = {"knn_temperature": 0.07}
    assert resolve(asked).evaluation.knn_temperature == 0.07


def test_a_saved_config_resolves_to_itself():
    config = resolve({"data": {"dataset": "omniglot"}, "loss": {"name": "hard_negatives"}})
    assert resolve(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("loss", ["debiased_positives", "difficulty_weighted"])
def test_a_continued_run_has_the_weights_and_the_prior_of_an_unbroken_one(
    loss: str, data: Path, tmp_path: Path
):
    """`tau_plus` is counted before the first step, and kept."""
    auto = {"loss": {"name": loss, "tau_plus": "auto"}}
    eight = {"training": {"max_steps": 8, "batch_size": 40, "device": "cpu", "log_every": 1}}
    train(data, tmp_path / "whole", **auto, **eight)
    stop = {"training": eight["training"] | {"max_minutes": 1e-6}}
    for _ in range(8):
        is_new = not (tmp_path / "parts").exists()
        result = train(data, tmp_path / "parts", resume=not is_new, **auto, **stop)
        if result.reason == "finished":
            break
    assert result.reason == "finished"
    whole, parts = (load_checkpoint(tmp_path / name)["method"] for name in ("whole", "parts"))
    for name, value in whole.items():
        assert torch.equal(value, parts[name]) or value.isnan().all(), name
    logged = [record["tau_plus"] for record in records(tmp_path / "parts")]
    assert len(logged) == 8
    assert logged == [pytest.approx(29 / 119)] * 8  # four equal classes of thirty items
    end = records(tmp_path / "parts")[-1]
    assert end["tau_plus_low"] <= end["tau_plus"] <= end["tau_plus_high"]


def test_the_prior_is_not_estimated_unless_asked_for(data: Path, tmp_path: Path):
    train(data, tmp_path, loss={"name": "debiased_negatives", "tau_plus": 0.25})
    assert all("tau_plus" not in record for record in records(tmp_path))


def test_knn_is_logged_after_every_epoch_and_ends_with_the_evaluation(data: Path, tmp_path: Path):
    evaluation = settings(data, tmp_path)["evaluation"] | {"every_epochs": 1}
    result = train(data, tmp_path, loss={"name": "nt_xent"}, evaluation=evaluation)
    measured = [record for record in records(tmp_path) if "knn_top1" in record]
    assert [(record["step"], record["epoch"]) for record in measured] == [(3, 1), (6, 2)]
    assert measured[-1]["knn_top1"] == pytest.approx(result.evaluation.items.knn_top1)
    assert measured[-1]["worst_class_top1"] == result.evaluation.items.worst_class_top1


def test_measuring_while_training_changes_no_weight(data: Path, tmp_path: Path):
    evaluation = settings(data, tmp_path)["evaluation"] | {"every_epochs": 1}
    train(data, tmp_path / "plain", loss={"name": "nt_xent"})
    train(data, tmp_path / "measured", loss={"name": "nt_xent"}, evaluation=evaluation)
    plain, measured = (tmp_path / name / "model.safetensors" for name in ("plain", "measured"))
    assert plain.read_bytes() == measured.read_bytes()


def test_without_map_at_r_all_else_stays():
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 5, generator=generator) for n in (80, 30))
    bank_labels, labels = (torch.randint(2, 9, (n,), generator=generator) for n in (80, 30))
    options = {"bank": bank, "bank_labels": bank_labels, "knn_k": 7, "knn_temperature": 0.5}
    whole = evaluate_items(queries, labels, **options)
    assert whole.map_at_r is not None
    assert evaluate_items(queries, labels, **options, with_map_at_r=False) == replace(
        whole, map_at_r=None
    )


def test_a_linear_probe_is_fitted_to_the_bank_and_shown(data: Path, tmp_path: Path):
    evaluation = settings(data, tmp_path)["evaluation"] | {"linear_probe": True, "baselines": True}
    found = train(data, tmp_path, loss={"name": "nt_xent"}, evaluation=evaluation).evaluation
    assert (found.linear_probe["num_train"], found.linear_probe["num_test"]) == (120, 40)
    assert found.linear_probe["top1"] > 0.5
    assert found.items.map_at_r is None
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(evaluation_table(found))
    shown = console.export_text()
    assert "linear probe: top-1" in shown
    assert "MAP@R" not in shown.split("sets of")[0]
    assert "(train bank, %)" in shown


REFUSED = {
    "trained classes as held out": ({"evaluation": {"protocol": "held_out_classes"}}, "trained on"),
    "three views of pairs": (
        {"loss": {"name": "n_pair"}, "views": {"num_views": 3}},
        "takes two views",
    ),
    "three views of two encoders": (
        {"loss": {"name": "difficulty_weighted"}, "views": {"num_views": 3}},
        "takes two views",
    ),
    "published of hard negatives": (
        {"loss": {"name": "hard_negatives", "drop_false_negatives": "published"}},
        "not defined",
    ),
    "prior of 0": ({"loss": {"name": "debiased_positives", "tau_plus": 0}}, "above 0"),
    "too large a batch": ({"training": {"batch_size": 500}}, "batch_size"),
    "a probe without a bank": (
        {"holds_out_labels": True, "evaluation": {"linear_probe": True, "protocol": "auto"}},
        "goes with",
    ),
    "kNN of epochs without a bank of its classes": (
        {"holds_out_labels": True, "evaluation": {"every_epochs": 1, "protocol": "auto"}},
        "goes with",
    ),
    "views that are all alike": ({"augmentation": {"noise": 0}}, "all be alike"),
    "an automatic prior of no use": ({"loss": {"name": "nt_xent", "tau_plus": "auto"}}, "no prior"),
    "an estimator of no use": (
        {"loss": {"name": "debiased_negatives", "estimator": "sum"}},
        "no loss.estimator",
    ),
    "false negatives of two encoders": (
        {"loss": {"name": "difficulty_weighted", "drop_false_negatives": "exclude"}},
        "no loss.drop",
    ),
    "a weight of no use": ({"loss": {"name": "nt_xent", "beta": 2.0}}, "but 2.0 .* at 1.0. Read"),
    "a margin of no use": ({"loss": {"name": "supcon", "margin": 0.5}}, "Read by: triplet"),
    "another loss of two encoders": (
        {"loss": {"name": "nt_xent"}, "training": {"method": "difficulty_weighted"}},
        "has one loss",
    ),
    "a prior that is a word": ({"loss": {"tau_plus": "aut"}}, "0 to below 1, or auto"),
    "a prior above 1": ({"loss": {"tau_plus": 1.5}}, "0 to below 1, or auto"),
    "a loss of labels": (
        {"loss": {"name": "triplet"}, "training": {"method": "contrastive"}},
        "Unknown loss",
    ),
    "kNN of epochs without a bank": (
        {"evaluation": {"protocol": "held_out_classes", "every_epochs": 1}},
        "train",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_settings_are_refused_before_anything_is_written(
    change: dict, message: str, data: Path, tmp_path: Path
):
    place, more = data, {"loss": {"name": "nt_xent"}} | change
    if more.pop("holds_out_labels", False):  # as it does without the splits of the file
        place = tmp_path / "classes.npz"
        np.savez(place, **{name: np.load(data)[name] for name in ("values", "labels")})
    if "evaluation" in change:
        more["evaluation"] = settings(data, tmp_path)["evaluation"] | change["evaluation"]
    with pytest.raises(InputError, match=message) as caught:
        train(place, tmp_path / "run", **more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
