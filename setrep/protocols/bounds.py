"""Bound verification: do the theorems hold on this encoder's embeddings, and how tightly?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from setrep.aggregators import Aggregator, CentroidAggregator
from setrep.data.collections import draw_disjoint_triples
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError, nearest
from setrep.protocols.bound_certificates import certify
from setrep.protocols.bound_losses import measure_losses
from setrep.protocols.bound_rows import name_of_aggregator, rows_of
from setrep.protocols.bound_statements import STATEMENTS, Statement

logger = logging.getLogger(__name__)


def verify_bounds(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    aggregator: Aggregator,
    *,
    sizes: Sequence[int] = (5,),
    max_triples: int = 1000,
    seed: int = 0,
    run: str = "",
    names: Sequence[str] | None = None,
    loss_margin: float = 0.0,
    temperatures: Sequence[float] = (1.0, 0.5),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Check bounds on disjoint collections drawn from `dataset`; return `bounds.json`, schema 1.

    `embeddings` holds one row for each item. `max_triples` is shared evenly among `sizes`;
    `names` chooses bounds; none: all, with certificates of retrieval and bounds on contrastive
    losses, which are none otherwise. `loss_margin` is the margin of the bounds from triplet losses,
    `temperatures` are those of contrastive ones. `on_progress` is told how many triples are done,
    and of how many.

    Raises:
        InputError: a bound is unknown, none that was named is of the aggregator, the embeddings do
            not fit the data set, or no label has enough items for two disjoint collections.
    """
    statements = choose_statements(names, aggregator)
    if embeddings.ndim != 2 or len(embeddings) != len(dataset):
        raise InputError(
            f"Embeddings must be one row for each of the {len(dataset)} items of {dataset.name}; "
            f"found shape {tuple(embeddings.shape)}."
        )
    if not bool(embeddings.isfinite().all()):
        raise InputError("The embeddings hold NaN or infinity: nothing can be said of them.")
    rows: list[dict[str, Any]] = []
    dropped: dict[str, list[str]] = {}
    for size, count in share(max_triples, drawable(dataset, sizes)).items():
        drawn = draw_disjoint_triples(dataset, size, count, seed=seed)
        items = embeddings.cpu()
        for row in rows_of(items, dataset, aggregator, drawn, statements, len(rows), loss_margin):
            rows.append(row)
            if on_progress is not None:
                on_progress(len(rows), max_triples)
        dropped[str(size)] = list(drawn.dropped)
    certificates, losses = None, None
    if names is None:
        losses = measure_losses(embeddings.cpu(), dataset, temperatures, seed=seed)
        if isinstance(aggregator, CentroidAggregator):
            certificates = certify(embeddings.cpu(), dataset, sizes, seed=seed)
    sampling = {
        "dataset": dataset.name,
        "source_note": dataset.source_note,
        "split": dataset.split,
        "label_level": dataset.label_level,
        "collection_level": dataset.collection_level,
        "sizes": [int(size) for size in dropped],
        "max_triples": max_triples,
        "num_triples": len(rows),
        "seed": seed,
        "loss_margin": loss_margin,  # of mean_loss and batch_hard
        "dropped": dropped,  # by size: labels with too few items for two collections
    }
    return {
        "schema": 1,
        "run": run,
        "sampling": sampling,
        "rows": rows,
        "summary": {
            name: summarise(name, statement, rows, aggregator)
            for name, statement in statements.items()
        },
        "retrieval_certificates": certificates,
        "loss_bounds": losses,
    }


def count_violations(report: dict[str, Any]) -> int:
    """Count what a report of `verify_bounds` found violated: distances, losses and certificates."""
    of_distances: int = sum(entry["num_violations"] for entry in report["summary"].values())
    of_losses = sum(not row["holds"] for row in report["loss_bounds"] or ())
    certificates = (report["retrieval_certificates"] or {"sizes": ()})["sizes"]
    return of_distances + of_losses + sum(not row["is_calibrated"] for row in certificates)


def choose_statements(names: Sequence[str] | None, aggregator: Aggregator) -> dict[str, Statement]:
    """Look up the bounds asked for.

    Raises:
        InputError: one is unknown, or none that was named is of the aggregator.
    """
    if names is None:
        return STATEMENTS
    known = list(STATEMENTS)
    for name in names:
        if name not in STATEMENTS:
            raise InputError(
                f"Unknown bound '{name}'.{nearest(name, known)} Known: {', '.join(known)}."
            )
    chosen = {name: STATEMENTS[name] for name in names}
    if all(one.why_not(aggregator) is not None for one in chosen.values()):
        applying = [name for name, one in STATEMENTS.items() if one.why_not(aggregator) is None]
        raise InputError(
            f"Of the bounds asked for ({', '.join(chosen)}), none is of the aggregator "
            f"'{name_of_aggregator(aggregator)}'; these are: {', '.join(applying) or 'none'}."
        )
    return chosen


def drawable(dataset: ItemDataset, sizes: Sequence[int]) -> list[int]:
    """Return the sizes of which triples can be drawn; others are left out with a warning.

    Raises:
        InputError: no size is left.
    """
    found = []
    for size in dict.fromkeys(sizes):
        try:
            draw_disjoint_triples(dataset, size, 1, seed=0)
        except InputError as error:
            if len(set(sizes)) == 1:
                raise
            logger.warning("Collections of %d items are left out: %s", size, error)
        else:
            found.append(size)
    if sizes and not found:
        raise InputError(
            f"No size of {list(sizes)} leaves two disjoint collections of a label and one of "
            f"another in {dataset.name}. Ask for smaller sizes."
        )
    return found


def share(max_triples: int, sizes: Sequence[int]) -> dict[int, int]:
    """Share triples evenly among sizes; the first ones get what is left over."""
    if not sizes or max_triples < len(sizes):
        raise InputError(
            f"Asked for {max_triples} triples of {len(sizes)} sizes of collections; "
            f"ask for at least one size, and one triple for each."
        )
    least, rest = divmod(max_triples, len(sizes))
    return {size: least + (place < rest) for place, size in enumerate(sizes)}


def summarise(
    name: str, statement: Statement, rows: list[dict[str, Any]], aggregator: Aggregator
) -> dict[str, Any]:
    """Count and rank what the rows say of one bound."""
    found = [row["bounds"][name] for row in rows if name in row["bounds"]]
    found = [entry for entry in found if entry["holds"] is not None]  # none: no word of this triple
    why_not = statement.why_not(aggregator)
    if why_not is not None:
        why_not = f"{why_not} The aggregator is '{name_of_aggregator(aggregator)}'."
    tightness = [entry["tightness"] for entry in found if entry["tightness"] is not None]
    slack = [entry["slack"] for entry in found if entry["slack"] is not None]  # none: infinite
    return {
        "kind": statement.kind,
        "class": statement.knowledge,
        "applies": why_not is None,
        "why_not": why_not,
        "num_checked": len(found),
        "num_violations": sum(not entry["holds"] for entry in found),
        "tightness_median": percentile(tightness, 50),
        "tightness_p05": percentile(tightness, 5),
        "tightness_p95": percentile(tightness, 95),
        "slack_median": percentile(slack, 50),
    }


def percentile(values: list[float], q: float) -> float | None:
    """Return a percentile, or none of nothing."""
    return float(np.percentile(values, q)) if values else None
