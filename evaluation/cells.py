"""Run one cell of a suite and keep what it measured in one file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import setrep
from evaluation import mixture
from evaluation.suites import Cell
from setrep.config import Config, merge, resolve
from setrep.errors import InputError
from setrep.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "suites"
VECTORS = {"mixture": mixture.write_mixture, "digits": mixture.write_digits}


def result_path(cell: Cell, results: Path = RESULTS) -> Path:
    """Where the result of a cell is kept."""
    return results / cell.suite / cell.budget / f"{cell.name}.json"


def identity(cell: Cell) -> dict[str, Any]:
    """Return all that a result depends on: settings without paths, seeds, how vectors are made."""
    made = Path(mixture.__file__).read_text() if cell.source in VECTORS else None
    return {
        "config": without_paths(cell.settings),
        "seeds": list(cell.seeds),
        "vectors_sha256": None if made is None else hashlib.sha256(made.encode()).hexdigest(),
    }


def without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Resolve settings into all that a run depends on, and leave out where it reads and writes."""
    config = resolve(settings).model_dump(mode="json")
    config["data"]["data_root"] = config["output_dir"] = None
    return config


def config_hash(cell: Cell) -> str:
    """Return what changes with anything that a result depends on."""
    text = json.dumps(identity(cell), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_done(cell: Cell, results: Path = RESULTS) -> bool:
    """Say whether the cell's result is there and was made with these settings.

    A setting that came later counts as what it is where nobody asks for it.
    """
    try:
        kept = json.loads(result_path(cell, results).read_text())["identity"]
        kept["config"] = without_paths(kept["config"])
        return bool(kept == identity(cell))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_cell(
    cell: Cell, work: Path, results: Path = RESULTS, max_minutes: float | None = None
) -> bool:
    """Train and measure every seed of a cell; continue what was interrupted.

    Returns whether the cell is done, or ran out of minutes.
    """
    began = time.monotonic()
    place = work / cell.suite / cell.budget / f"{cell.name}-{config_hash(cell)}"
    runs = {}
    for seed in cell.seeds:
        left = None
        if max_minutes is not None:
            left = max(max_minutes - (time.monotonic() - began) / 60, 1e-6)
        found = run_seed(cell, seed, place, left)
        if found is None:
            return False
        runs[str(seed)] = found
    kept = {
        "suite": cell.suite,
        "budget": cell.budget,
        "cell": cell.name,
        "source": cell.source,
        "variant": cell.variant.name,
        "published_percent": cell.variant.published,
        "identity": identity(cell),
        "settings": cell.settings,
        "runs": runs,
        "environment": environment(place / f"seed{cell.seeds[0]}"),
        "seconds": round(time.monotonic() - began, 1),
    }
    path = result_path(cell, results)
    write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())
    return True


def run_seed(
    cell: Cell, seed: int, place: Path, max_minutes: float | None
) -> dict[str, Any] | None:
    """Train one seed, or continue it, and return what was measured; none if it ran out of time."""
    from setrep.reports import runs

    directory = place / f"seed{seed}"
    kept = directory / "result.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    config = config_of(cell, seed, directory, place.parent, max_minutes)
    run = runs.train(config, resume=(directory / "config.yaml").exists())
    if run.evaluation is None:
        return None
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if "knn_top1" in record]
    items = run.evaluation.items
    assert items is not None
    found = {
        "source_note": run.evaluation.source_note,
        "num_queries": items.num_queries,
        "num_bank": items.num_bank,
        "knn_top1": items.knn_top1,
        "knn_top5": items.knn_top5,
        "worst_class_top1": items.worst_class_top1,
        "knn_top1_by_epoch": [record["knn_top1"] for record in epochs],
        "clamped_share": last(records, "clamped_share"),
        "seconds_per_step": last(records, "seconds_per_step"),
    }
    write_atomically(kept, json.dumps(found).encode())
    (directory / "checkpoint" / "last.safetensors").unlink()
    return found


def config_of(
    cell: Cell, seed: int, directory: Path, shared: Path, max_minutes: float | None
) -> Config:
    """Resolve the settings of one seed; vectors are written where the cells of a budget share."""
    more: dict[str, Any] = {
        "training": {"seed": seed, "max_minutes": max_minutes},
        "output_dir": str(directory),
    }
    if cell.source in VECTORS:
        path = shared / f"{cell.source}.{os.getpid()}.npz"
        VECTORS[cell.source](path)
        path = path.replace(shared / f"{cell.source}.npz")
        more["data"] = {"data_root": str(path)}
    elif not os.environ.get("SETREP_DATA"):
        raise InputError(f"The cell {cell.name} needs a data root: --data-root DATA.")
    return resolve(merge(cell.settings, more))


def last(records: list[dict[str, Any]], name: str) -> float | None:
    """Return the last value logged under a name."""
    values = [record[name] for record in records if name in record]
    return values[-1] if values else None


def environment(run: Path) -> dict[str, Any]:
    """Return versions and hardware of a run."""
    kept = {"commit": None} | json.loads((run / "environment.json").read_text())
    return kept | {"setrep": setrep.__version__}
