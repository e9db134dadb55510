"""An index of 100,000 collections of 1,000,000 items, beside FAISS and scikit-learn.

    python benchmarks/collection_index.py [--collections 100000 --items 10 --threads 2] > index.json

Items are a mixture: 1,000 labels, 100 collections of a label, items around their collection, on
average `--items` of each. A query is ten fresh items of one of the collections. Each step runs in a
process of its own, which tells its time and its largest memory (resident, shared pages included;
those of the mapped files count once they are read).

- build: embeddings to an index on disk, synced.
- open and first query; then queries a second: of one, and in batches of 1,000, by centroids
  (FAISS's IndexFlatL2 and scikit-learn's brute search of the same centroids beside it), with
  matched items, with a filter, and re-ranked by set distances.
- items: FAISS on all items, and the collection of the nearest item, which is what people do
  without an index of collections: its time and how often it names the right one.
- recall of both stages: the share of the ten nearest of ALL collections by a set distance that
  re-ranking the 100 nearest centroids finds.
- kinds: build time, queries a second and recall of IVF, HNSW and PQ.
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
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from setrep.collection import CollectionBatch
from setrep.index.kinds import KINDS
from setrep.retrieval import CollectionIndex
from setrep.retrieval.rerank import find_distance, measure

DIM, LABELS, QUERY_ITEMS, K = 128, 1000, 10, 10
BRUTE = {"chamfer": 20, "energy": 20, "wasserstein": 4}  # queries held against all collections


def main() -> None:
    """Run every step in a process of its own and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--collections", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.step:
        found = STEPS[asked.step](asked)
        found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(json.dumps(found))
        return
    report: dict[str, Any] = {
        "sizes": {"collections": asked.collections, "dim": DIM, "query_items": QUERY_ITEMS, "k": K},
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "numpy", "faiss-cpu", "scikit-learn")
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            print(step, file=sys.stderr, flush=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--step", step, "--place", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            report[step] = json.loads(done.stdout)
            print(done.stdout, file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


def mixture(count: int, items: int) -> tuple[CollectionBatch, Any]:
    """Draw collections of 1 to twice the average of items, less one, and their true centres."""
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(LABELS, DIM)).astype(np.float32)
    centres = labels[np.arange(count) % LABELS]
    centres = centres + 0.5 * generator.standard_normal(centres.shape, dtype=np.float32)
    sizes = generator.integers(1, 2 * items, count)
    values = np.repeat(centres, sizes, axis=0)
    values += 0.5 * generator.standard_normal(values.shape, dtype=np.float32)
    offsets = torch.from_numpy(np.cumsum([0, *sizes]))
    return CollectionBatch(torch.from_numpy(values), offsets), centres


def fresh_queries(centres: Any, count: int) -> tuple[CollectionBatch, list[int]]:
    """Draw queries of ten items of collections chosen at random."""
    generator = np.random.default_rng(1)
    of = generator.integers(0, len(centres), count)
    values = np.repeat(centres[of], QUERY_ITEMS, axis=0)
    values += 0.5 * generator.standard_normal(values.shape, dtype=np.float32)
    offsets = torch.arange(0, len(values) + 1, QUERY_ITEMS)
    return CollectionBatch(torch.from_numpy(values), offsets), of.tolist()


def seconds(act: Callable[[], Any], rounds: int = 5) -> float:
    """Return the median time of an act, after one that is not counted."""
    act()
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def size_of(folder: Path) -> float:
    """Return the megabytes of a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def build(asked: argparse.Namespace) -> dict[str, Any]:
    """Write the index."""
    batch, _ = mixture(asked.collections, asked.items)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    count = len(batch)
    began = time.perf_counter()
    index = CollectionIndex.from_embeddings(
        batch,
        range(count),
        [i % LABELS for i in range(count)],
        [{"year": i % 50} for i in range(count)],
    )
    aggregated = time.perf_counter()
    index.save(Path(asked.place, "index"))
    return {
        "num_items": len(batch.values),
        "aggregate_s": round(aggregated - began, 2),
        "write_s": round(time.perf_counter() - aggregated, 2),
        "index_mb": round(size_of(Path(asked.place, "index")), 1),
        "vectors_mb": round(4e-6 * (batch.values.numel() + count * DIM), 1),
        "before_mb": round(before),
    }


def opened(asked: argparse.Namespace) -> dict[str, Any]:
    """Open the index in a fresh process and answer one query."""
    query = torch.zeros(QUERY_ITEMS, DIM)
    began = time.perf_counter()
    index = CollectionIndex.open(Path(asked.place, "index"))
    opened_at = time.perf_counter()
    index.query(query, K)
    return {
        "open_s": round(opened_at - began, 2),
        "first_query_s": round(time.perf_counter() - opened_at, 2),
    }


def queries(asked: argparse.Namespace) -> dict[str, Any]:
    """Answer queries by centroids and re-ranked, beside FAISS and scikit-learn on the centroids."""
    import faiss
    from sklearn.neighbors import NearestNeighbors

    batch, centres = mixture(asked.collections, asked.items)
    some, truth = fresh_queries(centres, 1000)
    index = CollectionIndex.open(Path(asked.place, "index"))
    assert index.set_encoder is not None
    vectors = index.set_encoder.aggregate(some).numpy()
    bank = index.set_encoder.aggregate(batch).numpy()
    del batch
    flat = faiss.IndexFlatL2(DIM)
    flat.add(bank)
    ones = [some.select([i]) for i in range(20)]
    found = index.query(some, K, matched_items=False)
    answered = {
        "faiss_flat": lambda: flat.search(vectors, K),
        "engine": lambda: index.engine.search(vectors, K),
        "index": lambda: index.query(some, K, matched_items=False),
        "index_with_matched_items": lambda: index.query(some, K),
        "index_with_filter": lambda: index.query(
            some, K, matched_items=False, filter={"year": [1, 2, 3, 4, 5]}
        ),
    }
    single = {
        "faiss_flat": lambda: [flat.search(vectors[i : i + 1], K) for i in range(20)],
        "engine": lambda: [index.engine.search(vectors[i : i + 1], K) for i in range(20)],
        "index": lambda: [index.query(one, K, matched_items=False) for one in ones],
        "index_with_matched_items": lambda: [index.query(one, K) for one in ones],
        "rerank_chamfer": lambda: [index.query(one, K, rerank="chamfer") for one in ones],
        "rerank_wasserstein": lambda: [index.query(one, K, rerank="wasserstein") for one in ones],
    }
    report: dict[str, Any] = {
        "batches_of_1000_qps": {n: round(1000 / seconds(act), 1) for n, act in answered.items()},
        "single_qps": {n: round(20 / seconds(act, 3), 1) for n, act in single.items()},
        "right_collection_first": mean(of[0].id == i for of, i in zip(found, truth, strict=True)),
        "right_label_first": mean(
            of[0].label == i % LABELS for of, i in zip(found, truth, strict=True)
        ),
        "same_as_faiss": same_as(found, flat.search(vectors, K)[1]),
    }
    peer = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(bank)
    report["batches_of_1000_qps"]["sklearn_brute"] = round(
        1000 / seconds(lambda: peer.kneighbors(vectors)), 1
    )
    return report


def items(asked: argparse.Namespace) -> dict[str, Any]:
    """Search all items by FAISS, and take the collection that most of the nearest are of."""
    import faiss

    batch, centres = mixture(asked.collections, asked.items)
    some, truth = fresh_queries(centres, 100)
    flat = faiss.IndexFlatL2(DIM)
    flat.add(batch.values.numpy())
    of_item = batch.index.numpy()

    def vote() -> list[int]:
        nearest = of_item[flat.search(some.values.numpy(), 1)[1][:, 0]].reshape(-1, QUERY_ITEMS)
        return [int(np.bincount(row).argmax()) for row in nearest]

    return {
        "batches_of_100_qps": round(100 / seconds(vote, 3), 1),
        "right_collection_first": mean(a == b for a, b in zip(vote(), truth, strict=True)),
    }


def stages(asked: argparse.Namespace) -> dict[str, Any]:
    """Hold re-ranking against the measurement of all collections."""
    _, centres = mixture(asked.collections, asked.items)
    index = CollectionIndex.open(Path(asked.place, "index"))
    everything = index.engine.fetch(index.ids)
    report = {}
    for name, count in BRUTE.items():
        some, truth = fresh_queries(centres, count)
        recalls, right, measured = [], [], []
        for i in range(count):
            one = some.select([i])
            scores = np.array(measure(one, everything, find_distance(name)))
            best = set(np.argsort(-scores, kind="stable")[:K].tolist())
            result = index.query(one, K, rerank=name)[0]
            recalls.append(len(best & {match.id for match in result}) / K)
            right.append(result[0].id == truth[i])
            measured.append(result.num_measured)
        report[name] = {
            "queries": count,
            "recall_at_10": round(statistics.mean(recalls), 4),
            "right_collection_first": mean(right),
            "mean_measured": round(statistics.mean(measured), 1),
        }
    return report


def kinds(asked: argparse.Namespace) -> dict[str, Any]:
    """Search by each kind of index."""
    _, centres = mixture(asked.collections, asked.items)
    some, _ = fresh_queries(centres, 1000)
    report = {}
    exact: Any = None
    for kind in KINDS:
        with CollectionIndex.open(Path(asked.place, "index")) as index:
            report[kind], found = of_kind(index, some, kind)
        exact = found if exact is None else exact
        shares = [len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=True)]
        report[kind] |= {
            "recall_at_10": mean(shares),
            "index_mb": round(size_of(Path(asked.place, "index")), 1),
        }
    return report


def of_kind(index: CollectionIndex, some: CollectionBatch, kind: Any) -> tuple[dict[str, Any], Any]:
    """Set the kind of an index, measure it, and return what it finds."""
    assert index.set_encoder is not None
    vectors, engine = index.set_encoder.aggregate(some).numpy(), index.engine
    began = time.perf_counter()
    chosen = engine.set_kind(kind)
    built = time.perf_counter() - began
    found = [[name for name, _ in of] for of in engine.search(vectors, K)]
    batch = seconds(lambda: engine.search(vectors, K), 3)
    single = seconds(lambda: [engine.search(vectors[[i]], K) for i in range(20)], 3)
    return {
        "build_s": round(built, 2),
        "expected_recall_at_10": chosen.recall_at_10,
        "parameters": chosen.parameters,
        "batches_of_1000_qps": round(1000 / batch, 1),
        "single_qps": round(20 / single, 1),
    }, found


def mean(values: Any) -> float:
    """Return the mean, with four digits."""
    return round(statistics.mean(float(value) for value in values), 4)


def same_as(found: Any, ids: Any) -> float:
    """Return the share of ranks at which the ids are the same."""
    return mean(
        match.id == other
        for of, row in zip(found, ids.tolist(), strict=True)
        for match, other in zip(of, row, strict=True)
    )


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "open": opened,
    "queries": queries,
    "items": items,
    "recall_of_both_stages": stages,
    "kinds": kinds,
}


if __name__ == "__main__":
    main()
