"""Run one cell: check the bounds, keep how tight they are."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.bounds.draws import SHAPES
from evaluation.bounds.plan import SUITE, UNTRAINED, Cell
from evaluation.bounds.random_triples import check_shape
from evaluation.cells import RESULTS, environment, without_paths
from setrep.config import merge, resolve
from setrep.data.dataset import ItemDataset
from setrep.files import write_atomically
from setrep.item_format import ItemFormat
from setrep.protocols.bounds import verify_bounds
from setrep.reports import runs
from setrep.reports.bounds import verify_bounds as verify_run

NUM_BOOTSTRAP = 1000
KARIMOV = "karimov"


def result_path(cell: Cell, results: Path = RESULTS) -> Path:
    """Where the result of a cell is kept."""
    return results / SUITE / cell.budget / f"{cell.name}.json"


def identity(cell: Cell) -> dict[str, Any]:
    """Return all that a result depends on."""
    return {
        "config": without_paths(cell.settings) if cell.settings else None,
        "steps": list(cell.steps),
        "num_triples": cell.num_triples,
        "shapes": list(SHAPES) if cell.kind == "random" else None,
    }


def is_done(cell: Cell, results: Path = RESULTS) -> bool:
    """Say whether the cell's result is there and was made with these settings."""
    try:
        kept = json.loads(result_path(cell, results).read_text())["identity"]
        if kept["config"] is not None:
            kept["config"] = without_paths(kept["config"])
        return bool(kept == identity(cell))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_cell(
    cell: Cell, work: Path, results: Path = RESULTS, max_minutes: float | None = None
) -> bool:
    """Check what the cell asks for. Return whether it is done."""
    began = time.monotonic()
    digest = hashlib.sha256(json.dumps(identity(cell), sort_keys=True).encode()).hexdigest()[:16]
    place = work / SUITE / cell.budget / f"{cell.name}-{digest}"
    found: dict[str, Any] | None
    if cell.kind == "random":
        rows = [check_shape(shape, cell.num_triples, seed=0) for shape in SHAPES]
        found = {"shapes": rows, "environment": this_machine()}
    elif cell.kind == "digits":
        report = digits_report(cell.num_triples)
        found = {"stages": [stage_of(report)], "environment": this_machine()}
    else:
        found = encoder_stages(cell, place, max_minutes, began)
        if found is None:
            return False
    kept = {"suite": SUITE, "budget": cell.budget, "cell": cell.name, "identity": identity(cell)}
    kept |= found | {"seconds": round(time.monotonic() - began, 1)}
    write_atomically(result_path(cell, results), (json.dumps(kept, indent=1) + "\n").encode())
    return True


def encoder_stages(
    cell: Cell, place: Path, max_minutes: float | None, began: float
) -> dict[str, Any] | None:
    """Train to each number of steps, each a run of its own that shares the beginning; verify."""
    stages = []
    for steps in cell.steps:
        directory = place / f"steps{steps}"
        left = None
        if max_minutes is not None:
            left = max(max_minutes - (time.monotonic() - began) / 60, 1e-6)
        more: dict[str, Any] = {"training": {"max_steps": max(steps, 1), "max_minutes": left}}
        settings = merge(cell.settings, more if steps else merge(more, UNTRAINED))
        config = resolve(merge(settings, {"output_dir": str(directory)}))
        if not (directory / "evaluation.json").exists():
            run = runs.train(config, resume=(directory / "config.yaml").exists())
            if run.evaluation is None:
                return None
        report = verify_run(directory, max_triples=cell.num_triples)
        evaluation = json.loads((directory / "evaluation.json").read_text())
        items = evaluation["items"]["recall_at_1"]
        stages.append({"steps": steps, "recall_at_1": items} | stage_of(report))
    return {"stages": stages, "environment": environment(directory)}


def digits_report(num_triples: int) -> dict[str, Any]:
    """Verify on scikit-learn's digits: collections of one half, under the PCA of the other."""
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    from setrep.aggregators import CentroidAggregator

    images, labels = load_digits(return_X_y=True)
    is_first = np.random.default_rng(0).random(len(labels)) < 0.5
    points = PCA(32, random_state=0).fit(images[is_first]).transform(images)[~is_first]
    dataset = ItemDataset(
        name="digits, PCA to 32 dimensions",
        split="test",
        items=points,
        labels=labels[~is_first],
        label_names=tuple("0123456789"),
        item_format=ItemFormat("vector", 32, 1),
        label_level="digit",
        collection_level="sampled",
        keys=None,
        key_names=(),
        source_note="scikit-learn",
    )
    import torch

    embeddings = torch.from_numpy(points)
    return verify_bounds(
        embeddings, dataset, CentroidAggregator(32), sizes=(10,), max_triples=num_triples, seed=0
    )


def stage_of(report: dict[str, Any]) -> dict[str, Any]:
    """Keep the summary of a verification, Karimov's ratio, and factors over his bound."""
    rows = report["rows"]
    labels = np.array([row["labels"][0] for row in rows])
    ratio = np.array([row["distance_same"] / row["max_distance"] for row in rows])
    factors = {}
    for name in rows[0]["bounds"]:
        if report["summary"][name]["class"] and KARIMOV in rows[0]["bounds"]:
            values = np.array([factor(row["bounds"], name) for row in rows])
            if report["summary"][name]["kind"] == "upper" and name != "hull_upper":
                factors[name] = median_with_interval(values, labels)
    return {
        "num_triples": len(rows),
        "summary": report["summary"],
        "distance_over_max": median_with_interval(ratio, labels),
        "factors": factors,
        "margin_below_0": float(np.mean([row["margin"]["inter_class"] < 0 for row in rows])),
        "retrieval_certificates": report["retrieval_certificates"],
        "loss_bounds": report["loss_bounds"],
    }


def factor(bounds: dict[str, dict[str, float]], name: str) -> float:
    """Return how much tighter a bound is than Karimov's."""
    found = bounds[name]["bound"]
    return bounds[KARIMOV]["bound"] / found if found > 0 else float("nan")


def median_with_interval(
    values: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Return the median, with a 95 % interval from resampled labels of A."""
    generator = np.random.default_rng(0)
    groups = [values[labels == label] for label in np.unique(labels)]
    medians = [
        np.nanmedian(
            np.concatenate([groups[i] for i in generator.integers(0, len(groups), len(groups))])
        )
        for _ in range(NUM_BOOTSTRAP)
    ]
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": float(np.nanmedian(values)), "low": float(low), "high": float(high)}


def this_machine() -> dict[str, Any]:
    """Return versions and hardware."""
    return {
        "setrep": version("setrep"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }
