"""Evaluations of small set encoders on noise, with all there is to report and with little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from setrep.aggregators import CentroidAggregator
from setrep.config import AggregatorConfig, resolve
from setrep.data.dataset import ItemDataset
from setrep.data.one_shot import OneShotTask
from setrep.encoders import build_encoder
from setrep.item_format import ItemFormat
from setrep.reports.evaluation import EvaluationData, evaluate_set_encoder, load_task
from setrep.set_encoder import SetEncoder

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
        aggregator_config=AggregatorConfig(),
    )


def evaluate(dataset: ItemDataset, task: OneShotTask | None = None, **changes):
    config = resolve(SETTINGS, changes)
    return evaluate_set_encoder(
        set_encoder(config, 0), set_encoder(config, 1), EvaluationData(dataset, task=task), config
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    task = write_one_shot_task(tmp_path_factory.mktemp("one_shot"))
    config = resolve(SETTINGS, {"evaluation": {"one_shot": str(task)}})
    return evaluate(glyphs(), load_task(config, glyphs()))


@pytest.fixture(scope="module")
def plain():
    return evaluate(glyphs(1, 2), evaluation={"baselines": False})
