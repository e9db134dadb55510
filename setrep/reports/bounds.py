"""The bound-verification report of a run: `bounds.json`, and `bounds.html` for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from setrep.config import Config
from setrep.files import refuse_unwritable, write_atomically
from setrep.protocols.baselines import embed_dataset
from setrep.protocols.bounds import choose_statements, count_violations
from setrep.protocols.bounds import verify_bounds as verify
from setrep.reports.bound_page import write_page
from setrep.reports.runs import open_for_evaluation


def verify_bounds(
    run: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    bounds: Sequence[str] | None = None,
    max_triples: int = 1000,
    seed: int | None = None,
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Check the bounds on collections of a run's held-out split; write the two reports.

    `seed` draws the collections; none: the run's own.

    Raises:
        InputError: the directory holds no finished run or cannot be written to, a bound is unknown,
            or none that was named is of the run's aggregator.
    """
    set_encoder, config, data = open_for_evaluation(run, changes)
    choose_statements(bounds, set_encoder.aggregator)
    directory = Path(output_dir or run)
    refuse_unwritable(directory)
    with progress() as bar:
        task = bar.add_task("items", total=len(data.dataset))

        def embed(batch: Tensor) -> Tensor:
            embeddings = set_encoder.encode(batch)
            bar.advance(task, len(batch))
            return embeddings

        embeddings = embed_dataset(data.dataset, embed)
        task = bar.add_task("triples", total=max_triples)
        report = verify(
            embeddings,
            data.dataset,
            set_encoder.aggregator,
            sizes=config.evaluation.sizes,
            max_triples=max_triples,
            seed=config.training.seed if seed is None else seed,
            run=Path(run).name,
            names=bounds,
            loss_margin=loss_margin(config),
            temperatures=temperatures(config),
            on_progress=lambda done, _: bar.update(task, completed=done),
        )
    write_atomically(
        directory / "bounds.json", json.dumps(report, indent=1, allow_nan=False).encode()
    )
    write_page(report, data.dataset, directory / "bounds.html")
    return report


def loss_margin(config: Config) -> float:
    """Return the margin of the triplet loss that a run was trained with, else 0."""
    loss = config.loss
    return loss.margin if loss.name == "triplet" and not loss.soft else 0.0


def temperatures(config: Config) -> tuple[float, ...]:
    """Return 1, at which losses were published, and that of the run's loss, if it has one."""
    has_one = config.loss.name != "triplet"
    return (1.0, config.loss.temperature) if has_one else (1.0, 0.5)


def progress() -> Progress:
    """Show on a terminal how many triples are done, and the time left."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


__all__ = ["count_violations", "verify_bounds"]
