"""Pictures of the suite: recall against size under each condition, beside the centroid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.aggregation.compare import Measured, gather, paired
from evaluation.aggregation.plan import CENTROID, FREE, LEARNED, SHOWN, SUITE, Cell, Key, name_of

# Of equal sizes the sum ranks as the centroid does, which is the line at 0.
ROWS = (
    ("nothing to learn", [name for name in FREE if name not in ("centroid", "sum")]),
    ("learned under 0.3 of strangers", list(LEARNED)),
)


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
        figure, grid = plt.subplots(
            2, len(SHOWN), figsize=(3 * len(SHOWN) + 2, 6.5), sharey=True, sharex="col"
        )
        for axes, (title, names) in zip(grid, ROWS, strict=True):
            for axis, condition in zip(axes, SHOWN, strict=True):
                draw(axis, found, names, condition)
            axes[0].set_ylabel("recall@1 less the\ncentroid's, points")
            handles, labels = axes[0].get_legend_handles_labels()
            axes[-1].legend(
                handles, labels, title=title, loc="upper left", bbox_to_anchor=(1, 1), frameon=False
            )
        for axis, (name, rate) in zip(grid[0], SHOWN, strict=True):
            axis.set_title(f"{name} {rate:g}" if rate else name)
        for axis in grid[1]:
            axis.set_xlabel("items of a collection")
        grid[0, 0].set_ylim(*np.clip(grid[0, 0].get_ylim(), -12, 25))  # after all are drawn
        figure.suptitle(f"{source}: classes not trained on, mean of seeds")
        figure.tight_layout()
        path = results / SUITE / budget / f"{source}.png"
        figure.savefig(path, dpi=90, bbox_inches="tight")
        plt.close(figure)
        written.append(path)
    return written


def draw(
    axis: Any, found: dict[Key, Measured], names: Sequence[str], condition: tuple[str, float]
) -> None:
    """Draw the difference from the centroid against the size, a line for each aggregator."""
    base = found[CENTROID]
    places = [n for n, task in enumerate(base.tasks) if task[1:] == condition]
    sizes = [base.tasks[n][0] for n in places]
    axis.axhline(0, color="black", linewidth=1)
    for key in found:
        setting = key[1]
        is_shown = setting.aggregator in names and setting.trained_size is None
        if key[0] != "frozen" or not is_shown or setting.contamination == 0:
            continue
        mine, of_base = paired(found[key], base)
        gap = (found[key].recall[mine] - base.recall[of_base])[:, places].mean(axis=0)
        axis.plot(sizes, 100 * gap, marker=".", label=name_of(key))
    axis.set_xscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
