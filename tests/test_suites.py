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
from scipy import stats

from evaluation import cells as cells_module
from evaluation.__main__ import main
from evaluation.cells import config_hash, is_done, result_path, run_cell
from evaluation.suite_tables import paired, resolves, spread, table, write_table
from evaluation.suites import BUDGETS, SUITES, Cell, cells
from setrep.config import resolve

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


def test_a_cell_is_kept_with_its_numbers_and_skipped_while_its_settings_stay(
    quick: Cell, tmp_path: Path
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
    result_path(quick, tmp_path / "results").write_text("{")
    assert not is_done(quick, tmp_path / "results")


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


def test_two_losses_of_a_seed_start_from_the_same_weights_and_see_the_same_batches(tmp_path: Path):
    """What makes their differences paired: the first step's similarities are the same."""
    first = []
    for cell in cells("knn", "smoke")[:2]:
        one = replace(cell, seeds=(0,))
        run_cell(one, tmp_path, tmp_path / "results")
        log = next(tmp_path.glob(f"knn/smoke/{one.name}-*/seed0/metrics.jsonl")).read_text()
        first.append(json.loads(log.splitlines()[0]))
    assert first[0]["step"] == first[1]["step"]
    assert first[0]["loss"] != first[1]["loss"]


def test_tables_pair_seeds_and_name_what_was_not_run(quick: Cell, tmp_path: Path):
    base, other, missing = (
        replace(quick, variant=replace(quick.variant, name=name)) for name in ("a", "b", "c")
    )
    values = {"a": [0.5, 0.6, 0.7], "b": [0.52, 0.61, 0.73]}
    for cell in (base, other):
        runs = {
            str(seed): {
                "knn_top1": value,
                "worst_class_top1": value / 2,
                "knn_top1_by_epoch": [0.1, 0.2, 0.3, value],
                "source_note": "fake",
                "num_queries": 5,
                "num_bank": 7,
            }
            for seed, value in enumerate(values[cell.variant.name])
        }
        path = result_path(cell, tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"config_hash": config_hash(cell), "runs": runs}))
    lines = table([base, other, missing], tmp_path)
    gaps = np.subtract(values["b"], values["a"])
    test = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    low, high = (f"{100 * value:+.2f}" for value in test)
    row = next(line for line in lines if line.startswith("| b "))
    assert f"+2.00 [{low}, {high}]" in row
    assert "62.0 ± 10.5" in row
    assert "Not run: mixture-c." in lines
    text = write_table("knn", "smoke", [base, other, missing], tmp_path)
    assert (tmp_path / "knn" / "smoke" / "table.md").read_text() == text


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
