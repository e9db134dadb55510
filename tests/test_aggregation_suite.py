"""How the suite of aggregators compares: draws, differences over classes, corrected p-values."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.aggregation import embeddings, plan, tables
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
    seeds = tuple(range(len(by_class)))
    return Measured(((5, "clean", 0.0),), seeds, recall, recall, by_class, 500)


def test_a_difference_is_that_of_classes_averaged_over_seeds():
    generator = np.random.default_rng(0)
    base = generator.random((3, 1, 12))
    gain = np.linspace(0.05, 0.15, 12) + np.array([-0.03, 0.01, 0.02])[:, None, None]
    found = difference(measured(base + gain), measured(base), [0])
    assert found.mean == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert found.low > 0
    assert found.p_value < 0.002  # all twelve signs agree: 2 of 4096 flips
    assert difference(measured(base), measured(base), [0]).p_value == 1.0


def test_a_difference_pairs_the_same_seeds():
    generator = np.random.default_rng(0)
    base, gain = generator.random((3, 1, 12)), np.array([0.1, 0.2, 0.3])[:, None, None]
    one = replace(measured((base + gain)[[0, 2]]), seeds=(0, 2))
    other = replace(measured(base[[1, 2, 0]]), seeds=(1, 2, 0))
    assert difference(one, other, [0]).mean == pytest.approx(0.2)
    assert math.isnan(difference(replace(one, seeds=(3, 4)), other, [0]).mean)


def test_validation_classes_choose_and_test_classes_tell(monkeypatch):
    tasks = ((1, "strangers", 0.3), (2, "strangers", 0.3), (5, "strangers", 0.3), (5, "clean", 0.0))
    one, other = ("frozen", plan.Setting("max")), ("frozen", plan.Setting("median"))

    def reaching(*recall):
        by_class = np.tile(np.array(recall)[None, :, None], (3, 1, 12))
        return Measured(tasks, (0, 1, 2), by_class[:, :, 0], by_class[:, :, 0], by_class, 500)

    splits = {
        "validation": {
            plan.CENTROID: reaching(0.5, 0.5, 0.5, 0.5),
            one: reaching(0.0, 0.6, 0.8, 0.0),  # best where it counts
            other: reaching(1.0, 0.5, 0.6, 1.0),
        },
        "test": {
            plan.CENTROID: reaching(0.5, 0.4, 0.6, 0.5),
            one: reaching(0.0, 0.5, 0.7, 0.0),
            other: reaching(1.0, 0.9, 0.9, 1.0),
        },
    }
    (line,) = tables.chosen(splits)
    assert "validation classes choose max: 70.0 against 50.0 of the centroid" in line
    assert "differs from the centroid by +10.0 [+10.0, +10.0] points" in line
    # All 24 signs agree in 2 of 4096 flips, of which 10,000 are drawn; times 2 comparisons.
    assert 1e-4 < float(re.search(r"p = ([\d.e-]+) after", line)[1]) < 3e-3
    assert "below 0.05: max, median." in line


def test_validation_and_test_classes_are_disjoint_and_were_not_trained_on(monkeypatch):
    labels = np.repeat(np.arange(8), 3)
    train, held_out = labels < 4, labels >= 4

    def read(data, split):
        dataset = vectors(num_labels=8, per_label=3)
        return dataset.subset(np.flatnonzero(train if split == "train" else held_out))

    monkeypatch.setattr(embeddings, "load_split", read)
    cell = next(cell for cell in plan.cells("cpu") if cell.source == "cifar100")
    found = embeddings.splits_of(cell)
    classes = [set(dataset.labels.tolist()) for dataset in found.values()]
    assert list(found) == ["train", "validation", "test"]
    assert [len(of) for of in classes] == [4, 2, 2]
    assert set.union(*classes) == set(range(8))


def test_every_item_is_corrupted_by_draws_of_its_own():
    one = torch.arange(256).to(torch.uint8).reshape(1, 1, 16, 16)
    for change in (embeddings.add_noise, embeddings.occlude):
        generator = torch.Generator().manual_seed(0)
        pixels = one.repeat(6, 1, 1, 1)
        first, second = change(pixels[:3], generator), change(pixels[3:], generator)
        assert len({tuple(item.flatten().tolist()) for item in (*first, *second)}) == 6
        again = change(pixels[:3], torch.Generator().manual_seed(0))
        assert torch.equal(first, again)


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
        found[kind] = Measured(tasks, (0, 1, 2), recall, recall, recall[:, :, None], 500)
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
