"""The report of difficulty weighting: numbers, negatives, and a page that stands alone."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from setrep.config import resolve
from setrep.data.dataset import ItemDataset
from setrep.item_format import ItemFormat
from setrep.reports import runs
from setrep.reports.difficulty import NUM_SHOWN, find_anchors, layout, write_report
from setrep.reports.evaluation import EvaluationData
from setrep.reports.pages import picture
from tests.evaluations import SETTINGS, glyphs, set_encoder

CONFIG = resolve(SETTINGS, {"loss": {"name": "difficulty_weighted"}})


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return [normalize(torch.randn(48, 5, generator=generator, dtype=torch.float64)) for _ in "ab"]


def slow_weights(own, biased, anchor: int, items: list[int], t: float) -> dict[int, float]:
    """Weigh the negatives of an anchor as losses.md writes it, number by number."""
    rows = []
    for values in (own, biased):
        row = {i: math.exp(float(values[anchor] @ values[i]) / t) for i in items if i != anchor}
        length = math.sqrt(sum(s * s for s in row.values()))
        rows.append({i: s / length for i, s in row.items()})
    return {i: 1 + d / (rows[1][i] + d + 1e-6) for i, d in rows[0].items()}


def test_negatives_are_ranked_by_the_weight_of_the_loss(embeddings):
    dataset, chosen = glyphs(), torch.arange(47, 7, -1)  # forty of 48, in another order
    anchors = find_anchors(*embeddings, chosen, dataset, 0.5)
    assert len(anchors) == 5  # the first label lies outside what was chosen
    assert len({anchor.label for anchor in anchors}) == len(anchors)
    for anchor in anchors:
        slow = slow_weights(*embeddings, anchor.item, chosen.tolist(), 0.5)
        order = sorted(slow, key=slow.get)
        assert [n.item for n in anchor.easiest] == order[:NUM_SHOWN]
        assert [n.item for n in anchor.hardest] == order[::-1][:NUM_SHOWN]
        for negative in (*anchor.easiest, *anchor.hardest):
            assert negative.weight == pytest.approx(slow[negative.item])
            cosines = [float(of[anchor.item] @ of[negative.item]) for of in embeddings]
            assert [negative.cosine, negative.biased_cosine] == pytest.approx(cosines)
            label = dataset.labels[negative.item]
            assert negative.label == dataset.label_names[label]
            assert negative.is_of_the_same_class == (label == dataset.labels[anchor.item])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    dataset = glyphs()
    names = ("<script>alert(1)</script>", *dataset.label_names[1:])
    data = EvaluationData(dataclasses.replace(dataset, label_names=names))
    report = write_report(directory, set_encoder(CONFIG, 0), set_encoder(CONFIG, 1), data, CONFIG)
    return report, (directory / "difficulty.html").read_text(), directory


def test_the_page_stands_alone_and_shows_what_the_json_says(page):
    report, html, directory = page
    assert json.loads((directory / "difficulty.json").read_text()) == json.loads(json.dumps(report))
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for found in report["encoders"].values():
        for measure in ("knn_top1", "knn_top5", "worst_class_top1"):
            assert f"<td>{100 * found[measure]:.1f}</td>" in html
    num_shown = sum(1 + len(a["easiest"]) + len(a["hardest"]) for a in report["anchors"])
    assert html.count("<figure") == num_shown == html.count('src="data:image/png')
    hidden = [n for a in report["anchors"] for n in (*a["easiest"], *a["hardest"])]
    assert html.count('class="marked"') == sum(n["is_of_the_same_class"] for n in hidden) > 0
    assert html.count("<svg") == 2
    assert html.count("<circle") == 2 * 48


def test_the_same_run_gives_the_same_page(page, tmp_path):
    _, html, directory = page
    again = tmp_path / directory.name
    again.mkdir()
    dataset = dataclasses.replace(
        glyphs(), label_names=("<script>alert(1)</script>", *glyphs().label_names[1:])
    )
    encoders = set_encoder(CONFIG, 0), set_encoder(CONFIG, 1)
    write_report(again, *encoders, EvaluationData(dataset), CONFIG)
    assert (again / "difficulty.html").read_text() == html


def test_a_picture_is_the_image_as_its_file_shows_it():
    for channels, is_inverted in ((1, False), (1, True), (3, False)):
        pixels = np.random.default_rng(0).integers(0, 256, (1, channels, 8, 8), dtype=np.uint8)
        dataset = ItemDataset(
            "noise",
            "test",
            pixels,
            np.zeros(1, np.int64),
            ("one",),
            ItemFormat("image", channels, 8, is_inverted=is_inverted),
            "noise",
        )
        shown = picture(dataset, 0)
        content = base64.b64decode(shown.removeprefix("data:image/png;base64,"))
        read = np.asarray(Image.open(io.BytesIO(content)))
        expected = 255 - pixels[0] if is_inverted else pixels[0]
        assert np.array_equal(read.reshape(8, 8, channels), expected.transpose(1, 2, 0))


def test_a_map_shows_ten_classes_at_most_and_takes_few_items():
    labels = np.repeat(np.arange(12), [3] * 10 + [1, 2])
    dataset = dataclasses.replace(
        glyphs(12, 1), labels=labels, label_names=tuple(f"{n:02}" for n in range(12))
    )
    embeddings = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    points, names = layout(embeddings, dataset, torch.arange(len(labels)), 0)
    assert points.shape == (30, 2)
    assert sorted(set(names)) == [f"{n:02}" for n in range(10)]
    for items in ([0, 3, 6], [0, 3], [0]):
        points, names = layout(embeddings, dataset, torch.tensor(items), 0)
        assert points.shape == (len(items), 2) == (len(names), 2)
        assert np.isfinite(points).all()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Three classes of vectors, split into training and test items."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    values = generator.normal(size=(3, 6))[labels] + 2 * generator.normal(size=(90, 6))
    path = tmp_path_factory.mktemp("data") / "three.npz"
    splits = np.where(np.arange(90) < 60, "train", "test")
    np.savez(path, values=values.astype(np.float32), labels=labels, splits=splits)
    return path


def train(vectors, output):
    asked = {
        "data": {"dataset": "vectors", "data_root": str(vectors)},
        "loss": {"name": "difficulty_weighted"},
        "augmentation": {"noise": 0.3},
        "training": {"max_steps": 4, "batch_size": 30, "device": "cpu"},
        "evaluation": {"sizes": [2], "num_bootstrap": 5, "protocol": "train_bank", "knn_k": 7},
        "output_dir": str(output),
    }
    return runs.train(runs.configure([asked]))


def test_a_run_keeps_both_encoders_and_its_report_says_what_the_evaluation_says(vectors, tmp_path):
    result = train(vectors, tmp_path / "run")
    report = json.loads((result.directory / "difficulty.json").read_text())
    own, biased = report["encoders"]["difficulty_weighted"], report["encoders"]["biased"]
    assert own == dataclasses.asdict(result.evaluation.items)
    assert biased != own
    html = (result.directory / "difficulty.html").read_text()
    assert "<img" not in html  # vectors have no picture
    (result.directory / "difficulty.html").unlink()
    runs.evaluate(result.directory, output=tmp_path / "elsewhere.json")
    assert not list(tmp_path.rglob("difficulty.html"))
    runs.evaluate(result.directory)
    assert (result.directory / "difficulty.html").read_text() == html


def test_a_run_without_its_biased_encoder_is_evaluated_all_the_same(vectors, tmp_path, caplog):
    run = train(vectors, tmp_path / "run").directory
    shutil.rmtree(run / "biased")
    runs.evaluate(run)
    assert f"`setrep train --resume --output-dir {run}` writes it" in caplog.text
    runs.train(runs.configure([{"output_dir": str(run)}], resume=True), resume=True)
    assert (run / "biased" / "model.json").is_file()
