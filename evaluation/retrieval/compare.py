"""What is done, gathered over seeds so that methods can be compared class by class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.aggregation.compare import Difference, Measured, difference
from evaluation.retrieval.cell import is_done, result_path
from evaluation.retrieval.measure import TWO_STAGES, VALUES
from evaluation.retrieval.plan import Cell, Method

NAMES = (*VALUES, *TWO_STAGES)


@dataclass(frozen=True)
class Found:
    """What all methods reach on one source."""

    methods: tuple[Method, ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    means: NDArray[np.float64]  # [seed, method, size, value], over queries; nan if not measured
    by_class: NDArray[np.float64]  # [seed, method, size, value, class]
    calibration: tuple[dict[str, Any], ...]  # rows of all seeds
    fewest_queries: int  # of any size

    def mean(self, method: Method, value: str, sizes: Sequence[int]) -> NDArray[np.float64]:
        """Return the mean over some sizes, for each seed."""
        places = [self.sizes.index(size) for size in sizes]
        of_value = self.means[:, self.methods.index(method), :, NAMES.index(value)]
        return np.asarray(of_value[:, places].mean(axis=1))

    def gap(
        self, one: tuple[Method, str], other: tuple[Method, str], sizes: Sequence[int]
    ) -> Difference:
        """Compare a method and value with another, averaged over seeds and sizes in each class."""
        places = [self.sizes.index(size) for size in sizes]
        return difference(self.measured(*one), self.measured(*other), places)

    def measured(self, method: Method, value: str) -> Measured:
        """Return one value of one method in the form that differences are taken of."""
        place, of = self.methods.index(method), NAMES.index(value)
        means = self.means[:, place, :, of]
        tasks = tuple((size, "clean", 0.0) for size in self.sizes)
        by_class = self.by_class[:, place, :, of]
        return Measured(tasks, self.seeds, means, means, by_class, self.fewest_queries)


def gather(cells: Sequence[Cell], results: Path) -> dict[str, Found]:
    """Read what is done, by source."""
    parts: dict[str, list[tuple[Cell, dict[str, Any], NDArray[np.float64]]]] = {}
    for cell in cells:
        if is_done(cell, results):
            path = result_path(cell, results)
            by_class = np.load(path.with_suffix(".npz"))["by_class"].astype(np.float64)
            kept = json.loads(path.read_text())
            parts.setdefault(cell.source, []).append((cell, kept, by_class))
    return {source: found_of(of_source) for source, of_source in parts.items()}


def found_of(parts: list[tuple[Cell, dict[str, Any], NDArray[np.float64]]]) -> Found:
    """Put the seeds of one source together."""
    identity = parts[0][1]["identity"]
    methods = tuple(Method(*method) for method in identity["methods"])
    sizes = tuple(identity["source"]["sizes"])
    means = np.full((len(parts), len(methods), len(sizes), len(NAMES)), np.nan)
    calibration, counts = [], []
    for seed, (cell, kept, _) in enumerate(parts):
        for values in kept["rows"]:
            row = dict(zip(kept["columns"], values, strict=True))
            place = methods.index(Method(row["kind"], row["name"])), sizes.index(row["size"])
            means[(seed, *place)] = [np.nan if row[n] is None else row[n] for n in NAMES]
            counts.append(row["num_queries"])
        columns = kept["calibration_columns"]
        rows = (dict(zip(columns, row, strict=True)) for row in kept["calibration"])
        calibration += [{"seed": cell.seed} | row for row in rows]
    return Found(
        methods,
        sizes,
        tuple(cell.seed for cell, *_ in parts),
        means,
        np.stack([by_class for *_, by_class in parts]),
        tuple(calibration),
        min(counts),
    )
