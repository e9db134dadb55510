"""The table of a suite: each setting beside the first, paired over seeds, and the published."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from scipy.optimize import brentq

from evaluation.cells import is_done, result_path
from evaluation.suites import Cell, Variant
from setrep.files import write_atomically

EARLY = 0.2  # share of the epochs


def write_table(suite: str, budget: str, cells: Sequence[Cell], results: Path) -> str:
    """Write `table.md` of what is there, and return it."""
    lines = [f"# {suite}, budget {budget}", ""]
    for source in dict.fromkeys(cell.source for cell in cells):
        of_source = [cell for cell in cells if cell.source == source]
        lines += table(of_source, results)
    text = "\n".join(lines) + "\n"
    write_atomically(results / suite / budget / "table.md", text.encode())
    return text


def table(cells: Sequence[Cell], results: Path) -> list[str]:
    """Tabulate the cells of one source of data."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    is_image = cells[0].source.startswith("cifar10")  # what was published is of CIFAR-10
    variants = {cell.variant.name: cell.variant for cell in cells}
    missing = [cell.name for cell in cells if not is_done(cell, results)]
    for cell in cells:
        if cell.name not in missing:
            kept = json.loads(result_path(cell, results).read_text())
            found.setdefault(cell.variant.name, {}).update(kept["runs"])
    lines = [f"## {cells[0].source}", ""]
    if found:
        one = next(iter(next(iter(found.values())).values()))
        lines += [
            f"{one['source_note']}; {one['num_queries']} queries, {one['num_bank']} in the bank. "
            f"Weighted kNN top-1 in percent: early, after a fifth of the epochs, and at the end. "
            f"Differences from the setting named beside them are paired over seeds (same "
            f"initialisation, batches and augmentation), with 95 % t intervals; 'resolves' is the "
            f"smallest difference at the end that this many seeds would have shown in 80 % of such "
            f"studies, were their spread the true one.",
            "",
            "| setting | seeds | early | at the end | worst class | beside | early difference "
            "| difference | resolves | published |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [row(variants[name], found, is_image) for name in found]
    if missing:
        lines += ["", f"Not run: {', '.join(missing)}."]
    return [*lines, ""]


def row(
    variant: Variant,
    found: dict[str, dict[str, dict[str, Any]]],
    is_image: bool,
) -> str:
    """Tabulate one setting."""
    runs = found[variant.name]
    final = [run["knn_top1"] for run in runs.values()]
    worst = [run["worst_class_top1"] for run in runs.values()]
    others = found.get(variant.compare_with or "", {})
    shared = sorted(runs.keys() & others.keys(), key=int)
    gaps = [runs[seed]["knn_top1"] - others[seed]["knn_top1"] for seed in shared]
    early_gaps = [early(runs[seed]) - early(others[seed]) for seed in shared]
    published = "" if variant.published is None or not is_image else f"{variant.published:g}"
    cells = [
        variant.name,
        str(len(runs)),
        spread([early(run) for run in runs.values()]),
        spread(final),
        spread(worst),
        variant.compare_with or "",
        paired(early_gaps),
        paired(gaps),
        resolves(gaps),
        f"{published} {variant.note}".strip() if published else "",
    ]
    return f"| {' | '.join(cells)} |"


def early(run: dict[str, Any]) -> float:
    """Return the accuracy after a fifth of the epochs: at the same share of any training."""
    curve: list[float] = run["knn_top1_by_epoch"]
    return curve[max(1, round(EARLY * len(curve))) - 1]


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample of two or more."""
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def spread(values: Sequence[float]) -> str:
    """Write mean and standard deviation, in percent."""
    text = f"{100 * mean(values):.1f}"
    return f"{text} ± {100 * deviation(values):.1f}" if len(values) > 1 else text


def paired(gaps: Sequence[float]) -> str:
    """Write the mean difference and its t interval, in percent."""
    if len(gaps) < 2:
        return f"{100 * mean(gaps):+.2f}" if gaps else ""
    half = stats.t.ppf(0.975, len(gaps) - 1) * deviation(gaps) / math.sqrt(len(gaps))
    low, high = mean(gaps) - half, mean(gaps) + half
    return f"{100 * mean(gaps):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def resolves(gaps: Sequence[float]) -> str:
    """Write the difference that a two-sided t test at 5 % finds with a power of 80 %."""
    if len(gaps) < 2:
        return ""
    degrees = len(gaps) - 1
    limit = stats.t.ppf(0.975, degrees)
    needed = brentq(lambda shift: stats.nct.sf(limit, degrees, shift) - 0.8, 0.1, 50)
    return f"{100 * needed * deviation(gaps) / math.sqrt(len(gaps)):.2f}"
