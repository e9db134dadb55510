"""Claim suites: what their cells are, that they continue, and what their tables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation import cells as cells_module
from evaluation.__main__ import main
from evaluation.cells import config_hash, identity, is_done, result_path, run_cell
from evaluation.mixture import write_mixture
from evaluation.suite_tables import paired, resolves, spread, table, write_table
from evaluation.suites import BUDGETS, SUITES, Cell, Variant, cells
from setrep.config import merge, resolve
from setrep.training.build import build_method, build_sampler, choose_hardware, training_dataset
from setrep.training.steps import BatchLoader, seed_step

ROOT = Path(__file__).parent.parent
EVERY = [(suite, budget) for suite in SUITES for budget in BUDGETS]


@pytest.mark.parametrize(("suite", "budget"), EVERY)
def test_every_cell_has_settings_that_resolve_and_a_name_of_its_own(suite: str, budget: str):
    found = cells(suite, budget)
    assert len({cell.name for cell in found}) == len(found)
    assert len({config_hash(cell) for cell in found}) == len(found)
    for cell in found:
        config = resolve(cell.settings)
        assert config.training.method == "contrastive"
        assert config.optimizer.name == "adam"
        assert config.evaluation.every_epochs == 1


def test_the_published_protocol_is_that_of_the_paper():
    cell = next(c for c in cells("knn", "full") if c.variant.name == "debiased_positives")
    config = resolve(cell.settings)
    assert (config.encoder.name, config.training.batch_size) == ("resnet18", 512)
    assert config.training.max_steps == 50 * (50_000 // 512)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-3, 1e-6)
    assert (config.optimizer.schedule, config.optimizer.clip_norm) == ("constant", None)
    assert (config.loss.temperature, config.loss.tau_plus) == (0.5, 0.1)
    assert (config.evaluation.knn_k, config.evaluation.knn_temperature) == (200, 0.5)
    assert (config.augmentation.crop_scale, config.augmentation.blur) == (0.08, 0.5)
    assert (config.head.hidden_dim, config.head.dim) == (512, 128)


def test_a_control_sees_as_many_views_as_what_it_is_compared_with():
    steps = {
        cell.variant.name: resolve(cell.settings).training.max_steps * views_of(cell)
        for cell in cells("positives", "full")
    }
    for m in (2, 4):
        wanted = steps[f"m{m}_grouping"]
        assert steps[f"m1_views_of_m{m}"] == pytest.approx(wanted, rel=0.02)


def views_of(cell: Cell) -> int:
    return resolve(cell.settings).views.num_views


@pytest.fixture
def quick() -> Cell:
    """One cell of seconds."""
    cell = cells("knn", "smoke")[1]
    training = cell.settings["training"] | {"max_steps": 14}
    return replace(cell, settings=cell.settings | {"training": training})


def changed(read):
    """Read `mixture.py` as if somebody had changed it."""

    def read_text(path: Path, *options, **more) -> str:
        return read(path, *options, **more) + ("#" if path.name == "mixture.py" else "")

    return read_text


def test_a_cell_is_kept_with_its_numbers_and_skipped_while_its_settings_stay(
    quick: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert not is_done(quick, tmp_path / "results")
    assert run_cell(quick, tmp_path / "work", tmp_path / "results")
    assert is_done(quick, tmp_path / "results")
    kept = json.loads(result_path(quick, tmp_path / "results").read_text())
    assert list(kept["runs"]) == ["0", "1"]
    for run in kept["runs"].values():
        assert len(run["knn_top1_by_epoch"]) == 2
        assert run["knn_top1_by_epoch"][-1] == pytest.approx(run["knn_top1"])
        assert 0 <= run["worst_class_top1"] <= run["knn_top1"] <= 1
    assert kept["runs"]["0"] != kept["runs"]["1"]
    text = json.dumps(kept)
    assert str(tmp_path) not in text
    other = replace(quick, settings=quick.settings | {"optimizer": {"lr": 2e-3}})
    assert not is_done(other, tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_text", changed(Path.read_text))
        assert not is_done(quick, tmp_path / "results")
    result_path(quick, tmp_path / "results").write_text("{")
    assert not is_done(quick, tmp_path / "results")


def test_a_setting_that_came_later_leaves_results_valid_and_a_changed_default_does_not(
    quick: Cell, tmp_path: Path
):
    path = result_path(quick, tmp_path)
    path.parent.mkdir(parents=True)

    def is_done_with(change: dict) -> bool:
        kept = identity(quick)
        kept["config"] = {
            name: value | change.get(name, {}) if isinstance(value, dict) else value
            for name, value in kept["config"].items()
        }
        del kept["config"]["training"]["collections_weight"]
        kept["config"]["aggregator"] = "centroid"  # as it was written before it had options
        path.write_text(json.dumps({"identity": kept}))
        return is_done(quick, tmp_path)

    assert is_done_with({})
    assert not is_done_with({"optimizer": {"warmup_steps": 7}})
    assert not is_done_with({"optimizer": {"no_longer_there": 7}})


def test_a_cell_that_ran_out_of_time_continues_to_the_numbers_of_an_unbroken_one(
    quick: Cell, tmp_path: Path
):
    assert run_cell(quick, tmp_path / "whole", tmp_path / "results")
    whole = json.loads(result_path(quick, tmp_path / "results").read_text())["runs"]
    result_path(quick, tmp_path / "results").unlink()
    parts = 0
    while not run_cell(quick, tmp_path / "parts", tmp_path / "results", max_minutes=1e-6):
        parts += 1
        assert not is_done(quick, tmp_path / "results")
        assert parts < 40
    assert parts > 10
    continued = json.loads(result_path(quick, tmp_path / "results").read_text())["runs"]
    for seed, run in whole.items():
        assert continued[seed] | {"seconds_per_step": 0} == run | {"seconds_per_step": 0}


@pytest.mark.parametrize("suite", SUITES)
def test_settings_of_a_seed_start_from_the_same_weights_and_see_the_same_views(
    suite: str, tmp_path: Path
):
    """What makes their differences paired."""
    path = tmp_path / "mixture.npz"
    write_mixture(path)
    firsts = []
    everyone = cells(suite, "smoke")
    level = everyone[-1].settings["training"].get("level")  # items meet other batches
    for cell in [one for one in everyone if one.settings["training"].get("level") == level]:
        config = resolve(merge(cell.settings, {"data": {"data_root": str(path)}}))
        data = training_dataset(config)
        method = build_method(config, data.item_format)
        sampler = build_sampler(config, data, method.draws)
        loader = BatchLoader(data, config, choose_hardware(config), num_views=method.num_views)
        batch = loader.load(sampler.draw(0, 0), sampler.offsets(0, 0), seed_step(0, 0))
        firsts.append((method.state_dict(), batch, config.views.false_positive_rate))
    assert len(firsts) >= 5
    weights, batch, _ = firsts[0]
    for other, seen, rate in firsts[1:]:
        learned = [name for name in other if not name.startswith("prior.")]
        assert all(torch.equal(weights[name], other[name]) for name in learned)
        assert len(learned) > 4
        assert torch.equal(batch.index, seen.index)
        assert torch.equal(batch.views[0], seen.views[0])
        second = min(1, len(batch.views) - 1)
        is_same = (batch.views[second] == seen.views[second]).all(dim=1)
        assert is_same.all() if rate == 0 else 0.5 < is_same.double().mean() < 0.9


def test_tables_pair_seeds_and_name_what_was_not_run(quick: Cell, tmp_path: Path):
    base = replace(quick, variant=Variant("a", {}))
    other = replace(quick, variant=Variant("b", {}, "a", 80.0, "at batch 64"))
    missing = replace(quick, variant=Variant("c", {}, "a"))
    values = {"a": [0.5, 0.6, 0.7], "b": [0.52, 0.61, 0.73]}
    early = {"a": 0.2, "b": 0.23}
    for cell in (base, other):
        runs = {
            str(seed): {
                "knn_top1": value,
                "worst_class_top1": value / 2,
                "knn_top1_by_epoch": [0.1, early[cell.variant.name], *[0.3] * 7, value],
                "source_note": "fake",
                "num_queries": 5,
                "num_bank": 7,
            }
            for seed, value in enumerate(values[cell.variant.name])
        }
        path = result_path(cell, tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"identity": identity(cell), "runs": runs}))
    lines = table([base, other, missing], tmp_path)
    gaps = np.subtract(values["b"], values["a"])
    test = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    low, high = (f"{100 * value:+.2f}" for value in test)
    row = next(line for line in lines if line.startswith("| b "))
    assert f"| a | +3.00 [+3.00, +3.00] | +2.00 [{low}, {high}]" in row
    assert "| 23.0 ± 0.0 | 62.0 ± 10.5 |" in row
    assert "80" not in row  # published of images, and these are vectors
    assert "+2.00" not in next(line for line in lines if line.startswith("| a "))
    assert "Not run: mixture-c." in lines
    text = write_table("knn", "smoke", [base, other, missing], tmp_path)
    assert (tmp_path / "knn" / "smoke" / "table.md").read_text() == text


def test_what_was_published_stands_beside_images_with_its_note(quick: Cell, tmp_path: Path):
    cell = replace(quick, source="cifar10", variant=Variant("b", {}, None, 80.0, "at batch 64"))
    run = {"knn_top1": 0.5, "worst_class_top1": 0.2, "knn_top1_by_epoch": [0.5]}
    kept = run | {"source_note": "fake", "num_queries": 5, "num_bank": 7}
    path = result_path(cell, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"identity": identity(cell), "runs": {"0": kept}}))
    assert "| 80 at batch 64 |" in "\n".join(table([cell], tmp_path))


def test_the_difference_that_could_be_shown_has_the_power_that_is_said():
    generator = np.random.default_rng(0)
    n, deviation = 12, 0.02
    shown, needed = 0, []
    for _ in range(1500):
        sample = generator.normal(0.0, deviation, n)
        needed.append(float(resolves(sample)) / 100)
    effect = float(np.mean(needed))
    for _ in range(1500):
        sample = generator.normal(effect, deviation, n)
        shown += stats.ttest_1samp(sample, 0).pvalue < 0.05
    assert shown / 1500 == pytest.approx(0.8, abs=0.06)


def test_numbers_of_one_seed_have_no_spread():
    assert spread([0.5]) == "50.0"
    assert paired([0.01]) == "+1.00"
    assert resolves([0.01]) == ""


def test_unknown_cells_and_missing_data_are_said_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "evaluation", "knn", "--budget", "cpu", "--cell"]
    environment = {key: value for key, value in os.environ.items() if key != "SETREP_DATA"}
    for cell, message in (("x", "no cell 'x'"), ("cifar10-contrastive-seed0", "--data-root")):
        done = subprocess.run(
            [*command, cell, "--work-dir", str(tmp_path), "--results-dir", str(tmp_path)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_smoke_suites_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(cells_module, "RESULTS", tmp_path)
    few = {name: variants[:2] for name, variants in SUITES.items()}
    monkeypatch.setattr("evaluation.suites.SUITES", few)
    for suite in SUITES:
        places = ["--work-dir", str(tmp_path / "work"), "--results-dir", str(tmp_path / "results")]
        assert main([suite, "--budget", "smoke", *places]) == 0
        assert "| contrastive" in (out := capsys.readouterr().out) or "| m1" in out
    assert main([]) == 0
    assert "knn" in capsys.readouterr().out
