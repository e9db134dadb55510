"""Results as JSON with every key, and the baselines beside them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

import setrep
from setrep.config import resolve
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from setrep.methods.supervised import embedding_spread
from setrep.protocols.bound_statements import STATEMENTS
from setrep.protocols.results import OneShotResult
from setrep.reports import runs
from setrep.reports.evaluation import EvaluationData, as_json, evaluate_set_encoder, load_task
from setrep.reports.runs import untrained
from setrep.training.build import build_method
from setrep.training.run_directory import environment
from tests.evaluations import FORMAT, SETTINGS, evaluate, glyphs, set_encoder
from tests.evaluations import evaluation as evaluation
from tests.evaluations import plain as plain

# The keys of evaluation.json.
TOP = [
    "schema",
    "protocol",
    "dataset",
    "source_note",
    "split",
    "label_level",
    "collection_level",
    "seed",
    "encoder",
    "aggregator",
    "model_sha256",
    "items",
    "collections",
    "class_balance",
    "linear_probe",
    "one_shot",
    "bounds",
    "baselines",
    "seconds",
]
ITEMS = [
    "num_queries",
    "num_bank",
    "num_classes",
    "knn_k",
    "knn_temperature",
    "knn_top1",
    "knn_top5",
    "worst_class_top1",
    "recall_at_1",
    "map_at_r",
]
COLLECTIONS = [
    "size",
    "num_queries",
    "num_gallery",
    "num_classes",
    "recall_at_1",
    "recall_at_5",
    "map_at_r",
    "recall_at_1_ci95",
]
ONE_SHOT = ["num_runs", "error_mean", "error_per_run"]
SCORES = ["items", "collections", "one_shot"]


def test_an_evaluation_has_exactly_the_keys_of_its_schema(evaluation):
    found = json.loads(as_json(evaluation))
    assert list(found) == TOP
    assert list(found["baselines"]) == ["pixels", "untrained"]
    for scores in (found, *found["baselines"].values()):
        assert set(SCORES) <= set(scores)
        assert list(scores["items"]) == ITEMS
        assert [list(row) for row in scores["collections"]] == [COLLECTIONS] * 3
        assert list(scores["one_shot"]) == ONE_SHOT
    assert [list(scores) for scores in found["baselines"].values()] == [SCORES, SCORES]
    assert found["linear_probe"] is None
    assert set(found["bounds"]) == set(STATEMENTS)


def test_what_is_absent_is_null_and_not_missing(plain):
    found = json.loads(as_json(plain))
    assert list(found) == TOP
    absent = ("class_balance", "linear_probe", "one_shot", "bounds", "baselines")
    assert {key: found[key] for key in absent} == dict.fromkeys(absent)
    last = found["collections"][-1]
    assert list(last) == COLLECTIONS
    assert (last["size"], last["num_queries"], last["recall_at_1"]) == (50, 0, None)


def test_an_evaluation_says_what_was_measured(evaluation):
    found = json.loads(as_json(evaluation))
    assert (found["schema"], found["protocol"], found["seed"]) == (1, "held_out_classes", 3)
    assert (found["dataset"], found["split"]) == ("glyphs", "test")
    assert (found["label_level"], found["collection_level"]) == ("glyph", "sampled")
    assert found["model_sha256"] == set_encoder(resolve(SETTINGS), 0).fingerprint
    assert found["items"]["num_queries"] == 48
    assert found["one_shot"]["error_mean"] == 0  # every test image is its own training image
    fractions = [v for k, v in found["items"].items() if k.startswith(("knn_top", "recall", "map"))]
    assert all(0 <= value <= 1 for value in fractions)


def test_the_learned_and_the_untrained_column_are_of_different_encoders(evaluation):
    swapped = evaluate_set_encoder(
        set_encoder(resolve(SETTINGS), 1), None, EvaluationData(glyphs()), resolve(SETTINGS)
    )
    assert evaluation.baselines.untrained.items == swapped.items
    assert evaluation.items != swapped.items
    assert swapped.baselines.untrained is None
    assert swapped.baselines.pixels.items == evaluation.baselines.pixels.items


def test_a_size_that_is_left_out_is_warned_of_once(caplog):
    with caplog.at_level("WARNING"):
        result = evaluate(glyphs())
    assert result.baselines.untrained is not None
    warned = [text for text in caplog.messages if "size 50 are not evaluated" in text]
    assert len(warned) == 1


@pytest.mark.parametrize("num_items", [8, 900])
def test_an_untrained_encoder_that_sees_one_point_gets_batch_statistics(num_items, monkeypatch):
    dataset = glyphs(num_labels=3, num_items=num_items)
    config = resolve({"encoder": {"name": "convnet"}, "training": {"seed": 3}})
    plain = build_method(config, FORMAT).encoder
    as_it_is = untrained(config, dataset).encoder
    torch.testing.assert_close(plain.state_dict(), as_it_is.state_dict())

    monkeypatch.setattr(runs, "ONE_POINT", 10.0)  # as if a convnet were as deep as EfficientNet
    encoder = untrained(config, dataset).encoder
    sample = dataset.gather(range(0, len(dataset), max(1, len(dataset) // 1000)))
    stem = encoder.backbone.stem(sample / 255)
    norm = encoder.backbone.stem_norm
    # A mean over parts is the mean over all up to the parts' unequal lengths.
    torch.testing.assert_close(norm.running_mean, stem.mean(dim=(0, 2, 3)), atol=0.01, rtol=0.01)
    torch.testing.assert_close(norm.running_var, stem.var(dim=(0, 2, 3)), atol=0.01, rtol=0.05)
    torch.testing.assert_close(dict(plain.named_parameters()), dict(encoder.named_parameters()))
    assert untrained(resolve({"evaluation": {"baselines": False}}), dataset) is None


@pytest.mark.slow
def test_an_untrained_efficientnet_tells_items_apart():
    dataset = glyphs()
    untaught = untrained(resolve({"encoder": {"name": "efficientnet_b2"}}), dataset)
    assert float(embedding_spread(untaught.encode(dataset.gather(range(24))))) > 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_written(value, evaluation):
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"a": [1.0, value]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(dataclasses.replace(evaluation, seconds=value))


def test_json_ends_with_a_newline_and_reads_back():
    assert as_json({"a": [1, None]}).endswith("}\n")
    assert json.loads(as_json(OneShotResult(1, 0.5, (0.5,)))) == {
        "num_runs": 1,
        "error_mean": 0.5,
        "error_per_run": [0.5],
    }


def test_a_one_shot_task_is_read_only_where_it_is_asked_for_and_fits(tmp_path):
    vectors = dataclasses.replace(glyphs(), item_format=ItemFormat("vector", 3, 1))
    asked = resolve(SETTINGS, {"evaluation": {"one_shot": str(tmp_path)}})
    assert load_task(resolve(SETTINGS), vectors) is None
    with pytest.raises(InputError, match="are vectors"):
        load_task(asked, vectors)
    with pytest.raises(InputError, match=r"class_labels\.txt"):
        load_task(asked, glyphs())


def test_the_environment_names_versions_and_hardware_but_no_place_or_person():
    found = environment(torch.device("cpu"))
    assert found["setrep"] == setrep.__version__
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    hardware = ["device", "gpu", "cpu", "cores", "memory_gib", "threads"]
    assert list(found) == ["setrep", "commit", "python", "versions", *hardware]
    assert str(Path.home()) not in json.dumps(found)
