"""Runs that learn at group level: every loss, continued, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from setrep.errors import InputError
from setrep.set_encoder import SetEncoder
from tests.group_level import asked, train
from tests.group_level import data as data

LEVELS = [
    (level, loss)
    for level in ("collections", "both")
    for loss in (
        "triplet",
        "supcon",
        "nt_xent",
        "n_pair",
        "debiased_negatives",
        "hard_negatives",
        "debiased_positives",
        "debiased_both",
    )
]


@pytest.mark.parametrize(("level", "loss"), LEVELS)
def test_every_loss_trains_collections(level: str, loss: str, data: Path, tmp_path: Path):
    training = {"level": level, "max_steps": 3, "log_every": 1, "device": "cpu"}
    result = train(asked(data, tmp_path / "run", loss={"name": loss}, training=training))
    assert result.evaluation.collections[0].num_queries > 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(line)["loss"]) for line in lines)
    assert ("item_embedding_spread" in lines[0] or "item_" in lines[0]) == (level == "both")
    model = SetEncoder.from_pretrained(tmp_path / "run")
    assert model.aggregator_config.name == "attention"
    trained = model.aggregator.state_dict()["score.weight"]
    assert float(trained.abs().max()) > 0  # it starts at 0


def test_a_continued_run_has_the_weights_of_an_unbroken_one(data: Path, tmp_path: Path):
    more = {"loss": {"name": "debiased_negatives", "tau_plus": "auto"}}
    train(asked(data, tmp_path / "whole", **more))
    stopped = {"level": "collections", "max_steps": 6, "log_every": 1, "device": "cpu"}
    late = asked(data, tmp_path / "cut", **more, training=stopped | {"max_minutes": 1e-6})
    assert train(late).reason == "out_of_time"
    again = asked(data, tmp_path / "cut", **more, training=stopped | {"max_minutes": None})
    assert train(again, resume=True).reason == "finished"
    whole, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")
    )
    assert whole == other


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training": {"level": "items"}}, "attention has weights to learn"),
        ({"miner": {"start_step": 3}}, "leave miner.start_step at 0"),
        ({"miner": {"positives": "same_collection"}}, "miner.positives at any"),
        ({"miner": {"positives": "cross_collection"}}, "miner.positives at any"),
        ({"episode": {"collections_per_class": 1}}, "collections_per_class must be at least 2"),
        ({"training": {"level": "both", "collections_weight": 1.0}}, "between 0 and 1, not at 1"),
        ({"training": {"level": "both", "collections_weight": 0.0}}, "between 0 and 1, not at 0"),
        (
            {"training": {"level": "both", "collections_weight": 1}, "loss": {"name": "nt_xent"}},
            "between 0 and 1, not at 1",
        ),
        ({"training": {"collections_weight": 0.3}}, "read at --level both only"),
        ({"data": {"partition_size": 5}}, "is for --collection-level partition"),
        (
            {
                "loss": {"name": "nt_xent"},
                "data": {"collection_level": "partition", "partition_size": 3},
            },
            "partition_size=3 items cannot be parted",
        ),
        (
            {
                "loss": {"name": "nt_xent"},
                "aggregator": "centroid",
                "training": {"level": "items"},
                "augmentation": {"noise": 0.1},
                "episode": {"contamination": 0.3},
            },
            "draws items one by one",
        ),
        ({"aggregator": {"name": "attention", "num_seeds": 2}}, "no option 'num_seeds'"),
        ({"aggregator": "atention"}, "Did you mean 'attention'"),
        ({"loss": {"name": "difficulty_weighted"}}, "compares items"),
        (
            {"loss": {"name": "nt_xent"}, "episode": {"collections_per_class": 1}},
            "at least 2, not 1",
        ),
        (
            {"loss": {"name": "n_pair"}, "episode": {"collections_per_class": 3}},
            "two views, not episode.collections_per_class=3",
        ),
        ({"episode": {"min_items_per_collection": 3}}, "at most items_per_collection"),
        (
            {"loss": {"name": "nt_xent"}, "data": {"collection_level": "sampled"}},
            "for example partition",
        ),
        ({"data": {"collection_level": "kye"}}, "partition"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(
    more: dict, message: str, data: Path, tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        train(asked(data, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()
