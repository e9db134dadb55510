"""Test published claims again: `python -m evaluation NAME --budget smoke|cpu|full`.

Without a name it lists the suites. Each cell runs in a process of its own and is skipped when its
result is there; what was interrupted continues.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluation import cells, suite_tables, suites
from evaluation.aggregation import cell as aggregation_cell
from evaluation.aggregation import plan, tables
from evaluation.aggregation.plots import write_plots
from evaluation.bounds import cell as bounds_cell
from evaluation.bounds import plan as bounds_plan
from evaluation.bounds import tables as bounds_tables
from evaluation.retrieval import cell as retrieval_cell
from evaluation.retrieval import plan as retrieval_plan
from evaluation.retrieval import tables as retrieval_tables
from setrep.errors import InputError


@dataclass(frozen=True)
class Suite:
    """What runs the cells of a suite and writes what they have found."""

    cells: Callable[[str], Sequence[Any]]
    run_cell: Callable[[Any, Path, Path, float | None], bool]
    is_done: Callable[[Any, Path], bool]
    write_table: Callable[[str, Sequence[Any], Path], str]


SUITES = {
    name: Suite(
        partial(suites.cells, name),
        cells.run_cell,
        cells.is_done,
        partial(suite_tables.write_table, name),
    )
    for name in suites.SUITES
} | {
    plan.SUITE: Suite(
        plan.cells, aggregation_cell.run_cell, aggregation_cell.is_done, tables.write_table
    ),
    bounds_plan.SUITE: Suite(
        bounds_plan.cells, bounds_cell.run_cell, bounds_cell.is_done, bounds_tables.write_table
    ),
    retrieval_plan.SUITE: Suite(
        retrieval_plan.cells,
        retrieval_cell.run_cell,
        retrieval_cell.is_done,
        retrieval_tables.write_table,
    ),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    parser.add_argument("suite", nargs="?", choices=list(SUITES))
    parser.add_argument("--budget", choices=suites.BUDGETS, default="smoke")
    parser.add_argument("--cell", help="run one cell, in this process")
    parser.add_argument("--max-minutes", type=float, help="begin no cell later; stop one then")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, one thread each")
    parser.add_argument("--data-root", help="where the images are; else SETREP_DATA")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/evaluation"))
    parser.add_argument("--results-dir", type=Path, default=cells.RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a suite, or one cell of it, and write its table."""
    asked = parse(arguments)
    if asked.data_root:
        os.environ["SETREP_DATA"] = asked.data_root
    if asked.suite is None:
        for name, suite in SUITES.items():
            counts = (f"{budget}: {len(suite.cells(budget))}" for budget in suites.BUDGETS)
            print(f"{name}  (cells {', '.join(counts)})")
        return 0
    suite = SUITES[asked.suite]
    everyone = suite.cells(asked.budget)
    if asked.cell:
        chosen = [cell for cell in everyone if cell.name == asked.cell]
        if not chosen:
            known = ", ".join(cell.name for cell in everyone)
            raise InputError(f"Suite {asked.suite} has no cell '{asked.cell}'. Known: {known}.")
        suite.run_cell(chosen[0], asked.work_dir, asked.results_dir, asked.max_minutes)
        return 0
    failed = 0
    if asked.budget == "smoke":  # seconds: a process each would take longer than the cells
        for cell in everyone:
            if not suite.is_done(cell, asked.results_dir):
                suite.run_cell(cell, asked.work_dir, asked.results_dir, asked.max_minutes)
    else:
        failed = run_suite(suite, everyone, asked)
    table = suite.write_table(asked.budget, everyone, asked.results_dir)
    print(table)
    if asked.suite == plan.SUITE and asked.budget != "smoke":
        write_plots(asked.budget, everyone, asked.results_dir)
    return 1 if failed else 0


def run_suite(suite: Suite, everyone: Sequence[Any], asked: argparse.Namespace) -> int:
    """Run what is not done, each cell in a process; return how many failed."""
    began = time.monotonic()

    def run(cell: Any) -> bool:
        left = None
        if asked.max_minutes is not None:
            left = asked.max_minutes - (time.monotonic() - began) / 60
            if left <= 0:
                return True
        command = [sys.executable, "-m", "evaluation", asked.suite, "--budget", cell.budget]
        command += ["--cell", cell.name, "--work-dir", str(asked.work_dir)]
        command += ["--results-dir", str(asked.results_dir)]
        command += [] if left is None else ["--max-minutes", f"{left:.3f}"]
        environment = dict(os.environ)
        if asked.jobs > 1:
            environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        state = "done" if suite.is_done(cell, asked.results_dir) else "stopped"
        if done.returncode:
            state = f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
        print(f"{time.strftime('%H:%M:%S')} {cell.name}: {state}", file=sys.stderr, flush=True)
        return done.returncode == 0

    waiting = [cell for cell in everyone if not suite.is_done(cell, asked.results_dir)]
    with ThreadPoolExecutor(max(1, asked.jobs)) as pool:
        return sum(not is_good for is_good in pool.map(run, waiting))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
