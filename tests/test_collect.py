"""What is kept of a finished run for the record."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from evaluation import collect, summarise
from setrep.config import resolve, to_yaml


def test_a_run_is_kept_with_its_time_and_without_its_places(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(collect, "RESULTS", tmp_path / "results")
    run = tmp_path / "run"
    run.mkdir()
    places = {"data": {"data_root": "/data"}, "evaluation": {"one_shot": "/data/all_runs.zip"}}
    config = resolve({"training": {"seed": 3}}, places)
    (run / "config.yaml").write_text(to_yaml(config))
    (run / "evaluation.json").write_text(json.dumps({"seed": 3, "seconds": 1.5}))
    (run / "environment.json").write_text(json.dumps({"threads": 1}))
    records = [(10, 0.5), (20, 2.0), (25, 1.0)]
    lines = [json.dumps({"step": step, "seconds_per_step": s}) for step, s in records]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    collect.main(run, "name")
    kept = tmp_path / "results" / "name" / "seed3"
    assert json.loads((kept / "evaluation.json").read_text()) == {"seed": 3, "seconds": 1.5}
    environment = json.loads((kept / "environment.json").read_text())
    assert environment == {"commit": None, "threads": 1, "training_seconds": 30}
    written = yaml.safe_load((kept / "config.yaml").read_text())
    assert written["evaluation"]["one_shot"] == "all_runs.zip"
    assert written["data"]["data_root"] is None
    assert "/data" not in (kept / "config.yaml").read_text()
    assert resolve(written).training.seed == 3


def test_every_kept_result_has_its_config_seed_and_hardware(capsys) -> None:
    kept = sorted(path.parent for path in collect.RESULTS.rglob("evaluation.json"))
    assert kept
    for directory in kept:
        config = yaml.safe_load((directory / "config.yaml").read_text())
        environment = json.loads((directory / "environment.json").read_text())
        evaluation = json.loads((directory / "evaluation.json").read_text())
        assert config["training"]["seed"] == evaluation["seed"] == environment["seed"]
        assert {"commit", "cpu", "threads", "versions", "training_seconds"} <= environment.keys()
    summarise.main()
    shown = capsys.readouterr().out
    assert all(directory.parent.name in shown for directory in kept)
