"""The suite of retrieval: numbers against loops, violations that are counted, cells that go on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.__main__ import main
from evaluation.aggregation.compare import holm
from evaluation.retrieval import calibration, cell, compare, measure, plan, tables
from evaluation.retrieval.compare import NAMES, Found
from evaluation.retrieval.measure import TWO_STAGES, VALUES, prepare
from evaluation.retrieval.plan import CENTROID, Certified, Method
from setrep import bounds
from setrep.aggregators import AGGREGATORS, CentroidAggregator
from setrep.set_distances import SET_DISTANCES
from tests.two_networks import vectors

CHAMFER, MAXSIM = Method("set distance", "chamfer"), Method("set distance", "maxsim")


def euclidean(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(((x - y) ** 2).sum()))


def of_centroids(x: np.ndarray, y: np.ndarray) -> float:
    return euclidean(x.mean(axis=0), y.mean(axis=0))


def of_chamfer(x: np.ndarray, y: np.ndarray) -> float:
    there = np.mean([min(euclidean(a, b) for b in y) for a in x])
    return float(there + np.mean([min(euclidean(a, b) for a in x) for b in y]))


def of_maxsim(x: np.ndarray, y: np.ndarray) -> float:
    return -sum(max(float(a @ b) for b in y) for a in x)


def collections(items: np.ndarray, positions: torch.Tensor, offsets: torch.Tensor):
    edges = offsets.tolist()
    return [items[positions[a:b].numpy()] for a, b in itertools.pairwise(edges)]


def by_loops(items, task, distance, num_candidates) -> np.ndarray:
    """Measure as `measure` does, from the definitions."""
    rows = []
    for draw in task.draws:
        queries = collections(items, draw.query_items, draw.query_offsets)
        gallery = collections(items, draw.gallery_items, draw.gallery_offsets)
        labels = draw.gallery_labels.tolist()
        places = range(len(gallery))
        for query, label in zip(queries, draw.query_labels.tolist(), strict=True):
            by_set = sorted(places, key=lambda g, q=query: (distance(q, gallery[g]), g))
            by_mean = sorted(places, key=lambda g, q=query: (of_centroids(q, gallery[g]), g))
            candidates = by_mean[:num_candidates]
            staged = [place for place in by_set if place in candidates]
            row = []
            for ranked in (by_set, staged):
                hits = [labels[place] == label for place in ranked]
                relevant = labels.count(label)
                precision = [
                    sum(hits[: rank + 1]) / (rank + 1)
                    for rank in range(min(relevant, len(hits)))
                    if hits[rank]
                ]
                row += [any(hits[:1]), any(hits[:5]), sum(precision) / relevant]
            row += [by_set[0] in candidates, np.mean([g in candidates for g in by_set[:5]])]
            rows.append(row)
    return np.array(rows, dtype=float).T


def test_every_aggregator_and_every_set_distance_is_measured():
    methods = plan.methods_of("cpu")
    assert {m.name for m in methods if m.kind == "aggregator"} == set(AGGREGATORS)
    assert {m.name for m in methods if m.kind == "set distance"} == set(SET_DISTANCES)
    assert len(methods) == len(set(methods))
    sources = {"omniglot_characters", "omniglot_alphabets", "cifar100"}
    for budget in ("cpu", "full"):
        assert {one.source for one in plan.cells(budget)} == sources
    assert all(of.certified.num_queries >= 2000 for of in plan.SOURCES.values())


@pytest.mark.parametrize(
    ("name", "reference"), [("chamfer", of_chamfer), ("maxsim", of_maxsim), (None, of_centroids)]
)
def test_what_is_found_equals_loops_over_the_definitions(monkeypatch, name, reference):
    monkeypatch.setattr(measure, "NUM_CANDIDATES", 2)
    dataset = vectors(num_labels=6, per_label=18)
    items = dataset.items + np.random.default_rng(1).normal(size=dataset.items.shape)
    table = torch.from_numpy(items)
    centroid = measure.order_by_aggregates(CentroidAggregator(items.shape[1]))
    order = centroid if name is None else measure.order_by_sets(name)
    for size in (1, 3):
        task = prepare(dataset, size, 3, 40, seed=0)
        assert len(task.labels) == 40
        assert len(task.draws) == 3  # of 18 queries each
        found = measure.measure(table, task, order, has_stages=True).numpy()
        wanted = by_loops(items, task, reference, 2)
        assert found.shape == (len(VALUES) + len(TWO_STAGES), 40)
        np.testing.assert_allclose(found, wanted)
        assert 0.2 < found[0].mean() < 1  # neither nothing nor all is found
        if name is None:
            assert np.all(found[-2] == 1)
        else:
            assert found[-1].mean() < 1
        plain = measure.measure(table, task, order, has_stages=False).numpy()
        np.testing.assert_array_equal(plain, found[: len(VALUES)])


def test_the_last_draw_gives_as_many_queries_as_are_needed_evenly_over_labels():
    dataset = vectors(num_labels=6, per_label=18)
    for seed in range(5):
        counts = torch.bincount(prepare(dataset, 2, 3, 10, seed=seed).labels)
        assert sorted(counts.tolist()) == [1, 1, 2, 2, 2, 2]
    whole = prepare(dataset, 2, 3, 18, seed=0).draws[0]
    (kept,) = prepare(dataset, 2, 3, 10, seed=0).draws
    assert torch.equal(kept.gallery_items, whole.gallery_items)
    labels = torch.from_numpy(dataset.labels)
    assert torch.equal(labels[kept.query_items].view(-1, 2)[:, 0], kept.query_labels)
    pairs = set(map(tuple, whole.query_items.view(-1, 2).tolist()))
    chosen = list(map(tuple, kept.query_items.view(-1, 2).tolist()))
    assert len(set(chosen)) == 10
    assert set(chosen) <= pairs
    other = prepare(dataset, 2, 3, 10, seed=1).draws[0]
    assert not torch.equal(other.query_items, kept.query_items)


def test_values_are_averaged_in_each_class_and_missing_where_there_is_no_query():
    values = torch.tensor([[1.0, 0.0, 1.0], [0.5, 0.25, 0.0]])
    found = measure.by_class(values, torch.tensor([7, 3, 7]), torch.tensor([3, 5, 7]))
    np.testing.assert_array_equal(found, [[0, np.nan, 1], [0.25, np.nan, 0.25]])


def test_certificates_are_of_items_that_the_gallery_does_not_hold(monkeypatch):
    given = {}
    certify = bounds.certify_retrieval

    def spy(gallery, pools, sizes):
        given.update(gallery=gallery, pools=pools)
        return certify(gallery, pools, sizes)

    monkeypatch.setattr(calibration.bounds, "certify_retrieval", spy)
    dataset = vectors(num_labels=4, per_label=12)
    asked = Certified(5, (1, 3, 7), 300)
    rows, arrays = calibration.calibrate(torch.from_numpy(dataset.items), dataset.labels, asked, 0)
    items = dataset.items.astype(np.float64)
    for label, (centre, pool) in enumerate(zip(given["gallery"], given["pools"], strict=True)):
        own = items[dataset.labels == label]
        assert len(pool) == 7
        held = {tuple(item) for item in own.tolist()} - {tuple(item) for item in pool.tolist()}
        np.testing.assert_allclose(centre.numpy(), np.mean(list(held), axis=0))
    assert arrays["num_errors"].shape == (4, 3)
    assert len(rows) == len(calibration.BOUNDS) * 3
    assert all(row["num_checks"] == 4 and row["num_violations"] == 0 for row in rows)
    last = {row["bound"]: row for row in rows if row["size"] == 7}
    assert last["half_space"]["bound_max"] == 0  # of the whole pool the outcome is known
    assert last["half_space"]["error_max"] == 0
    np.testing.assert_array_equal(
        arrays["bound"], np.minimum(arrays["half_space"], arrays["chernoff"])
    )


def test_an_injected_violation_is_counted(monkeypatch):
    dataset = vectors(num_labels=5, per_label=30)
    noise = np.random.default_rng(0).normal(size=dataset.items.shape)
    table, asked = torch.from_numpy(dataset.items + noise), Certified(10, (1, 2), 2000)
    honest, arrays = calibration.calibrate(table, dataset.labels, asked, 0)
    assert sum(row["num_violations"] for row in honest) == 0
    assert arrays["num_errors"].max() > 100
    real = calibration.bound_of
    is_wrong = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]], bool)
    lower = np.array(
        [
            [stats.binomtest(int(k), 2000).proportion_ci(0.95, "exact").low for k in row]
            for row in arrays["num_errors"]
        ]
    )
    injected = torch.from_numpy(lower + np.where(is_wrong, -1e-9, 1e-9))

    def too_low(certificate, name):
        return injected if name == "chernoff" else real(certificate, name)

    monkeypatch.setattr(calibration, "bound_of", too_low)
    rows, _ = calibration.calibrate(table, dataset.labels, asked, 0)
    wanted = is_wrong.sum(axis=0)
    found = {(row["bound"], row["size"]): row["num_violations"] for row in rows}
    assert [found["chernoff", 1], found["chernoff", 2]] == wanted.tolist()
    assert found["half_space", 1] == found["triangle", 1] == found["bound", 1] == 0
    assert f"Failed: {wanted.sum()} of {5 * 2 * len(calibration.BOUNDS)}" in tables.claim(rows)
    assert f"Passed: 0 of {5 * 2 * len(calibration.BOUNDS)}" in tables.claim(honest)


def found_of(methods: tuple[Method, ...], by_class: np.ndarray) -> Found:
    means = np.nanmean(by_class, axis=-1)
    return Found(methods, (1, 2, 5), (0, 1, 2), means, by_class, (), 100)


def test_differences_are_of_the_same_seeds_sizes_and_classes():
    generator = np.random.default_rng(0)
    methods = (CENTROID, CHAMFER, MAXSIM)
    by_class = generator.random((3, 3, 3, len(NAMES), 12)) * 0.5
    gain = np.linspace(0.1, 0.3, 12)
    by_class[:, 1, :, 0] = by_class[:, 0, :, 0] + gain  # recall@1 of chamfer
    by_class[:, 1, 0, 0] = 0  # size 1 is not among those that are averaged
    by_class[:, 2, :, 0] = by_class[:, 0, :, 0]
    found = found_of(methods, by_class)
    gap = found.gap((CHAMFER, "recall_at_1"), (CENTROID, "recall_at_1"), [2, 5])
    assert gap.mean == pytest.approx(0.2)
    assert 0.1 < gap.low < 0.2 < gap.high < 0.3
    (one,) = (line for line in tables.all_sizes(found) if line.startswith("| chamfer"))
    assert "| +20.0 [+" in one
    alike = found.gap((MAXSIM, "recall_at_1"), (CENTROID, "recall_at_1"), [2, 5])
    assert (alike.mean, alike.low, alike.high) == (0, 0, 0)
    assert one.endswith(f"| {holm([gap.p_value, alike.p_value])[0]:.3f} |")
    staged = found.gap((CHAMFER, "two_stage_recall_at_1"), (CHAMFER, "recall_at_1"), [2])
    place = NAMES.index("two_stage_recall_at_1")
    wanted = (by_class[:, 1, 1, place] - by_class[:, 1, 1, 0]).mean()
    assert staged.mean == pytest.approx(wanted)
    lines = [line for line in tables.two_stages(found) if line.startswith("| ")][1:]
    assert [line.split()[1] for line in lines] == ["chamfer", "maxsim"]
    share = 100 * by_class[:, 1, 1:, NAMES.index("found_top1")].mean()
    assert f"| {share:.1f} ±" in lines[0]
    both = found.gap((CHAMFER, "two_stage_recall_at_1"), (CHAMFER, "recall_at_1"), [2, 5])
    beside = found.gap((CHAMFER, "two_stage_recall_at_1"), (CENTROID, "recall_at_1"), [2, 5])
    columns = lines[0].split(" | ")
    assert columns[2] == tables.shown(both)
    assert columns[7] == tables.shown(beside)
    assert columns[2] != columns[7]


def test_small_probabilities_are_not_written_as_0():
    assert [tables.percent(value) for value in (1.0, 0.0123, 0.0, 2e-7)] == [
        "100.0",
        "1.2",
        "0.0",
        "2e-05",
    ]


def test_the_smoke_cell_goes_on_after_an_interruption_and_says_the_same(
    tmp_path: Path, monkeypatch, capsys
):
    (one,) = plan.cells("smoke")
    work, results = tmp_path / "work", tmp_path / "results"
    assert not cell.run_cell(one, work, results, max_minutes=1e-6)
    real, calls = cell.measure, []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cell, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        cell.run_cell(one, work, results)
    assert not cell.is_done(one, results)
    places = ["--work-dir", str(work), "--results-dir", str(results)]
    assert main(["retrieval", "--budget", "smoke", *places]) == 0
    num_parts = len(plan.methods_of("smoke")) * len(plan.SOURCES["digits"].sizes)
    assert len(calls) == 1 + num_parts  # the one that broke off is begun again, no other
    table = capsys.readouterr().out
    assert (results / "retrieval" / "smoke" / "table.md").read_text() in table
    assert "Passed: 0 of" in table
    for method in plan.methods_of("smoke"):
        assert table.count(f"| {tables.name_of(method)} |") >= 2
    path = cell.result_path(one, results)
    kept, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
    assert str(tmp_path) not in path.read_text()
    assert cell.is_done(one, results)
    assert not cell.is_done(replace(one, num_queries=13), results)

    # Unbroken, on the same encoder: the same numbers.
    for part in work.rglob("measured/*.npy"):
        part.unlink()
    path.unlink()
    assert cell.run_cell(one, work, results)
    again, arrays_again = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
    for name in ("identity", "columns", "rows", "calibration_columns", "calibration"):
        assert kept[name] == again[name]
    assert arrays.keys() == arrays_again.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, arrays_again[name])

    # What is gathered is what was written.
    (found,) = compare.gather([one], results).values()
    row = dict(zip(kept["columns"], kept["rows"][0], strict=True))
    method = Method(row["kind"], row["name"])
    assert found.mean(method, "recall_at_1", [row["size"]])[0] == row["recall_at_1"]
    assert found.by_class.shape[-1] == row["num_classes"]
