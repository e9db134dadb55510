"""What a run logs, and what a continued run does with it."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

from setrep.training.metrics_log import MetricsLog


def steps_in(directory: Path) -> list[int]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def write(directory: Path, start: int, steps: list[int]) -> None:
    with MetricsLog(directory, start) as log:
        for step in steps:
            log.write(step, {"loss": step / 8, "lr": 0.5})


def test_a_continued_run_replaces_the_records_after_its_start(tmp_path: Path) -> None:
    write(tmp_path, 0, [10, 20, 30])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # what a kill leaves
    write(tmp_path, 20, [30, 40])
    assert steps_in(tmp_path) == [10, 20, 30, 40]


def test_without_tensorboard_only_json_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write(tmp_path, 0, [10])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_with_tensorboard_every_number_is_an_event(tmp_path: Path, monkeypatch) -> None:
    calls: list[tuple] = []

    class SummaryWriter:
        def __init__(self, place: Path, purge_step: int) -> None:
            calls.append((place.name, purge_step))

        def add_scalar(self, *event) -> None:
            calls.append(event)

        def close(self) -> None:
            calls.append(("closed",))

    fake = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    write(tmp_path, 20, [30])
    events = [("loss", 3.75, 30), ("lr", 0.5, 30)]
    assert calls == [("tensorboard", 21), *events, ("closed",)]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard")
def test_tensorboard_reads_a_continued_run_as_one(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, [10, 20, 30])
    write(tmp_path, 20, [30, 40])
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [
        (step, step / 8) for step in (10, 20, 30, 40)
    ]
