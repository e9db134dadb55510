"""Pictures of the suite: recall against size under each condition, beside the centroid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.aggregation.compare import Measured, gather
from evaluation.aggregation.plan import CENTROID, SHOWN, SUITE, Cell, Key, name_of

STYLES = ("-", "--", ":", "-.")


def write_plots(budget: str, cells: Sequence[Cell], results: Path) -> list[Path]:
    """Write a picture for each source that has the centroid, and return them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    written = []
    for source, splits in gather(cells, results).items():
        found = splits["test"]
        if CENTROID not in found:
            continue
        figure, axes = plt.subplots(1, len(SHOWN), figsize=(4 * len(SHOWN), 5.5), sharey=True)
        for axis, condition in zip(axes, SHOWN, strict=True):
            draw(axis, found, condition)
        axes[0].set_ylim(*np.clip(axes[0].get_ylim(), -25, 25))  # shared: after all are drawn
        axes[0].set_ylabel("recall@1 less the centroid's, points")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=6, fontsize=8, frameon=False)
        figure.suptitle(f"{source}: classes not trained on, mean of seeds")
        figure.tight_layout(rect=(0, 0.16, 1, 1))
        path = results / SUITE / budget / f"{source}.png"
        figure.savefig(path, dpi=90)
        plt.close(figure)
        written.append(path)
    return written


def draw(axis: object, found: dict[Key, Measured], condition: tuple[str, float]) -> None:
    """Draw the difference from the centroid against the size, a line for each setting."""
    keys = [
        key
        for key in found
        if key[0] == "frozen" and key[1].trained_size is None and key[1].contamination != 0
    ]
    for number, key in enumerate(keys):
        measured, base = found[key], found[CENTROID]
        places = [n for n, task in enumerate(measured.tasks) if task[1:] == condition]
        sizes = [measured.tasks[n][0] for n in places]
        seeds = min(len(measured.recall), len(base.recall))
        gap = (measured.recall[:seeds] - base.recall[:seeds])[:, places].mean(axis=0)
        style = {"color": f"C{number % 10}", "linestyle": STYLES[number // 10 % 4]}
        if key == CENTROID:
            style = {"color": "black", "linestyle": "-"}
        axis.plot(sizes, 100 * gap, marker=".", label=name_of(key), **style)  # type: ignore[attr-defined]
    name, rate = condition
    axis.set_title(f"{name} {rate:g}" if rate else name)  # type: ignore[attr-defined]
    axis.set_xscale("log")  # type: ignore[attr-defined]
    axis.set_xticks(sizes, [str(size) for size in sizes])  # type: ignore[attr-defined]
    axis.minorticks_off()  # type: ignore[attr-defined]
    axis.set_xlabel("items of a collection")  # type: ignore[attr-defined]
