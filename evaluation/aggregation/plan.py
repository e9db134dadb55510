"""Which data, encoders and aggregators are compared, and which cells that makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from setrep.config import merge

SUITE = "aggregation"
# Aggregators without weights to learn are measured on the embeddings as they are.
FREE: dict[str, dict[str, Any]] = {
    name: {"name": name}
    for name in (
        "centroid",
        "sum",
        "max",
        "directional_mean",
        "geometric_median",
        "trimmed_mean",
        "median",
        "quantiles",
        "gem",
        "mean_std",
        "concat",
    )
}
LEARNED: dict[str, dict[str, Any]] = {
    name: {"name": name}
    for name in (
        "attention",
        "nan",
        "pma",
        "set_transformer",
        "deep_sets",
        "netvlad",
        "sliced_wasserstein",
        "covariance",
    )
}
END_TO_END = ("centroid", "attention", "pma", "deep_sets")
TRANSFER = ("attention", "pma", "set_transformer", "deep_sets")
TRAINED_UNDER = (0.0, 0.3)  # contamination of the collections that learned ones are trained on
CONDITIONS = (
    ("clean", 0.0),
    *((kind, rate) for kind in ("strangers", "noise", "occlusion") for rate in (0.1, 0.3)),
)


@dataclass(frozen=True)
class Source:
    """A data set: how its encoder is trained, and what is measured on it."""

    settings: dict[str, Any]
    sizes: tuple[int, ...]
    transfer_sizes: tuple[int, int] | None = None
    classes_per_episode: int = 16  # that an aggregator is trained on
    steps_factor: int = 1  # steps of its encoder, in those of the plan
    # Of the classes held out: a share for validation where the test split holds trained classes.
    shares_held_out: bool = False


class Setting(NamedTuple):
    """An aggregator as it is measured: its name, and what collections it was trained on."""

    aggregator: str
    contamination: float | None = None  # none: it has nothing to learn, or learned end to end
    trained_size: int | None = None  # of every collection trained on; none: any


Key = tuple[str, Setting]  # frozen or end to end, and which
CENTROID: Key = ("frozen", Setting("centroid"))
SHOWN = (("clean", 0.0), ("strangers", 0.3), ("noise", 0.3), ("occlusion", 0.3))


@dataclass(frozen=True)
class Cell:
    """One process and one result: all aggregators on one encoder, or one trained end to end."""

    budget: str
    source: str
    seed: int
    aggregator: str | None  # none: all, on frozen embeddings
    max_steps: int
    learned_steps: int
    num_queries: int

    @property
    def name(self) -> str:
        """Name of the cell within its budget."""
        return f"{self.source}-{self.aggregator or 'frozen'}-seed{self.seed}"


ENCODER_OF_ALL: dict[str, Any] = {
    "evaluation": {"sizes": [5], "num_bootstrap": 1, "baselines": False, "split": "validation"},
    "training": {"checkpoint_every": 200, "log_every": 50},
}
SUPCON = {"name": "supcon", "temperature": 0.1}
OMNIGLOT: dict[str, Any] = {
    "data": {"dataset": "omniglot", "image_size": 32, "num_validation_groups": 5},
    "encoder": {"normalize": True},
    "loss": SUPCON,
    "episode": {"classes_per_episode": 32, "collections_per_class": 2, "items_per_collection": 2},
}
SOURCES: dict[str, Source] = {
    "digits": Source(
        {
            "data": {"dataset": "digits", "num_validation_groups": 2},
            "episode": {"classes_per_episode": 5},
        },
        sizes=(1, 5),
        classes_per_episode=5,
    ),
    "omniglot_characters": Source(OMNIGLOT, sizes=(1, 2, 5, 10)),
    "omniglot_alphabets": Source(
        merge(
            OMNIGLOT,
            {
                "data": {"label_level": "alphabet"},
                "augmentation": {"rotated_classes": False},
                "episode": {"classes_per_episode": 16, "items_per_collection": 4},
            },
        ),
        sizes=(1, 2, 5, 10, 20),
        transfer_sizes=(5, 20),
    ),
    "cifar100": Source(
        {
            "data": {"dataset": "cifar100", "image_size": 24, "num_validation_groups": 40},
            "encoder": {"name": "convnet_small", "projection": "linear", "normalize": True},
            "loss": SUPCON,
            "episode": {
                "classes_per_episode": 32,
                "collections_per_class": 2,
                "items_per_collection": 2,
            },
            "optimizer": {"lr": 2e-3},
            "evaluation": {"protocol": "held_out_classes"},
        },
        sizes=(1, 2, 5, 10, 20),
        transfer_sizes=(5, 20),
        steps_factor=3,
        shares_held_out=True,
    ),
}
# sources, seeds, steps of an encoder, steps of an aggregator, queries of each measurement
PLANS: dict[str, tuple[tuple[str, ...], range, int, int, int]] = {
    "smoke": (("digits",), range(1), 30, 10, 50),
    "cpu": (("omniglot_characters", "omniglot_alphabets", "cifar100"), range(3), 600, 300, 500),
    "full": (("omniglot_characters", "omniglot_alphabets", "cifar100"), range(3), 6000, 2000, 2000),
}


def cells(budget: str) -> list[Cell]:
    """List the cells of a budget: of each seed first the frozen ones, then those end to end."""
    sources, seeds, steps, learned_steps, num_queries = PLANS[budget]
    wholes = END_TO_END[:2] if budget == "smoke" else END_TO_END
    return [
        Cell(budget, source, seed, aggregator, steps, learned_steps, num_queries)
        for seed in seeds
        for aggregators in ((None,), wholes)
        for aggregator in aggregators
        for source in sources
    ]


def encoder_settings(cell: Cell) -> dict[str, Any]:
    """Return the settings of the encoder that a cell measures."""
    source = SOURCES[cell.source]
    steps = cell.max_steps * source.steps_factor
    training = {"seed": cell.seed, "max_steps": steps, "method": "supervised"}
    settings = merge(merge(ENCODER_OF_ALL, source.settings), {"training": training})
    if cell.aggregator is None:
        return settings
    whole = {
        "aggregator": {"name": cell.aggregator, "normalize": True},  # as the loss sees it
        "training": {"level": "both"},
        "episode": {"items_per_collection": 4, "min_items_per_collection": 1},
    }
    return merge(settings, whole)


def learned_settings(
    cell: Cell, aggregator: str, contamination: float, size: int | None
) -> dict[str, Any]:
    """Return the settings of an aggregator that is trained on embeddings as they are.

    Collections have from one item to the largest size that two of a class allow, or all `size`.
    """
    largest = min(max(SOURCES[cell.source].sizes), 10) if size is None else size
    return {
        "data": {"dataset": "vectors"},
        "encoder": {"name": "identity", "projection": "none", "normalize": False},
        "aggregator": LEARNED[aggregator],
        "loss": {"name": "triplet", "soft": True},
        "episode": {
            "classes_per_episode": SOURCES[cell.source].classes_per_episode,
            "collections_per_class": 2,
            "items_per_collection": largest,
            "min_items_per_collection": 1 if size is None else None,
            "contamination": contamination,
        },
        "training": {
            "level": "collections",
            "seed": cell.seed,
            "max_steps": cell.learned_steps,
            "checkpoint_every": 1000,
            "log_every": 100,
        },
        "evaluation": ENCODER_OF_ALL["evaluation"],
    }


def settings_of(cell: Cell) -> list[Setting]:
    """List what a cell measures."""
    if cell.aggregator is not None:
        return [Setting(cell.aggregator)]
    if cell.budget == "smoke":
        return [Setting("centroid"), Setting("median"), Setting("attention", 0.3)]
    sizes = SOURCES[cell.source].transfer_sizes or ()
    return [
        *(Setting(name) for name in FREE),
        *(Setting(name, rate) for name in LEARNED for rate in TRAINED_UNDER),
        *(Setting(name, 0.0, size) for name in TRANSFER for size in sizes),
    ]


def name_of(key: Key) -> str:
    """Name a setting for people."""
    return key[1].aggregator + (", end to end" if key[0] == "end to end" else "")
