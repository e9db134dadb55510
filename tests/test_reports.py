"""Results as JSON with every key, and as tables that fit a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import setrep
from setrep.aggregators import CentroidAggregator
from setrep.config import resolve
from setrep.data.dataset import ItemDataset
from setrep.data.one_shot import OneShotTask
from setrep.encoders import build_encoder
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from setrep.methods.supervised import embedding_spread
from setrep.protocols.results import OneShotResult
from setrep.reports import runs
from setrep.reports.evaluation import as_json, evaluate_set_encoder, load_task
from setrep.reports.runs import untrained
from setrep.reports.search import query_table
from setrep.reports.tables import bounds_table, evaluation_table, percent, verdict
from setrep.retrieval import Match
from setrep.set_encoder import SetEncoder
from setrep.training.build import build_method
from setrep.training.run_directory import environment

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

FORMAT = ItemFormat("image", 1, 8)
SETTINGS = {
    "encoder": {"projection_dim": 4},
    "evaluation": {"sizes": [1, 3, 50], "num_bootstrap": 20},
    "training": {"seed": 3},
}


def glyphs(num_labels: int = 6, num_items: int = 8) -> ItemDataset:
    """Draw a small data set of noise."""
    noise = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_labels), num_items)
    return ItemDataset(
        name="glyphs",
        split="test",
        items=noise.integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8),
        labels=labels.astype(np.int64),
        label_names=tuple(f"glyph {label}" for label in range(num_labels)),
        item_format=FORMAT,
        label_level="glyph",
        source_note=f"{num_labels} of 9 glyphs",
    )


def write_one_shot_task(root: Path) -> Path:
    """Write a task of one run, whose test images are its training images."""
    lines = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        pair = [f"run01/test/item{number}.png", f"run01/training/class{number}.png"]
        for name in pair:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name)
        lines.append(" ".join(pair))
    (root / "run01" / "class_labels.txt").write_text("\n".join(lines))
    return root


def set_encoder(config, seed: int) -> SetEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(config.encoder, FORMAT)
    return SetEncoder(
        encoder,
        CentroidAggregator(encoder.dim),
        item_format=FORMAT,
        encoder_config=config.encoder,
        aggregator_name="centroid",
    )


def evaluate(dataset: ItemDataset, task: OneShotTask | None = None, **changes):
    config = resolve(SETTINGS, changes)
    return evaluate_set_encoder(
        set_encoder(config, 0), set_encoder(config, 1), dataset, task, config
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    task = write_one_shot_task(tmp_path_factory.mktemp("one_shot"))
    config = resolve(SETTINGS, {"evaluation": {"one_shot": str(task)}})
    return evaluate(glyphs(), load_task(config, glyphs()))


@pytest.fixture(scope="module")
def plain():
    return evaluate(glyphs(1, 2), evaluation={"baselines": False})


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
    assert set(found["bounds"]) == {"karimov", "margin_plus_max", "chamfer"}


def test_what_is_absent_is_null_and_not_missing(plain):
    found = json.loads(as_json(plain))
    assert list(found) == TOP
    absent = ("linear_probe", "one_shot", "bounds", "baselines")
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
        set_encoder(resolve(SETTINGS), 1), None, glyphs(), None, resolve(SETTINGS)
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


def test_baselines_that_are_not_beaten_are_named(evaluation):
    items = evaluation.items

    def with_map(**scores):
        found = {
            name: dataclasses.replace(
                getattr(evaluation.baselines, name),
                items=dataclasses.replace(items, map_at_r=value),
            )
            for name, value in scores.items()
        }
        own = dataclasses.replace(items, map_at_r=0.5)
        baselines = dataclasses.replace(evaluation.baselines, **found)
        return verdict(dataclasses.replace(evaluation, items=own, baselines=baselines))

    assert with_map(pixels=0.4, untrained=0.4) is None
    one = with_map(pixels=0.617, untrained=0.4)
    assert one == "Items, MAP@R: 50.0, no better than pixels (61.7)."
    both = with_map(pixels=0.5, untrained=0.6)
    assert both.endswith("no better than pixels (50.0) and the untrained encoder (60.0).")
    assert verdict(dataclasses.replace(evaluation, baselines=None)) is None


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


def shown(table, width: int = 80) -> str:
    """Print a table as to a terminal of some width."""
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False).print(table)
    return out.getvalue()


def cells(text: str) -> str:
    """Return the words of a table without its lines and breaks."""
    return " ".join("".join(c if c.isascii() or c in "–…" else " " for c in text).split())


def test_a_percentage_has_one_decimal_and_an_absent_one_a_dash():
    assert [percent(x) for x in (0.0, 1 / 3, 1.0, None)] == ["0.0", "33.3", "100.0", "–"]


@pytest.mark.parametrize("encoder", ["convnet", "timm:vit_small_patch16_224.augreg_in21k"])
def test_an_evaluation_fits_80_columns_with_all_its_numbers(encoder, evaluation):
    result = dataclasses.replace(evaluation, encoder=encoder)
    text = shown(evaluation_table(result))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    columns = {"untrained": result.baselines.untrained, "pixels": result.baselines.pixels}
    assert all(name in text for name in columns)
    for scores in (result, *columns.values()):
        for value in (scores.items.recall_at_1, scores.items.map_at_r, scores.items.knn_top1):
            assert f" {percent(value)} " in text
        low, high = scores.collections[0].recall_at_1_ci95
        assert f"[{percent(low)}," in text
        assert f"{percent(high)}]" in text
    words = cells(text)
    for size in (1, 3):
        assert f"sets of {size}:" in words
    assert "sets of 50" not in words  # nothing to show
    assert "one-shot task" in words


def test_an_evaluation_without_baselines_or_sets_is_shown(plain):
    text = shown(evaluation_table(plain))
    assert "1 of 9 glyphs" in text
    assert "pixels" not in text


def test_names_are_shown_as_they_are(evaluation):
    note = "[bold]my[/x] :smile: photos"
    text = shown(evaluation_table(dataclasses.replace(evaluation, source_note=note)), 120)
    assert note in text


def bound_row(**changes):
    row = {
        "kind": "upper",
        "class": "a_priori",
        "applies": True,
        "why_not": None,
        "num_checked": 1_000_000,
        "num_violations": 0,
        "tightness_median": 0.8434,
        "tightness_p05": 0.2,
        "tightness_p95": 1.0,
        "slack_median": 0.1,
    }
    return row | changes


def test_bounds_fit_80_columns_with_all_their_numbers():
    nothing = dict.fromkeys(("tightness_median", "tightness_p05", "tightness_p95"))
    why = "It bounds centroids; this aggregator is 'attention'."
    report = {
        "summary": {
            "margin_plus_max": bound_row(),
            "violated": bound_row(num_violations=12_345),
            "undefined": bound_row(**nothing),
            "elsewhere": bound_row(applies=False, why_not=why, num_checked=0),
        }
    }
    text = shown(bounds_table(report))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in ("margin_plus_max", "1000000", "12345", "0.843 [0.200, 1.000]", "–"):
        assert part in text
    for word in why.split():
        assert word in text


def test_matches_fit_80_columns_with_whole_names_and_scores():
    name = "a/very/long/" + "path" * 30
    matches = [Match(name, -1.5, "[bold]", None), Match(0, -12345.6789, 0, None)]
    text = shown(query_table(matches))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    column = [line.split("│")[2].strip() for line in text.splitlines() if line.count("│") == 5]
    assert name in "".join(column)
    for part in ("-1.5", "-12345.7", "[bold]", " 0 "):
        assert part in text
    assert "–" in shown(query_table([Match("a", -0.0, None, None)]))
    assert "-0" not in shown(query_table([Match("a", -0.0, None, None)]))


def test_the_environment_names_versions_and_hardware_but_no_place_or_person():
    found = environment(torch.device("cpu"))
    assert found["setrep"] == setrep.__version__
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    hardware = ["device", "gpu", "cpu", "cores", "memory_gib", "threads"]
    assert list(found) == ["setrep", "commit", "python", "versions", *hardware]
    assert str(Path.home()) not in json.dumps(found)
