"""The claims that are tested again: which cells (setting x seed) each suite has at each budget.

Published numbers are single runs of ResNet-18, batch 512 unless noted, Adam, 50 epochs on CIFAR-10:
weighted kNN top-1 after the last epoch (Troeshestova & Isachenko 2023), in part read off figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from setrep.config import merge

BUDGETS = ("smoke", "cpu", "full")
POSITIVES = {"name": "debiased_positives", "estimator": "sum"}  # the code behind most numbers
MEANS = {"name": "debiased_positives", "estimator": "mean"}
LOSSES: dict[str, dict[str, Any]] = {
    "contrastive": {"name": "nt_xent"},
    "debiased_negatives": {"name": "debiased_negatives"},
    "hard_negatives": {"name": "hard_negatives", "beta": 0.5},
    "debiased_positives": POSITIVES,
    "debiased_positives_mean": MEANS,
}


@dataclass(frozen=True)
class Variant:
    """One setting of a suite: what differs, what it is compared with, and what was published."""

    name: str
    settings: dict[str, Any]
    compare_with: str | None = None  # another setting of the suite
    published: float | None = None  # percent
    note: str = ""  # on what was published
    cost: float = 1.0  # steps, relative to the others


@dataclass(frozen=True)
class Cell:
    """One process and one result file: a setting, and the seeds that it runs."""

    suite: str
    budget: str
    source: str  # of the data
    variant: Variant
    seeds: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the cell within its suite and budget."""
        seed = f"-seed{self.seeds[0]}" if len(self.seeds) == 1 else ""
        return f"{self.source}-{self.variant.name}{seed}"


def variant(name: str, published: float | None = None, **loss: Any) -> Variant:
    """Take a loss by its name here, with some options changed."""
    base = None if name == "contrastive" else "contrastive"
    return Variant(name, {"loss": LOSSES[name] | loss}, base, published)


def positives(num_positives: int, how: str, published: float) -> Iterable[Variant]:
    """Debiased positives with M positives, and M = 1 with the same number of views in all."""
    num_views = num_positives + 1
    settings = {"loss": MEANS | {"views": how}, "views": {"num_views": num_views}}
    base = f"m1_views_of_m{num_positives}"
    note = "at batch 64" if num_positives == 4 else ""
    if num_positives == 2 and how == "combination":
        note = "of sums"
    yield Variant(f"m{num_positives}_{how}", settings, base, published, note)


def plain_of(condition: str) -> str:
    """Name the plain loss under the same condition."""
    return f"contrastive-{condition.removesuffix('_published')}"


SUITES: dict[str, tuple[Variant, ...]] = {
    "knn": (
        variant("contrastive", 74.4),
        variant("debiased_negatives", 75.6),
        variant("hard_negatives"),
        variant("debiased_positives", 76.8),
        variant("debiased_positives_mean"),
    ),
    "positives": (
        # Means throughout, so that only the number of positives differs; published are both.
        Variant("m1", {"loss": MEANS}, None, 76.8, "of sums"),
        *positives(2, "grouping", 80.1),
        *positives(2, "combination", 80.5),
        *positives(4, "grouping", 81.75),
        *positives(4, "combination", 82.44),
        Variant("m1_views_of_m2", {"loss": MEANS}, "m1", cost=3 / 2),
        Variant("m1_views_of_m4", {"loss": MEANS}, "m1", cost=5 / 2),
    ),
    "noise": tuple(
        Variant(
            f"{name}-{condition}",
            {
                "loss": LOSSES[name] | ({"drop_false_negatives": drop} if drop else {}),
                "views": {"false_positive_rate": rate},
            },
            None if name == "contrastive" else plain_of(condition),
            published[position],
        )
        for name, published in (
            ("contrastive", (74.4, 82.8, None, 68.9)),
            ("debiased_negatives", (75.6, None, 85.1, 71.1)),
            ("debiased_positives", (76.8, None, 85.2, 73.2)),
        )
        for position, (condition, drop, rate) in enumerate(
            (
                ("clean", None, 0.0),
                ("no_false_negatives", "exclude", 0.0),
                ("no_false_negatives_published", "published", 0.0),
                ("false_positives", None, 0.3),
            )
        )
        # To leave a term out of a sum and to count it as 0 is one thing for the plain loss.
        if not (name == "contrastive" and condition == "no_false_negatives_published")
    ),
}

# Collections of ten items without their labels, of which two disjoint halves are views.
OF_PARTS: dict[str, Any] = {
    "data": {"collection_level": "partition", "partition_size": 10},
    "training": {"level": "collections"},
    "episode": {
        "classes_per_episode": 26,
        "collections_per_class": 2,
        "items_per_collection": 5,
    },
}
SUITES["subcollections"] = (
    variant("contrastive"),  # of augmented items, to see what collections add
    *(
        Variant(
            f"parts-{name}",
            merge(OF_PARTS, {"loss": LOSSES[loss] | options}),
            "contrastive" if name == "contrastive" else "parts-contrastive",
        )
        for name, loss, options in (
            ("contrastive", "contrastive", {}),
            ("debiased_negatives", "debiased_negatives", {"tau_plus": "auto"}),
            ("hard_negatives", "hard_negatives", {"tau_plus": "auto"}),
            ("debiased_positives", "debiased_positives_mean", {"tau_plus": "auto"}),
            ("no_false_negatives", "contrastive", {"drop_false_negatives": "exclude"}),
        )
    ),
)

OF_ALL: dict[str, Any] = {
    "training": {
        "method": "contrastive",
        "checkpoint_every": 200,
        "log_every": 20,
        "precision": "float32",
    },
    "optimizer": {"lr": 1e-3},
    "evaluation": {
        "protocol": "train_bank",
        "sizes": [1],
        "num_bootstrap": 1,
        "baselines": False,
        "every_epochs": 1,
    },
}
SOURCES: dict[str, dict[str, Any]] = {
    "cifar10": {
        "data": {"dataset": "cifar10", "num_train_items": 10_000, "image_size": 24},
        "encoder": {"name": "convnet_small"},
        "training": {"batch_size": 256},
    },
    "cifar10_resnet18": {
        "data": {"dataset": "cifar10"},
        "encoder": {"name": "resnet18"},
        "training": {"batch_size": 512},
    },
    # Ten classes in 32 dimensions; see `mixture.py`.
    "mixture": {
        "data": {"dataset": "vectors"},
        "encoder": {"name": "mlp"},
        "augmentation": {"noise": 0.25},
        "training": {"batch_size": 256},
        "evaluation": {"knn_k": 50},
    },
    "digits": {
        "data": {"dataset": "vectors"},
        "encoder": {"name": "mlp"},
        "augmentation": {"noise": 0.15},
        "training": {"batch_size": 256},
        "evaluation": {"knn_k": 50},
    },
}
# source, epochs, items of an epoch, seeds; vectors run all their seeds in one cell
PLANS: dict[str, tuple[tuple[str, int, int, range], ...]] = {
    "smoke": (("mixture", 1, 2000, range(2)),),
    "cpu": (
        ("mixture", 20, 2000, range(30)),
        ("digits", 20, 1200, range(30)),
        ("cifar10", 10, 10_000, range(3)),
    ),
    "full": (("cifar10_resnet18", 50, 50_000, range(3)),),
}


def cells(suite: str, budget: str) -> list[Cell]:
    """List the cells of a suite, those that can be compared first next to each other."""
    found = []
    for source, epochs, num_items, seeds in PLANS[budget]:
        of_source = merge(OF_ALL, SOURCES[source])
        steps = num_items // of_source["training"]["batch_size"]
        groups = [(seed,) for seed in seeds] if "cifar" in source else [tuple(seeds)]
        for group in groups:
            for one in SUITES[suite]:
                max_steps = {"training": {"max_steps": round(epochs * one.cost * steps)}}
                settings = merge(merge(of_source, one.settings), max_steps)
                found.append(Cell(suite, budget, source, one, group, settings))
    return found
