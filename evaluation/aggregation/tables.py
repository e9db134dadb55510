"""The report of the suite: what each aggregator reaches beside the centroid."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.aggregation.cell import is_done, result_path
from evaluation.aggregation.compare import Difference, Measured, difference, gather, holm
from evaluation.aggregation.plan import CENTROID, SHOWN, SUITE, Cell, Key, Setting, name_of
from setrep.files import write_atomically

CHOSEN_UNDER = ("strangers", 0.3)  # the condition that an aggregator is chosen for
Found = dict[Key, Measured]


def write_table(budget: str, cells: Sequence[Cell], results: Path) -> str:
    """Write `table.md` of what is there, and return it."""
    lines = [f"# {SUITE}, budget {budget}", "", *EXPLAINED, ""]
    for source, splits in gather(cells, results).items():
        lines += [f"## {source}", ""]
        if CENTROID not in splits["test"]:
            lines += ["The cells with the centroid have not been run.", ""]
            continue
        lines += [*table(splits["test"]), "", *chosen(splits), "", *transfer(splits["test"]), ""]
    text = "\n".join([*lines, *few_shot(cells, results)]) + "\n"
    write_atomically(results / SUITE / budget / "table.md", text.encode())
    return text


EXPLAINED = (
    "Collection retrieval on classes that were not trained on: recall@1 in percent, mean over "
    "seeds and over sizes above 1. Differences are from the centroid of the same embeddings on "
    "the same queries, with 95 % intervals over classes; for what was trained end to end, from the "
    "centroid trained end to end. 'strangers': each item replaced by one of another label with "
    "that probability; 'noise', 'occlusion': each item corrupted. 'trained under': that of "
    "strangers in the collections that a learned aggregator was trained on.",
)


def table(found: Found) -> list[str]:
    """Tabulate every setting under each condition."""
    heads = [f"{name} {rate:g}" if rate else name for name, rate in SHOWN]
    lines = [
        f"| aggregator | trained under | {' | '.join(f'{head} | difference' for head in heads)} |",
        "|---" * (2 + 2 * len(heads)) + "|",
    ]
    for key, measured in found.items():
        if key[1].trained_size is not None:
            continue
        base = found.get((key[0], Setting("centroid")))
        cells = [name_of(key), under(key[1])]
        for condition in SHOWN:
            tasks = tasks_of(measured, condition)
            cells.append(spread(measured.recall[:, tasks].mean(axis=1)))
            is_base = base is None or key[1] == Setting("centroid")
            cells.append("" if is_base else shown(difference(measured, base, tasks)))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def chosen(splits: dict[str, Found]) -> list[str]:
    """Choose an aggregator on validation classes, and compare it with the centroid on test."""
    validation, test = splits["validation"], splits["test"]
    candidates = [key for key in test if key[0] == "frozen" and key[1].trained_size is None]

    def score(key: Key) -> float:
        measured = validation[key]
        return float(measured.recall[:, tasks_of(measured, CHOSEN_UNDER)].mean())

    others = [key for key in candidates if key != CENTROID]
    tasks = tasks_of(test[CENTROID], CHOSEN_UNDER)
    found = [difference(test[key], test[CENTROID], tasks) for key in others]
    corrected = dict(zip(others, holm([one.p_value for one in found]), strict=True))
    best = max(candidates, key=score)
    head = (
        f"Under 30 % of strangers, validation classes choose {name_of(best)}"
        f"{f' (trained under {under(best[1])})' if under(best[1]) else ''}: "
        f"{100 * score(best):.1f} against {100 * score(CENTROID):.1f} of the centroid."
    )
    if best == CENTROID:
        return [head]
    one = found[others.index(best)]
    better = [
        name_of(key) + under(key[1], " ")
        for key in others
        if corrected[key] < 0.05 and found[others.index(key)].mean > 0
    ]
    return [
        f"{head} On test classes it differs from the centroid by {shown(one)} points, "
        f"p = {corrected[best]:.3g} after Holm's correction for {len(others)} comparisons. "
        f"Better than the centroid with a corrected p below 0.05: {', '.join(better) or 'none'}.",
    ]


def transfer(found: Found) -> list[str]:
    """Tabulate what was trained on collections of one size, at each size of the test."""
    keys = [key for key in found if key[1].trained_size is not None]
    if not keys:
        return []
    base = found[CENTROID]
    places = [n for n, task in enumerate(base.tasks) if task[1] == "clean"]
    heads = " | ".join(f"size {base.tasks[n][0]} | difference" for n in places)
    lines = [
        "Trained on clean collections of one size, measured on clean ones of each:",
        "",
        f"| aggregator | trained on size | {heads} |",
        "|---" * (2 + 2 * len(places)) + "|",
    ]
    for key in keys:
        cells = [name_of(key), str(key[1].trained_size)]
        for n in places:
            cells.append(f"{100 * found[key].recall[:, n].mean():.1f}")
            cells.append(shown(difference(found[key], base, [n])))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def few_shot(cells: Sequence[Cell], results: Path) -> list[str]:
    """Tabulate few-shot accuracy on test classes, of what was measured on such tasks."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        if not is_done(cell, results):
            continue
        name = f"{cell.aggregator}, end to end" if cell.aggregator else "centroid"
        for row in json.loads(result_path(cell, results).read_text()).get("few_shot", []):
            task = f"{row['ways']}-way {row['shots']}-shot"
            found.setdefault(name, {}).setdefault(task, []).append(row["accuracy"])
    if not found:
        return []
    tasks = list(next(iter(found.values())))
    lines = [
        "## Few-shot tasks",
        "",
        "Accuracy in percent on test classes of omniglot_characters, 15 queries of a class, mean "
        "over seeds of 600 tasks each; with the centroid that is a prototypical network.",
        "",
        f"| aggregator | {' | '.join(tasks)} |",
        "|---" * (1 + len(tasks)) + "|",
    ]
    for name, accuracy in found.items():
        cells_of = [spread(np.array(accuracy[task])) for task in tasks]
        lines.append(f"| {name} | {' | '.join(cells_of)} |")
    return lines


def tasks_of(measured: Measured, condition: tuple[str, float]) -> list[int]:
    """Return the places of a condition's tasks, of sizes above 1."""
    return [n for n, task in enumerate(measured.tasks) if task[0] > 1 and task[1:] == condition]


def under(setting: Setting, before: str = "") -> str:
    """Say what strangers an aggregator was trained under, if it was trained on embeddings."""
    return "" if setting.contamination is None else f"{before}{setting.contamination:g}"


def shown(one: Difference) -> str:
    """Write a difference in points with its interval."""
    if math.isnan(one.low):
        return f"{100 * one.mean:+.1f}"
    return f"{100 * one.mean:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def spread(values: np.ndarray) -> str:
    """Write a mean over seeds with its deviation, in percent."""
    if len(values) < 2:
        return f"{100 * values.mean():.1f}"
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
