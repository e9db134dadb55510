"""Run one cell: an encoder, its embeddings, and every aggregator that is measured on them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.aggregation.embeddings import (
    NOISE,
    OCCLUDED,
    train_encoder,
    write_embeddings,
)
from evaluation.aggregation.measure import Task, measure, prepare
from evaluation.aggregation.plan import (
    CONDITIONS,
    FREE,
    SOURCES,
    SUITE,
    Cell,
    Setting,
    encoder_settings,
    learned_settings,
    settings_of,
)
from evaluation.cells import RESULTS, environment, without_paths
from setrep.aggregators import Aggregator, build_aggregator
from setrep.config import merge, resolve
from setrep.data.dataset import ItemDataset
from setrep.data.registry import load_dataset
from setrep.files import write_atomically
from setrep.protocols.few_shot import evaluate_few_shot
from setrep.reports import runs
from setrep.set_encoder import SetEncoder


def result_path(cell: Cell, results: Path = RESULTS) -> Path:
    """Where the result of a cell is kept; recall of each class lies beside it as .npz."""
    return results / SUITE / cell.budget / f"{cell.name}.json"


def identity(cell: Cell) -> dict[str, Any]:
    """Return all that a result depends on: configs without paths, conditions, sizes, counts."""
    configs = [encoder_settings(cell)]
    for setting in settings_of(cell):
        if setting.contamination is not None:
            configs.append(learned_settings(cell, *setting))
    return {
        "configs": [without_paths(config) for config in configs],
        "conditions": [list(condition) for condition in CONDITIONS],
        "noise": NOISE,
        "occluded": OCCLUDED,
        "sizes": list(SOURCES[cell.source].sizes),
        "num_queries": cell.num_queries,
    }


def is_done(cell: Cell, results: Path = RESULTS) -> bool:
    """Say whether the cell's result is there and was made with these settings."""
    try:
        kept = json.loads(result_path(cell, results).read_text())["identity"]
        kept["configs"] = [without_paths(config) for config in kept["configs"]]
        return bool(kept == identity(cell))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_cell(
    cell: Cell, work: Path, results: Path = RESULTS, max_minutes: float | None = None
) -> bool:
    """Train, embed and measure; continue what was interrupted. Return whether it is done."""
    began = time.monotonic()
    text = json.dumps(identity(cell), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    place = work / SUITE / cell.budget / f"{cell.name}-{digest}"
    place.mkdir(parents=True, exist_ok=True)

    def left() -> float | None:
        if max_minutes is None:
            return None
        return max(max_minutes - (time.monotonic() - began) / 60, 1e-6)

    encoder = train_encoder(cell, place, left())
    if encoder is None:
        return False
    vectors = write_embeddings(cell, encoder, place)
    found: list[dict[str, Any]] = []
    classes: dict[str, list[np.ndarray]] = {"validation": [], "test": []}
    measured = {split: held_out(cell, vectors, split, place) for split in ("validation", "test")}
    for setting in settings_of(cell):
        trained = train_aggregator(cell, setting, encoder, vectors, place, left())
        if trained is None:
            return False
        for split, (table, tasks) in measured.items():
            rows, by_class = measure(trained, table, tasks)
            of = setting._asdict() | {"split": split}
            found += [of | row for row in rows]
            classes[split].append(by_class)
    kept: dict[str, Any] = {
        "suite": SUITE,
        "budget": cell.budget,
        "cell": cell.name,
        "identity": identity(cell),
        "columns": list(found[0]),
        "rows": [list(row.values()) for row in found],
        "environment": environment(place / "encoder"),
        "seconds": round(time.monotonic() - began, 1),
    }
    if cell.source == "omniglot_characters":
        dataset = load_vectors(vectors, "test")
        kept["few_shot"] = few_shot(dataset, encoder.aggregator, cell.seed)
    path = result_path(cell, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {split: np.concatenate(of).astype(np.float16) for split, of in classes.items()}
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    write_atomically(path, (json.dumps(kept) + "\n").encode())
    return True


def held_out(cell: Cell, vectors: Path, split: str, place: Path) -> tuple[Tensor, list[Task]]:
    """Return the embeddings of a split with their corrupted copies, and what is asked of them."""
    dataset = load_vectors(vectors, split)
    corrupted = np.load(place / f"{split}.npz")
    parts = [dataset.items, corrupted["noise"], corrupted["occlusion"]]
    table = torch.from_numpy(np.concatenate(parts)).float()
    sizes = SOURCES[cell.source].sizes
    return table, prepare(dataset, sizes, cell.num_queries, cell.seed)


def few_shot(dataset: ItemDataset, aggregator: Aggregator, seed: int) -> list[dict[str, Any]]:
    """Measure few-shot accuracy on test classes, with the centroid that of prototypes."""
    items, labels = torch.from_numpy(dataset.items), torch.from_numpy(dataset.labels)
    return [
        asdict(evaluate_few_shot(items, labels, aggregator, ways=ways, shots=shots, seed=seed))
        for ways in (5, 20)
        for shots in (1, 5)
    ]


def load_vectors(path: Path, split: str) -> ItemDataset:
    """Read the embeddings of one split."""
    return load_dataset("vectors", data_root=path, split=split)


def train_aggregator(
    cell: Cell,
    setting: Setting,
    encoder: SetEncoder,
    vectors: Path,
    place: Path,
    max_minutes: float | None,
) -> Aggregator | None:
    """Build or train an aggregator of the embeddings; none if it ran out of time."""
    if cell.aggregator is not None:
        return encoder.aggregator
    if setting.contamination is None:
        return build_aggregator(dim=encoder.dim, **FREE[setting.aggregator])
    directory = place / "-".join(str(part) for part in setting if part is not None)
    more = {
        "data": {"data_root": str(vectors)},
        "output_dir": str(directory),
        "training": {"max_minutes": max_minutes},
    }
    config = resolve(merge(learned_settings(cell, *setting), more))
    if not (directory / "evaluation.json").exists():
        run = runs.train(config, resume=(directory / "config.yaml").exists())
        if run.evaluation is None:
            return None
    return SetEncoder.from_pretrained(directory).aggregator
