"""The page of which items count: shares, weights, strangers, and when it is written."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from setrep.aggregators import build_aggregator
from setrep.config import AggregatorConfig, resolve
from setrep.errors import InputError
from setrep.metrics import bootstrap_over_classes
from setrep.reports import runs
from setrep.reports.pages import picture
from setrep.reports.weights import NUM_BOOTSTRAP, write_weights
from tests.evaluations import SETTINGS, glyphs, set_encoder

SIZE, NAME = 5, "<script>alert(1)</script>"


def weighing(name: str, **options):
    """Return a set encoder whose aggregator is the one named."""
    encoder = set_encoder(resolve(SETTINGS), 0)
    encoder.aggregator = build_aggregator(name, encoder.dim, **options).eval()
    encoder.aggregator_config = AggregatorConfig(name=name, **options)
    return encoder


def named_glyphs():
    return dataclasses.replace(glyphs(), label_names=(NAME, *glyphs().label_names[1:]))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    encoder = weighing("attention", num_heads=2)
    report = write_weights(directory, encoder, named_glyphs(), SIZE, seed=3)
    return report, encoder, directory


def test_shares_are_means_over_collections_with_strangers(page):
    report, encoder, _ = page
    dataset = named_glyphs()
    assert report["num_collections"] == len(report["collections"]) == 6  # one of each label
    assert {of["label"] for of in report["collections"]} == set(dataset.label_names)
    share = weight = 0.0
    for collection in report["collections"]:
        items = collection["items"]
        assert len(items) == SIZE
        assert any(not item["is_stranger"] for item in items)
        for item in items:
            assert item["label"] == dataset.label_names[dataset.labels[item["item"]]]
            assert item["is_stranger"] == (item["label"] != collection["label"])
            assert item["weight"] == pytest.approx(np.mean(item["of_heads"]))
        weights = [item["weight"] for item in items]
        assert weights == sorted(weights, reverse=True)
        pixels = dataset.gather([item["item"] for item in items])
        _, expected = encoder.encode_collections([pixels], return_weights=True)
        heads = torch.tensor([item["of_heads"] for item in items])
        torch.testing.assert_close(heads, expected.values)
        strangers = [item for item in items if item["is_stranger"]]
        assert collection["weight_of_strangers"] == pytest.approx(
            sum(item["weight"] for item in strangers), abs=1e-6
        )
        share += len(strangers) / SIZE / 6
        weight += collection["weight_of_strangers"] / 6
    assert 0 < share < 1
    assert report["share_of_strangers"] == pytest.approx(share)
    assert report["weight_of_strangers"] == pytest.approx(weight)
    of_labels = torch.tensor([of["weight_of_strangers"] for of in report["collections"]]).double()
    labels = torch.tensor([dataset.label_names.index(of["label"]) for of in report["collections"]])
    low, high = bootstrap_over_classes(of_labels, labels, NUM_BOOTSTRAP, 3)
    assert report["weight_of_strangers_interval"] == pytest.approx((low, high), abs=1e-6)
    assert low < weight < high


def test_where_all_items_count_alike_strangers_get_their_share(tmp_path):
    report = write_weights(tmp_path, weighing("centroid"), glyphs(), SIZE, seed=3)
    assert report["weight_of_strangers"] == pytest.approx(report["share_of_strangers"])


def test_the_page_stands_alone_and_shows_what_the_json_says(page):
    report, _, directory = page
    html = (directory / "weights.html").read_text()
    assert json.loads((directory / "weights.json").read_text()) == json.loads(json.dumps(report))
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    items = [item for of in report["collections"] for item in of["items"]]
    assert html.count("<figure") == len(items) == html.count('src="data:image/png')
    assert html.count('class="marked"') == sum(item["is_stranger"] for item in items) > 0
    dataset = named_glyphs()
    for item in items:
        assert picture(dataset, item["item"]) in html
        heads = ", ".join(f"{100 * head:.1f}" for head in item["of_heads"])
        assert f"{100 * item['weight']:.1f} % ({heads})" in html
    assert f"<b>{100 * report['weight_of_strangers']:.1f} %</b>" in html


def test_the_same_run_gives_the_same_page_and_another_seed_another(page, tmp_path):
    report, encoder, _ = page
    again = write_weights(tmp_path, encoder, named_glyphs(), SIZE, seed=3)
    assert again | {"run": report["run"]} == report
    other = write_weights(tmp_path, encoder, named_glyphs(), SIZE, seed=4)
    assert other["collections"] != report["collections"]


def test_few_labels_have_no_interval_and_one_has_no_strangers(tmp_path):
    encoder = weighing("geometric_median")
    report = write_weights(tmp_path, encoder, glyphs(3), SIZE, seed=0)
    assert report["weight_of_strangers_interval"] is None
    assert "interval" not in (tmp_path / "weights.html").read_text()
    with pytest.raises(InputError, match="one label"):
        write_weights(tmp_path, encoder, glyphs(1), SIZE, seed=0)


def test_of_many_labels_some_are_drawn_and_few_are_shown(tmp_path):
    report = write_weights(tmp_path, weighing("geometric_median"), glyphs(250), SIZE, seed=0)
    assert report["num_collections"] == 200
    assert len(report["collections"]) == 6
    places = [int(of["label"].split()[1]) for of in report["collections"]]
    assert places != sorted(places)
    # Each of five items with probability 0.3, but never all of them.
    assert report["share_of_strangers"] == pytest.approx(0.3, abs=0.03)


def test_natural_collections_stay_whole(tmp_path):
    dataset = glyphs()
    keys = np.arange(48) // 4
    dataset = dataclasses.replace(
        dataset, keys=keys, key_names=tuple(map(str, range(12))), collection_level="key"
    )
    report = write_weights(tmp_path, weighing("geometric_median"), dataset, 4, seed=0)
    for collection in report["collections"]:
        own = {keys[n["item"]] for n in collection["items"] if not n["is_stranger"]}
        assert len(own) == 1


def train(data, output, **changes):
    asked = {
        "data": {"dataset": "vectors", "data_root": str(data)},
        "training": {"max_steps": 2, "device": "cpu"},
        "episode": {"classes_per_episode": 2, "items_per_collection": 2},
        "evaluation": {"sizes": [1, 3], "num_bootstrap": 5, "protocol": "train_bank", "knn_k": 3},
        "output_dir": str(output),
    }
    return runs.train(runs.configure([asked, changes])).directory


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    values = generator.normal(size=(3, 6))[labels] + generator.normal(size=(60, 6))
    path = tmp_path_factory.mktemp("data") / "three.npz"
    splits = np.where(np.arange(60) < 30, "train", "test")
    np.savez(path, values=values.astype(np.float32), labels=labels, splits=splits)
    return path


def test_a_run_whose_items_differ_in_weight_has_the_page(vectors, tmp_path, capsys):
    attention = {"aggregator": {"name": "attention"}, "training": {"level": "collections"}}
    run = train(vectors, tmp_path / "attention", **attention)
    shown = capsys.readouterr().err
    assert f"Which items of collections count: {run / 'weights.html'}" in shown.replace("\n", "")
    html = (run / "weights.html").read_text()
    assert json.loads((run / "weights.json").read_text())["size"] == 3
    assert "<img" not in html  # vectors have no picture
    (run / "weights.html").unlink()
    runs.evaluate(run, output=tmp_path / "elsewhere.json")
    assert not (run / "weights.html").exists()
    runs.evaluate(run)
    assert (run / "weights.html").read_text() == html


@pytest.mark.parametrize(
    ("name", "sizes"), [("centroid", [3]), ("max", [3]), ("geometric_median", [1])]
)
def test_other_runs_have_none(vectors, tmp_path, name, sizes):
    changes = {"aggregator": {"name": name}, "evaluation": {"sizes": sizes}}
    run = train(vectors, tmp_path / name, **changes)
    assert not list(run.glob("weights.*"))


def test_a_collection_without_strangers_is_said_to_have_none(page):
    report, _, directory = page
    without = [of for of in report["collections"] if of["weight_of_strangers"] == 0]
    assert (directory / "weights.html").read_text().count("No strangers.") == len(without)
    assert "sigm(U x)" in report["formula"]
    normalized = build_aggregator("attention", 4, normalize=True)
    assert normalized.formula == f"f / |f|, f = {build_aggregator('attention', 4).formula}"
