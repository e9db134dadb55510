"""What the protocols return: the parts of `evaluation.json`, field for field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ItemResult:
    """How well neighbours of an item share its label; fractions in [0, 1]."""

    num_queries: int
    num_bank: int  # items that each query is compared with
    num_classes: int
    knn_k: int  # as used: never more than `num_bank`
    knn_temperature: float
    knn_top1: float
    knn_top5: float
    worst_class_top1: float
    recall_at_1: float
    map_at_r: float | None  # none when no query has a relevant item, and for `train_bank`


@dataclass(frozen=True)
class CollectionResult:
    """How well neighbours of a collection of `size` items share its label.

    A size that no label can serve has `num_queries=0` and no numbers.
    """

    size: int
    num_queries: int
    num_gallery: int
    num_classes: int
    recall_at_1: float | None
    recall_at_5: float | None
    map_at_r: float | None
    recall_at_1_ci95: tuple[float, float] | None  # none with fewer than five classes


@dataclass(frozen=True)
class PairedDifference:
    """Recall@1 of one embedding minus that of another, on the same queries and galleries."""

    size: int | None  # of the collections; none for items
    num_queries: int
    num_classes: int
    difference: float
    ci95: tuple[float, float] | None  # none with fewer than five classes


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy of tasks that tell `ways` classes apart from `shots` items of each, a fraction."""

    ways: int
    shots: int
    num_tasks: int
    accuracy: float
    ci95: tuple[float, float]  # of the mean over tasks, which share classes and items


@dataclass(frozen=True)
class OneShotResult:
    """Share of wrong answers, over runs and in each."""

    num_runs: int
    error_mean: float
    error_per_run: tuple[float, ...]


@dataclass(frozen=True)
class LinearProbeResult:
    """How well a linear classifier of frozen embeddings does; fractions in [0, 1]."""

    num_train: int
    num_test: int
    num_classes: int  # among the training labels
    top1: float
    top5: float
    worst_class_top1: float
    l2: float  # as chosen on training embeddings held out
    num_steps: int
    is_converged: bool


@dataclass(frozen=True)
class Scores:
    """What is measured of one embedding, learned or baseline."""

    items: ItemResult | None
    collections: tuple[CollectionResult, ...]
    one_shot: OneShotResult | None = None


@dataclass(frozen=True)
class Baselines:
    """The same measures without learning."""

    pixels: Scores | None
    untrained: Scores | None


@dataclass(frozen=True)
class Evaluation:
    """All of `evaluation.json`; `dataclasses.asdict` gives its object."""

    schema: int
    protocol: Literal["held_out_classes", "train_bank"]
    dataset: str
    source_note: str
    split: str
    label_level: str
    collection_level: str
    seed: int
    encoder: str
    aggregator: str
    model_sha256: str
    items: ItemResult | None
    collections: tuple[CollectionResult, ...]
    class_balance: dict[str, Any] | None  # of the bank, where there is one
    linear_probe: dict[str, Any] | None
    one_shot: OneShotResult | None
    bounds: dict[str, Any] | None
    baselines: Baselines | None
    seconds: float
