"""Which cells the suite has: random triples, digits, and encoders before, while and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from setrep.config import merge

SUITE = "bounds"
CONFIGS = Path(__file__).parents[2] / "configs"
UNTRAINED = {"optimizer": {"lr": 1e-12}}  # a run of one step that moves nothing


@dataclass(frozen=True)
class Cell:
    """One process and one result file."""

    budget: str
    kind: Literal["random", "digits", "encoder"]
    name: str
    settings: dict[str, Any] = field(default_factory=dict)  # of an encoder
    steps: tuple[int, ...] = ()  # at which it is looked at, 0 for untrained
    num_triples: int = 0  # of each shape, or in all


# Karimov 2024: alphabets are labels, and their characters collections.
OMNIGLOT: dict[str, Any] = {
    "data": {
        "dataset": "omniglot",
        "image_size": 32,
        "label_level": "alphabet",
        "collection_level": "character",
    },
    "augmentation": {"rotated_classes": False},
    "episode": {"classes_per_episode": 16, "collections_per_class": 2, "items_per_collection": 4},
    "loss": {"name": "triplet", "soft": False, "reduction": "mean_nonzero"},
    "miner": {"name": "semi_hard"},
    "optimizer": {"schedule": "constant"},
    "training": {"checkpoint_every": 200, "log_every": 50},
    "evaluation": {"sizes": [5, 10, 20], "num_bootstrap": 1, "baselines": False},
}
DIGITS: dict[str, Any] = {
    "data": {"dataset": "digits"},
    "encoder": {"name": "mlp"},
    "loss": {"name": "triplet"},
    "episode": {"classes_per_episode": 5},
    "optimizer": {"schedule": "constant"},
    "evaluation": {"sizes": [5], "num_bootstrap": 1, "baselines": False},
}
LENGTHS: dict[str, dict[str, Any]] = {
    "unit": {"encoder": {"normalize": True}},
    "free": {"encoder": {"normalize": False}, "loss": {"margin": 1.0}},
}


def karimov(lengths: dict[str, Any]) -> dict[str, Any]:
    """Return the shipped config of Karimov's experiment, on unit or free embeddings."""
    shipped = yaml.safe_load((CONFIGS / "omniglot_efficientnet_b2_triplet.yaml").read_text())
    return merge(shipped, lengths)


def cells(budget: str) -> list[Cell]:
    """List the cells of a budget."""
    if budget == "smoke":
        return [
            Cell(budget, "random", "random", num_triples=100),
            Cell(budget, "digits", "digits", num_triples=20),
            Cell(budget, "encoder", "digits-free-seed0", DIGITS, (0, 2), 20),
        ]
    steps = (0, 50, 200, 800) if budget == "cpu" else (0, 500, 2000, 8000)
    return [
        Cell(budget, "random", "random", num_triples=10_000 if budget == "cpu" else 100_000),
        Cell(budget, "digits", "digits", num_triples=200),
        *encoders(budget, "omniglot", OMNIGLOT, range(3), steps, 1000),
        *(
            Cell(budget, "encoder", f"efficientnet_b2-{name}-seed0", karimov(more), (0, 4000), 1000)
            for name, more in LENGTHS.items()
        ),
    ]


def encoders(
    budget: str,
    name: str,
    settings: dict[str, Any],
    seeds: range,
    steps: tuple[int, ...],
    num_triples: int,
) -> list[Cell]:
    """List the cells of an encoder: unit-length and free embeddings, of several seeds."""
    return [
        Cell(
            budget,
            "encoder",
            f"{name}-{length}-seed{seed}",
            merge(merge(settings, more), {"training": {"seed": seed}}),
            steps,
            num_triples,
        )
        for seed in seeds
        for length, more in LENGTHS.items()
    ]
