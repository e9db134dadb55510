"""What `setrep verify-bounds` prints: a table of the bounds, and lines that conclude."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from setrep.protocols.bounds import count_violations

CERTIFIED_ERROR = 0.05


def bounds_table(report: dict[str, Any]) -> Table:
    """Show for each bound how often it was checked, whether it held, and how tight it is."""
    table = Table(title="Bounds on distances between collections", title_style="bold")
    for heading in ("bound", "kind", "checked", "violations"):
        table.add_column(heading, justify="left" if heading == "bound" else "right")
    table.add_column("tightness [5 %, 95 %]", justify="right")
    for name, row in report["summary"].items():
        if not row["applies"]:
            continue
        low, middle, high = (row[f"tightness_{key}"] for key in ("p05", "median", "p95"))
        spread = "–" if middle is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        checked, violations = str(row["num_checked"]), str(row["num_violations"])
        table.add_row(name, row["kind"], checked, violations, spread)
    return table


def verdict(report: dict[str, Any]) -> Iterator[str]:
    """Say whether every bound held, on what, and what of retrieval is certified."""
    drawn, summary = report["sampling"], report["summary"]
    checks = sum(row["num_checked"] for row in summary.values())
    yield f"{drawn['num_triples']} triples of {drawn['source_note']}, split {drawn['split']}"
    losses, certificates = report["loss_bounds"] or (), report["retrieval_certificates"]
    of_losses = f", {len(losses)} on losses" if losses else ""
    if count_violations(report):
        wrong = [name for name, row in summary.items() if row["num_violations"]]
        wrong += [f"{row['name']} (loss)" for row in losses if not row["holds"]]
        wrong += [
            f"certificate at {row['size']} items"
            for row in (certificates or {"sizes": ()})["sizes"]
            if not row["is_calibrated"]
        ]
        yield f"VIOLATED: {', '.join(dict.fromkeys(wrong))}; {checks} checks{of_losses}."
    else:
        yield f"Every bound held: {checks} checks on distances{of_losses}. Attained is tightness 1."
    if certificates:
        yield retrieval(certificates)
    others = [name for name, row in summary.items() if not row["applies"]]
    if others:
        yield f"Of other aggregators: {', '.join(others)}."


def retrieval(certificates: dict[str, Any]) -> str:
    """Say what the largest size certifies."""
    row = certificates["sizes"][-1]
    few = sum(label["bound"] <= CERTIFIED_ERROR for label in row["per_label"].values())
    return (
        f"Retrieval of {row['size']} items: error {100 * row['error']:.1f} %, certified to be at "
        f"most {100 * CERTIFIED_ERROR:.0f} % for {few} of {certificates['num_labels']} labels."
    )
