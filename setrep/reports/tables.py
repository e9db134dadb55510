"""Results as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from setrep.protocols.results import CollectionResult, Evaluation, OneShotResult, Scores


def print_table(table: Table) -> None:
    """Print a table to standard output."""
    Console().print(table)


def percent(value: float | None) -> str:
    """Write a fraction as a percentage, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def evaluation_table(result: Evaluation) -> Table:
    """Show what was learned beside the baselines, in percent."""
    protocol = result.protocol.replace("_", " ")
    table = Table(
        title=f"{result.dataset}, {result.split} split, {protocol} (%)", title_style="bold"
    )
    table.add_column("")
    for heading in columns(result):
        table.add_column(heading, justify="right")
    learned = Scores(result.items, result.collections, result.one_shot)
    table.add_row(result.encoder, *cells(learned, result), style="bold")
    if result.baselines:
        for name, scores in (
            ("untrained", result.baselines.untrained),
            ("pixels", result.baselines.pixels),
        ):
            if scores:
                table.add_row(name, *cells(scores, result))
    return table


def columns(result: Evaluation) -> list[str]:
    """Name the columns: items, then collections by size, then the one-shot task."""
    names = ["item R@1", "kNN top-1", "MAP@R"]
    names += [f"set of {c.size} R@1" for c in result.collections if c.num_queries]
    return names + (["one-shot error"] if result.one_shot else [])


def cells(scores: Scores, result: Evaluation) -> list[str]:
    """Fill one row."""
    items = scores.items
    row = [
        percent(items.recall_at_1 if items else None),
        percent(items.knn_top1 if items else None),
        percent(items.map_at_r if items else None),
    ]
    row += [collection_cell(c) for c in scores.collections if c.num_queries]
    return row + ([one_shot_cell(scores.one_shot)] if result.one_shot else [])


def collection_cell(result: CollectionResult) -> str:
    """Write recall@1 with its interval."""
    if result.recall_at_1_ci95 is None:
        return percent(result.recall_at_1)
    low, high = result.recall_at_1_ci95
    return f"{percent(result.recall_at_1)} [{percent(low)}, {percent(high)}]"


def one_shot_cell(result: OneShotResult | None) -> str:
    """Write the mean error."""
    return percent(result.error_mean if result else None)


def bounds_table(report: dict[str, Any]) -> Table:
    """Show for each bound how often it was checked, whether it held, and how tight it is."""
    table = Table(title="Bounds on distances between collections", title_style="bold")
    for heading in ("bound", "kind", "checked", "violations"):
        table.add_column(heading, justify="left" if heading == "bound" else "right")
    table.add_column("tightness median [p05, p95]", justify="right")
    for name, row in report["summary"].items():
        if not row["applies"]:
            table.add_row(name, row["kind"], "–", "–", row["why_not"])
            continue
        low, middle, high = (row[f"tightness_{key}"] for key in ("p05", "median", "p95"))
        spread = "–" if middle is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        checked, violations = str(row["num_checked"]), str(row["num_violations"])
        table.add_row(name, row["kind"], checked, violations, spread)
    return table
