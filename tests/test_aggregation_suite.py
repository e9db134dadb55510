"""How the suite of aggregators compares: draws, differences over classes, corrected p-values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.aggregation import plan
from evaluation.aggregation.compare import Measured, difference, holm
from evaluation.aggregation.measure import measure, prepare
from evaluation.aggregation.plan import CONDITIONS
from setrep.aggregators import build_aggregator
from tests.two_networks import vectors


def test_p_values_are_corrected_for_their_number():
    # Holm 1979: multiplied by 4, 3, 2 and 1 in rising order, and never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


def measured(by_class: np.ndarray) -> Measured:
    recall = np.nanmean(by_class, axis=2)
    return Measured(((5, "clean", 0.0),), recall, recall, by_class, 500)


def test_a_difference_is_that_of_classes_averaged_over_seeds():
    generator = np.random.default_rng(0)
    base = generator.random((3, 1, 12))
    gain = np.linspace(0.05, 0.15, 12)
    found = difference(measured(base + gain), measured(base), [0])
    assert found.mean == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert found.low > 0
    assert found.p_value < 0.002  # all twelve signs agree: 2 of 4096 flips
    assert difference(measured(base), measured(base), [0]).p_value == 1.0


def test_every_condition_is_met_by_the_same_queries_and_changes_what_it_says():
    dataset = vectors(num_labels=6, per_label=20)
    tasks = prepare(dataset, (1, 4), num_queries=30, seed=0)
    assert len(tasks) == 2 * len(CONDITIONS) - 2  # one item has no strangers
    clean = {task.size: task for task in tasks if task.condition == "clean"}
    labels = torch.from_numpy(dataset.labels)
    for task in tasks:
        for draw, plain in zip(task.draws, clean[task.size].draws, strict=True):
            assert torch.equal(draw.query_labels, plain.query_labels)
            own = draw.query_items % len(dataset)
            if task.condition == "strangers":
                sides = [
                    set((x % len(dataset)).tolist()) for x in (draw.query_items, draw.gallery_items)
                ]
                assert not sides[0] & sides[1]
                heads = labels[draw.query_items[draw.query_offsets[:-1]]]
                assert torch.equal(heads, draw.query_labels)
            else:
                assert torch.equal(own, plain.query_items)
            copy = {"clean": 0, "strangers": 0, "noise": 1, "occlusion": 2}[task.condition]
            assert set((draw.query_items // len(dataset)).tolist()) <= {0, copy}


def test_copies_that_are_the_items_change_nothing_and_others_do():
    dataset = vectors(num_labels=6, per_label=20)
    tasks = prepare(dataset, (4,), num_queries=30, seed=0)
    items = torch.from_numpy(dataset.items).float()
    centroid = build_aggregator("centroid", items.shape[1])
    rows, by_class = measure(centroid, torch.cat([items, items, items]), tasks)
    same = {row["condition"]: row["recall_at_1"] for row in rows if row["condition"] != "strangers"}
    assert len(set(same.values())) == 1
    assert by_class.shape == (len(tasks), 6)
    assert float(np.mean(by_class[0])) == pytest.approx(rows[0]["recall_at_1"], abs=1e-4)
    noise = torch.randn(items.shape, generator=torch.Generator().manual_seed(0)) * 50
    worse, _ = measure(centroid, torch.cat([items, noise, items]), tasks)
    by_condition = {(row["condition"], row["probability"]): row["recall_at_1"] for row in worse}
    assert by_condition["noise", 0.3] < by_condition["clean", 0.0]


def test_a_picture_draws_what_each_aggregator_gains_on_the_centroid(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra 'plots'")
    from evaluation.aggregation import plots

    tasks = tuple((size, *shown) for shown in plan.SHOWN for size in (2, 5))
    generator = np.random.default_rng(0)
    kinds = [
        plan.CENTROID,
        ("frozen", plan.Setting("max")),
        ("frozen", plan.Setting("pma", 0.3)),
        ("frozen", plan.Setting("pma", 0.0)),
        ("frozen", plan.Setting("pma", 0.3, 5)),
        ("end to end", plan.Setting("max")),
    ]
    found = {}
    for kind in kinds:
        recall = generator.random((3, len(tasks)))
        found[kind] = Measured(tasks, recall, recall, recall[:, :, None], 500)
    drawn = []

    class Axis:
        def plot(self, sizes, gaps, label, **_):
            drawn.append((label, sizes, list(gaps)))

        def __getattr__(self, _):
            return lambda *_, **__: None

    for _, names in plots.ROWS:
        plots.draw(Axis(), found, names, plan.SHOWN[1])
    gaps = [
        100 * (found[kind].recall - found[plan.CENTROID].recall)[:, 2:4].mean(axis=0)
        for kind in kinds[1:3]
    ]
    assert [(label, sizes) for label, sizes, _ in drawn] == [("max", [2, 5]), ("pma", [2, 5])]
    assert np.allclose([of for *_, of in drawn], gaps)
    monkeypatch.setattr(plots, "gather", lambda *_: {"here": {"test": found}, "not": {"test": {}}})
    (tmp_path / plan.SUITE / "cpu").mkdir(parents=True)
    (written,) = plots.write_plots("cpu", [], tmp_path)
    assert written.read_bytes().startswith(b"\x89PNG")
