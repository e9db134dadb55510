"""The report of the suite: whether bounds held, and how tight they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.bounds.cell import is_done, result_path
from evaluation.bounds.plan import SUITE, Cell
from setrep.files import write_atomically

SHOWN = ("karimov", "margin_plus_max", "chamfer", "q1", "q12", "symmetric", "w1")
PUBLISHED = "0.420, 0.147, 0.076"  # three triples, Karimov 2024


def write_table(budget: str, cells: Sequence[Cell], results: Path) -> str:
    """Write `table.md` of what is there, and return it."""
    done = [
        (cell, json.loads(result_path(cell, results).read_text()))
        for cell in cells
        if is_done(cell, results)
    ]
    lines = [f"# {SUITE}, budget {budget}", ""]
    for cell, kept in done:
        if cell.kind == "random":
            lines += random_table(kept)
    stages = [(cell, kept) for cell, kept in done if cell.kind != "random"]
    if stages:
        lines += encoder_table(stages)
    encoders: dict[str, list[dict[str, Any]]] = {}
    for cell, kept in done:
        if cell.kind == "encoder":
            encoders.setdefault(cell.name.rpartition("-seed")[0], []).append(kept)
    for name, seeds in encoders.items():
        lines += tightness_table(name, seeds)
    text = "\n".join(lines) + "\n"
    path = results / SUITE / budget / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return text


def random_table(kept: dict[str, Any]) -> list[str]:
    """Count checks and violations on random and adversarial triples."""
    shapes = kept["shapes"]
    total = sum(shape["num_triples"] for shape in shapes)
    wrong = sum(shape["out_of_order"] for shape in shapes)
    names = list(shapes[0]["bounds"])
    lines = [
        f"{total} random and adversarial triples of {len(shapes)} shapes "
        f"({', '.join(shape['shape'] for shape in shapes)}). q12 <= q1 <= chamfer <= "
        f"margin_plus_max <= karimov failed {wrong} times.",
        "",
        "| bound | checked | violations | median tightness of each shape, least to largest |",
        "|---|---|---|---|",
    ]
    for name in names:
        found = [shape["bounds"][name] for shape in shapes if name in shape["bounds"]]
        medians = sorted(x["tightness_median"] for x in found if x["tightness_median"] is not None)
        checked, violated = (
            sum(x[f"num_{what}"] for x in found) for what in ("checked", "violations")
        )
        spread = f"{medians[0]:.3f} to {medians[-1]:.3f}" if medians else ""
        lines.append(f"| {name} | {checked} | {violated} | {spread} |")
    return [*lines, ""]


def encoder_table(stages: list[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """Tabulate how much tighter than Karimov's each bound is, before, while and after training."""
    lines = [
        "Median factor by which a bound is below Karimov's, with a 95 % interval over labels; "
        "his ratio of the distance of centroids to the largest distance D, which was published "
        f"as {PUBLISHED}; and violations of all bounds together.",
        "",
        "| cell | steps | item recall@1 | triples | violations | distance / D "
        f"| {' | '.join(SHOWN[1:])} |",
        "|---" * (6 + len(SHOWN) - 1) + "|",
    ]
    for cell, kept in stages:
        for stage in kept["stages"]:
            recall = stage.get("recall_at_1")
            violations = sum(row["num_violations"] for row in stage["summary"].values())
            cells = [
                cell.name,
                str(stage.get("steps", "")),
                "" if recall is None else f"{100 * recall:.1f}",
                str(stage["num_triples"]),
                str(violations),
                shown(stage["distance_over_max"], 3),
                *(shown(stage["factors"][name], 2) for name in SHOWN[1:]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def tightness_table(name: str, seeds: list[dict[str, Any]]) -> list[str]:
    """Tabulate the median tightness of every bound by steps of training."""
    stages = [[kept["stages"][i] for kept in seeds] for i in range(len(seeds[0]["stages"]))]
    several = f", mean and range of {len(seeds)} seeds" if len(seeds) > 1 else ""
    lines = [
        f"{name}: median tightness over triples{several}, by steps of training.",
        "",
        f"| bound | {' | '.join(str(stage[0]['steps']) for stage in stages)} |",
        "|---" * (1 + len(stages)) + "|",
    ]
    for bound, entry in stages[0][0]["summary"].items():
        if entry["applies"]:
            medians = [[x["summary"][bound]["tightness_median"] for x in stage] for stage in stages]
            lines.append(f"| {bound} | {' | '.join(spread(found) for found in medians)} |")
    below = [spread([x["margin_below_0"] for x in stage]) for stage in stages]
    return [*lines, f"| triples whose two-sided margin is below 0 | {' | '.join(below)} |", ""]


def spread(found: list[float | None]) -> str:
    """Write the mean of what seeds gave, and its range."""
    numbers = [number for number in found if number is not None]
    if not numbers:
        return ""
    mean = f"{sum(numbers) / len(numbers):.3f}"
    return mean if len(numbers) == 1 else f"{mean} [{min(numbers):.3f}, {max(numbers):.3f}]"


def shown(found: dict[str, float], digits: int) -> str:
    """Write a median with its interval."""
    return f"{found['median']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
