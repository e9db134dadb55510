"""Exact search and metrics against scikit-learn and pytorch-metric-learning, in one run.

    python benchmarks/knn.py [--bank 10000 --queries 2000 --dim 128 --k 50 --rounds 3] > knn.json

Every method has a process of its own, so that its peak memory is its own, and they are timed in
turns, so that load falls on all alike. Times are medians over rounds; `ratio` is to the first of
its group. `evaluate_items` and `AccuracyCalculator` do leave-one-out on the queries, recall@1 and
MAP@R; `value` is their sum, or of a search the sum of the positions found.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

SEARCHES = ("setrep_faiss", "setrep_torch", "sklearn_brute")
METRICS = ("setrep_items", "pml_accuracy")
PACKAGES = ("torch", "faiss-cpu", "scikit-learn", "pytorch-metric-learning")


def main() -> None:
    """Compare the methods, or serve one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("bank", 10_000), ("queries", 2_000), ("dim", 128), ("k", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SEARCHES + METRICS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        serve(arguments)
    else:
        print(json.dumps(compare(arguments), indent=2))


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Start every method, wait until each is ready, then time them in turns."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only"]
    workers = {
        name: subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in SEARCHES + METRICS
    }
    ready = [name for name, worker in workers.items() if ask(worker)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name in ready:
            rounds[name] += ask(workers[name], "go")
    for worker in workers.values():
        worker.communicate()
    return {
        "sizes": {name: getattr(arguments, name) for name in ("bank", "queries", "dim", "k")},
        "rounds": arguments.rounds,
        "search": summary(rounds, SEARCHES),
        "metrics": summary(rounds, METRICS),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def ask(worker: subprocess.Popen[str], question: str = "") -> list[dict[str, float]]:
    """Return what a worker answers, in a list; nothing from one that cannot import its library."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    if question:
        print(question, file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    return [json.loads(answer)] if answer else []


def summary(
    rounds: dict[str, list[dict[str, float]]], names: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    """Return median seconds, their ratio to the first name, peak memory and a value to compare."""
    base = [run["seconds"] for run in rounds[names[0]]]
    table: dict[str, dict[str, float | None]] = {}
    for name in names:
        seconds = [run["seconds"] for run in rounds[name]]
        if not seconds:
            table[name] = {"seconds": None}
            continue
        table[name] = {
            "seconds": round(statistics.median(seconds), 4),
            "ratio": round(statistics.median(seconds) / statistics.median(base), 2),
            "added_peak_mb": round(statistics.median(run["mb"] for run in rounds[name]), 1),
            "value": rounds[name][0]["value"],
        }
    return table


def serve(arguments: argparse.Namespace) -> None:
    """Prepare one method, try it on a few queries, then measure it whenever asked."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 100, (arguments.bank,), generator=generator)
    centres = torch.randn(100, arguments.dim, generator=generator)
    noise = torch.randn(arguments.bank, arguments.dim, generator=generator)
    bank = normalize(centres[labels] + 3 * noise)
    method = prepare(arguments.only, bank, labels, arguments.k)
    method(200)
    before = peak_mb()
    print("{}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        value = method(arguments.queries)
        seconds = time.perf_counter() - started
        print(
            json.dumps({"seconds": seconds, "mb": peak_mb() - before, "value": value}), flush=True
        )


def prepare(name: str, bank: Tensor, labels: Tensor, k: int) -> Callable[[int], float]:
    """Return a function of the number of queries that searches or measures the first of them."""
    if name.startswith("setrep_") and name != "setrep_items":
        from setrep.index.search import top_k

        backend = "faiss" if name == "setrep_faiss" else "torch"
        return lambda count: float(top_k(bank[:count], bank, k, backend=backend)[1].sum())
    if name == "sklearn_brute":
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(bank)
        return lambda count: float(index.kneighbors(bank[:count])[1].sum())
    if name == "setrep_items":
        from setrep.protocols.items import evaluate_items

        def measure(count: int) -> float:
            result = evaluate_items(bank[:count], labels[:count])
            return result.recall_at_1 + (result.map_at_r or 0)

        return measure
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    include = ("precision_at_1", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include, k="max_bin_count", device=torch.device("cpu"))
    return lambda count: float(sum(calculator.get_accuracy(bank[:count], labels[:count]).values()))


def peak_mb() -> float:
    """Return the largest memory this process has held."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def version(name: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
