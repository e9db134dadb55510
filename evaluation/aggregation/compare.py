"""Differences from the centroid, class by class: intervals, p-values and their correction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.aggregation.cell import is_done, result_path
from evaluation.aggregation.plan import Cell, Setting
from setrep.metrics import bootstrap_over_classes

NUM_BOOTSTRAP, NUM_FLIPS = 2000, 10_000
Task = tuple[int, str, float]  # size, condition, its probability


@dataclass(frozen=True)
class Measured:
    """What one setting reaches on one split: each seed's recall of each task and class."""

    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    recall: NDArray[np.float64]  # [seed, task]
    map_at_r: NDArray[np.float64]  # [seed, task]
    by_class: NDArray[np.float64]  # [seed, task, class], nan where a class has no query
    num_queries: int  # the fewest of any task


@dataclass(frozen=True)
class Difference:
    """Recall@1 of one setting less that of another, over classes."""

    mean: float
    low: float
    high: float
    p_value: float


def gather(
    cells: Sequence[Cell], results: Path
) -> dict[str, dict[str, dict[tuple[str, Setting], Measured]]]:
    """Read what is done, by source, split, and (frozen or whole, setting)."""
    parts: dict[tuple[str, str, str, Setting], list[tuple[Any, ...]]] = {}
    for cell in cells:
        if not is_done(cell, results):
            continue
        path = result_path(cell, results)
        kept = json.loads(path.read_text())
        rows = [dict(zip(kept["columns"], row, strict=True)) for row in kept["rows"]]
        arrays = dict(np.load(path.with_suffix(".npz")))
        kind = "frozen" if cell.aggregator is None else "end to end"
        for split, by_class in arrays.items():
            of_split = [row for row in rows if row["split"] == split]
            by_setting: dict[Setting, list[int]] = {}
            for place, row in enumerate(of_split):
                setting = Setting(row["aggregator"], row["contamination"], row["trained_size"])
                by_setting.setdefault(setting, []).append(place)
            for setting, places in by_setting.items():
                found = [of_split[place] for place in places]
                key = (cell.source, split, kind, setting)
                values = by_class[places].astype(np.float64)
                parts.setdefault(key, []).append((cell.seed, found, values))
    gathered: dict[str, dict[str, dict[tuple[str, Setting], Measured]]] = {}
    for (source, split, kind, setting), seeds in parts.items():
        tasks = tuple((row["size"], row["condition"], row["probability"]) for row in seeds[0][1])
        measured = Measured(
            tasks,
            tuple(seed for seed, *_ in seeds),
            np.array([[row["recall_at_1"] for row in found] for _, found, _ in seeds]),
            np.array([[row["map_at_r"] for row in found] for _, found, _ in seeds]),
            np.stack([by_class for *_, by_class in seeds]),
            min(row["num_queries"] for _, found, _ in seeds for row in found),
        )
        gathered.setdefault(source, {}).setdefault(split, {})[kind, setting] = measured
    return gathered


def difference(one: Measured, other: Measured, tasks: Sequence[int]) -> Difference:
    """Compare two settings on some tasks: averaged over common seeds and tasks in each class.

    The 95 % interval is a bootstrap over classes. The p-value flips the signs of classes at random:
    were the settings alike, each class would be as likely to favour either.
    """
    mine, others = paired(one, other)
    if not mine:
        return Difference(*[float("nan")] * 4)
    gaps = (one.by_class[mine] - other.by_class[others])[:, tasks]
    with np.errstate(all="ignore"):
        of_class = np.nanmean(gaps, axis=(0, 1))
    of_class = of_class[np.isfinite(of_class)]
    values = torch.from_numpy(of_class)
    interval = bootstrap_over_classes(values, torch.arange(len(values)), NUM_BOOTSTRAP, 0)
    low, high = (float("nan"), float("nan")) if interval is None else interval
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(NUM_FLIPS, len(of_class)))
    flipped = np.abs((signs * of_class).mean(axis=1))
    mean = float(of_class.mean())
    p_value = (1 + int((flipped >= abs(mean) - 1e-12).sum())) / (NUM_FLIPS + 1)
    return Difference(mean, low, high, p_value)


def paired(one: Measured, other: Measured) -> tuple[list[int], list[int]]:
    """Return the places of the seeds that both were measured with, in each."""
    common = [seed for seed in one.seeds if seed in other.seeds]
    return [one.seeds.index(seed) for seed in common], [other.seeds.index(s) for s in common]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return [float(value) for value in corrected]
