"""Run one cell: an encoder, what every method finds on its embeddings, and certificates."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.aggregation.cell import load_vectors, train_aggregator
from evaluation.aggregation.embeddings import splits_of, train_encoder, write_embeddings
from evaluation.aggregation.plan import LEARNED, Setting, encoder_settings
from evaluation.cells import RESULTS, environment, without_paths
from evaluation.retrieval.calibration import CONFIDENCE, calibrate
from evaluation.retrieval.measure import (
    TWO_STAGES,
    VALUES,
    Order,
    Task,
    by_class,
    measure,
    order_by_aggregates,
    order_by_sets,
    prepare,
)
from evaluation.retrieval.plan import (
    NUM_CANDIDATES,
    SOURCES,
    SUITE,
    TRAINED_UNDER,
    Cell,
    Method,
    learned_settings,
    methods_of,
)
from setrep.config import merge, resolve
from setrep.data.dataset import ItemDataset
from setrep.files import write_atomically
from setrep.protocols.baselines import embed_dataset
from setrep.reports import runs
from setrep.set_encoder import SetEncoder

Left = Callable[[], float | None]
OUT_OF_TIME = 1e-6  # minutes, so little that a training begins and stops


def result_path(cell: Cell, results: Path = RESULTS) -> Path:
    """Where the result of a cell is kept; values of each class lie beside it as .npz."""
    return results / SUITE / cell.budget / f"{cell.name}.json"


def identity(cell: Cell) -> dict[str, Any]:
    """Return all that a result depends on: configs without paths, methods, sizes, counts."""
    methods = methods_of(cell.budget)
    configs = [encoder_settings(cell.encoder)]
    configs += [learned_settings(cell, name) for _, name in learned_of(methods)]
    source = asdict(SOURCES[cell.source])
    return {
        "configs": [without_paths(config) for config in configs],
        "methods": [list(method) for method in methods],
        "source": json.loads(json.dumps(source)),
        "num_queries": cell.num_queries,
        "num_candidates": NUM_CANDIDATES,
        "confidence": CONFIDENCE,
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
        return max(max_minutes - (time.monotonic() - began) / 60, OUT_OF_TIME)

    encoder = train_encoder(cell.encoder, place, left())
    if encoder is None:
        return False
    vectors = write_embeddings(cell.encoder, encoder, place, is_corrupted_too=False)
    dataset = load_vectors(vectors, "test")
    measured = measure_all(cell, encoder, dataset, place, left)
    if measured is None:
        return False
    rows, arrays = measured
    calibration = []
    for name, embeddings in (
        ("trained", torch.from_numpy(dataset.items).float()),
        ("untrained", untrained(cell, place)),
    ):
        asked = SOURCES[cell.source].certified
        found, of_label = calibrate(embeddings, dataset.labels, asked, cell.seed)
        calibration += [{"encoder": name} | row for row in found]
        arrays |= {f"{name}_{key}": values for key, values in of_label.items()}
    kept = {
        "suite": SUITE,
        "budget": cell.budget,
        "cell": cell.name,
        "identity": identity(cell),
        "columns": list(rows[0]),
        "rows": [list(row.values()) for row in rows],
        "calibration_columns": list(calibration[0]),
        "calibration": [list(row.values()) for row in calibration],
        "environment": environment(place / "encoder"),
        "seconds": round(time.monotonic() - began, 1),
    }
    path = result_path(cell, results)
    write_atomically(path.with_suffix(".npz"), compressed(arrays))
    write_atomically(path, (json.dumps(kept) + "\n").encode())
    return True


def measure_all(
    cell: Cell, encoder: SetEncoder, dataset: ItemDataset, place: Path, left: Left
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]] | None:
    """Measure every method on every size, each kept once it is there; none if out of time."""
    source = SOURCES[cell.source]
    embeddings = torch.from_numpy(dataset.items).float()
    methods = methods_of(cell.budget)
    classes = torch.unique(torch.from_numpy(dataset.labels))
    orders = {}
    for method in methods:
        order = order_of(cell, method, encoder, place, left)
        if order is None:
            return None
        orders[method] = order
    rows, of_class = (
        [],
        np.full(
            (len(methods), len(source.sizes), len(VALUES) + len(TWO_STAGES), len(classes)), np.nan
        ),
    )
    for column, size in enumerate(source.sizes):
        task = prepare(dataset, size, source.max_per_label, cell.num_queries, cell.seed)
        for line, method in enumerate(methods):
            if left() == OUT_OF_TIME:
                return None
            part = place / "measured" / f"{method.kind} {method.name} {size}.npy"
            values = kept_values(part, embeddings, task, orders[method], method)
            rows.append(row_of(method, task, values))
            of_class[line, column, : len(values)] = by_class(values, task.labels, classes)
    return rows, {"by_class": of_class.astype(np.float32)}


def kept_values(path: Path, embeddings: Tensor, task: Task, order: Order, method: Method) -> Tensor:
    """Read what a method has found, or find it and keep it."""
    if not path.exists():
        values = measure(embeddings, task, order, method.kind == "set distance")
        buffer = io.BytesIO()
        np.save(buffer, values.numpy())
        write_atomically(path, buffer.getvalue())
    return torch.from_numpy(np.load(path))


def row_of(method: Method, task: Task, values: Tensor) -> dict[str, Any]:
    """Return the means over queries, with what they were measured on."""
    names = (*VALUES, *TWO_STAGES)
    means = dict.fromkeys(names) | {
        name: round(float(of.mean()), 5) for name, of in zip(names, values, strict=False)
    }
    return method._asdict() | {
        "size": task.size,
        "num_queries": len(task.labels),
        "num_gallery": len(task.draws[0].gallery_labels),
        "num_classes": len(torch.unique(task.labels)),
        **means,
    }


def order_of(
    cell: Cell, method: Method, encoder: SetEncoder, place: Path, left: Left
) -> Order | None:
    """Return the order of a method; learned aggregators are trained, none if out of time."""
    if method.kind == "set distance":
        return order_by_sets(method.name)
    contamination = TRAINED_UNDER if method in learned_of([method]) else None
    setting = Setting(method.name, contamination)
    vectors = place / "embeddings.npz"
    aggregator = train_aggregator(cell.encoder, setting, encoder, vectors, place, left())
    return None if aggregator is None else order_by_aggregates(aggregator)


def learned_of(methods: list[Method]) -> list[Method]:
    """Return those that have something to learn."""
    return [method for method in methods if method.kind == "aggregator" and method.name in LEARNED]


def untrained(cell: Cell, place: Path) -> Tensor:
    """Embed the test items with the encoder as it was before its first step."""
    dataset = splits_of(cell.encoder)["test"]
    baselines = {"evaluation": {"baselines": True}, "output_dir": str(place / "untrained")}
    before = runs.untrained(resolve(merge(encoder_settings(cell.encoder), baselines)), dataset)
    assert before is not None
    return embed_dataset(dataset, before.encode)


def compressed(arrays: dict[str, Any]) -> bytes:
    """Return the arrays as the bytes of a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
