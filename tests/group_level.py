"""Runs that learn collections, on vectors of six labels in natural collections of five."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from setrep.reports import runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six labels of vectors, each in four natural collections of five."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) // 20
    values = generator.normal(size=(6, 6))[labels] + 0.3 * generator.normal(size=(120, 6))
    path = tmp_path_factory.mktemp("data") / "six.npz"
    np.savez(path, values=values.astype(np.float32), labels=labels, keys=np.arange(120) // 5)
    return path


def asked(path: Path, output: Path, **more) -> dict:
    base = {
        "data": {"dataset": "vectors", "data_root": str(path), "collection_level": "key"},
        "episode": {
            "classes_per_episode": 3,
            "collections_per_class": 2,
            "items_per_collection": 2,
            "min_items_per_collection": 1,
        },
        "augmentation": {"noise": 0.1},
        "encoder": {"name": "mlp", "projection_dim": 8},
        "head": {"hidden_dim": 16, "dim": 8},
        "aggregator": "attention",
        "training": {"level": "collections", "max_steps": 6, "log_every": 1, "device": "cpu"},
        "evaluation": {
            "protocol": "held_out_classes",
            "sizes": [2],
            "num_bootstrap": 5,
            "baselines": False,
        },
        "output_dir": str(output),
    }
    for section, values in more.items():
        is_section = isinstance(values, dict) and section != "aggregator"
        base[section] = base.get(section, {}) | values if is_section else values
    return base


def train(settings: dict, *, resume: bool = False):
    return runs.train(runs.configure([settings], resume=resume), resume=resume)
