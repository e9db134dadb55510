"""Exact search of an engine against bare FAISS and scikit-learn, in turns.

    python benchmarks/exact_search.py [--bank 100000 --dim 128 --threads 2 --rounds 9] > exact.json

Vectors are a mixture of 1,000 normal clusters. Every batch, of 1,000 queries, of 32 or of one, is
given to one method after another, in random order, so that load and cold caches fall on all alike.
`ms` is the median over all batches of all rounds, `ratio` is that to `IndexFlat.search`, `same` the
share of ids at which a method agrees with it; where they differ, float32 rounding has reordered
neighbours. scikit-learn has a process of its own, since the threads of its OpenMP and those of
FAISS slow one another; it has no brute search by inner product.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch  # before FAISS, as in setrep: the order decides who shares OpenMP with whom
from sklearn.neighbors import NearestNeighbors

from setrep.index.directory import DirectoryEngine
from setrep.index.engine import Engine
from setrep.index.memory import MemoryEngine
from setrep.index.metric import Metric
from setrep.index.records import Records

Method = Callable[[Any], Any]
CALLS = {1000: 1, 32: 8, 1: 40}  # of each method in a round, by the size of a batch
K = 10
METRICS: tuple[Metric, ...] = ("euclidean", "inner_product")


def main() -> None:
    """Measure both metrics and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    faiss.omp_set_num_threads(asked.threads)
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(1000, asked.dim))
    bank, queries = (draw(generator, centres, count) for count in (asked.bank, 1000))
    if asked.serve:
        serve(bank, queries)
        return
    report: dict[str, Any] = {
        "sizes": {"bank": asked.bank, "dim": asked.dim, "k": K},
        "rounds": asked.rounds,
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "numpy", "faiss-cpu", "scikit-learn")
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        for metric in METRICS:
            methods = prepare(bank, metric, Path(folder) / metric)
            peer = None
            if metric == "euclidean":
                command = [sys.executable, __file__, *sys.argv[1:], "--serve"]
                pipe = subprocess.PIPE
                peer = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
            report[metric] = compare(methods, queries, asked.rounds, peer)
            if peer is not None:
                peer.communicate()
    print(json.dumps(report, indent=1))


def draw(generator: np.random.Generator, centres: Any, count: int) -> Any:
    """Draw points of the mixture."""
    of = centres[generator.integers(0, len(centres), count)]
    return (of + 0.5 * generator.normal(size=of.shape)).astype(np.float32)


def prepare(bank: Any, metric: Metric, place: Path) -> dict[str, Method]:
    """Return every method as a function of queries."""
    dim = bank.shape[1]
    is_euclidean = metric == "euclidean"
    flat = faiss.IndexFlatL2(dim) if is_euclidean else faiss.IndexFlatIP(dim)
    flat.add(bank)
    code = faiss.METRIC_L2 if is_euclidean else faiss.METRIC_INNER_PRODUCT
    ids = tuple(range(len(bank)))
    nothing = np.zeros((0, 1), np.float32), np.zeros(len(bank) + 1, np.int64)
    records = Records(ids, bank, *nothing, tuple({} for _ in ids))
    memory: Engine = MemoryEngine(dim, 1, metric)
    memory.add(records)
    with DirectoryEngine.create(place, dim, 1, metric) as engine:
        engine.add(records)
    directory = DirectoryEngine.open(place)
    methods: dict[str, Method] = {
        "faiss_index_flat": lambda some: flat.search(some, K)[1],
        "faiss_knn": lambda some: faiss.knn(some, bank, K, metric=code)[1],
        "setrep_memory": lambda some: memory.search(some, K),
        "setrep_directory": lambda some: directory.search(some, K),
    }
    return methods


def serve(bank: Any, queries: Any) -> None:
    """Search by scikit-learn whenever a line names a batch; answer seconds and ids."""
    peer = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(bank)
    peer.kneighbors(queries[:32])
    for line in sys.stdin:
        start, end = (int(word) for word in line.split())
        started = time.perf_counter()
        ids = peer.kneighbors(queries[start:end])[1]
        print(json.dumps([time.perf_counter() - started, ids.tolist()]), flush=True)


def compare(methods: dict[str, Method], queries: Any, rounds: int, peer: Any) -> dict[str, Any]:
    """Time the methods in turns, at every size of batch, after one round that is not counted."""
    generator, report = np.random.default_rng(1), {}
    for size, calls in CALLS.items():
        spent: dict[str, list[float]] = {}
        same: dict[str, list[float]] = {}
        for number in range(-1, rounds):
            for start in range(0, size * calls, size):
                found = {}
                for name in generator.permutation(list(methods)):
                    started = time.perf_counter()
                    found[name] = methods[name](queries[start : start + size])
                    seconds = time.perf_counter() - started
                    if number >= 0:
                        spent.setdefault(name, []).append(1000 * seconds)
                if peer is not None and number >= 0:
                    print(start, start + size, file=peer.stdin, flush=True)
                    seconds, found["sklearn_brute"] = json.loads(peer.stdout.readline())
                    spent.setdefault("sklearn_brute", []).append(1000 * seconds)
                for name, ids in found.items():
                    is_same = ids_of(ids) == ids_of(found["faiss_index_flat"])
                    same.setdefault(name, []).append(float(is_same.mean()))
        bare = statistics.median(spent["faiss_index_flat"])
        report[f"batches_of_{size}"] = {
            name: {
                "ms": round(statistics.median(times), 3),
                "fastest_ms": round(min(times), 3),
                "ratio": round(statistics.median(times) / bare, 3),
                "same": round(statistics.mean(same[name]), 5),
            }
            for name, times in sorted(spent.items())
        }
    return report


def ids_of(answer: Any) -> Any:
    """Return ids alone of what a method answers."""
    if isinstance(answer[0], list) and isinstance(answer[0][0], tuple):
        answer = [[one for one, _ in row] for row in answer]
    return np.asarray(answer)


if __name__ == "__main__":
    main()
