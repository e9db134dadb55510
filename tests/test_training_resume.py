"""A run that is stopped anywhere and continued ends with the weights of an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from setrep.config import resolve
from setrep.errors import InputError
from setrep.training.build import build_sampler
from setrep.training.loop import train_loop
from tests.two_networks import CPU, QUIET, TINY, TwoNetworks, run, vectors


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
def test_an_interrupted_run_continues_to_the_weights_of_an_unbroken_one(
    tmp_path: Path, stop_at: int
) -> None:
    _, unbroken = run(tmp_path / "whole")
    stopped, _ = run(tmp_path / "parts", stop_at=stop_at)
    assert (stopped.reason, stopped.step) == ("interrupted", stop_at)
    finished, continued = run(tmp_path / "parts", resume=True)
    assert (finished.reason, finished.step) == ("finished", 12)
    for key, value in unbroken.state_dict().items():
        assert torch.equal(continued.state_dict()[key], value), key


def test_metrics_of_a_continued_run_have_each_step_once(tmp_path: Path) -> None:
    run(tmp_path, stop_at=7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1}\n{"step": 9, "lo')  # what a kill may leave behind
    run(tmp_path, resume=True)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8, 10, 12]


def test_the_average_of_weights_survives_a_restart(tmp_path: Path) -> None:
    average = {"optimizer": {"warmup_steps": 2, "ema_decay": 0.9}}
    whole, plain = run(tmp_path / "whole", **average)
    run(tmp_path / "parts", stop_at=6, **average)
    parts, _ = run(tmp_path / "parts", resume=True, **average)
    expected = whole.model.state_dict()
    for key, value in parts.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    weight = "second.weight"
    assert not torch.equal(expected[weight], plain.state_dict()[weight])


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    _, unbroken = run(tmp_path / "whole")
    _, continued = run(tmp_path / "parts", resume=True)
    for key, value in unbroken.state_dict().items():
        assert torch.equal(continued.state_dict()[key], value), key


@pytest.mark.parametrize("changed", ["settings", "data"])
def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path: Path, changed: str) -> None:
    run(tmp_path, stop_at=4)
    config = resolve({"encoder": {"name": "mlp"}}, TINY)
    dataset = vectors()
    if changed == "settings":
        config = resolve(config.model_dump(), {"optimizer": {"lr": 0.5}})
    else:
        dataset = replace(dataset, items=dataset.items + np.float32(1))
    method = TwoNetworks(config, dataset.item_format)
    sampler = build_sampler(config, dataset)
    with pytest.raises(InputError, match=f"was made with other {changed}"):
        train_loop(method, dataset, sampler, config, CPU, tmp_path, resume=True, console=QUIET)


def test_what_does_not_decide_the_weights_may_change(tmp_path: Path) -> None:
    run(tmp_path, stop_at=4)
    other = {"max_minutes": 60, "device": "auto"}
    finished, _ = run(tmp_path, resume=True, training=TINY["training"] | other)
    assert finished.step == 12


COMMAND = [sys.executable, "-m", "setrep", "train", "--output-dir", "run", "--device", "cpu"]
SHORT = [
    "--encoder=convnet",  # slow enough to be killed in the middle
    "--set=training.max_steps=60",
    "--set=training.checkpoint_every=5",
    "--set=evaluation.baselines=false",
    "--set=evaluation.sizes=[1]",
]


@pytest.mark.slow
def test_a_killed_command_continues_to_the_same_model(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SETREP_CACHE": str(tmp_path / "cache")}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    subprocess.run([*COMMAND, *SHORT], cwd=whole, env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        [*COMMAND, *SHORT],
        cwd=parts,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = parts / "run/checkpoint/last.safetensors"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (parts / "run/model.safetensors").exists()
    again = [*COMMAND, "--resume"]
    subprocess.run(again, cwd=parts, env=environment, check=True, capture_output=True)
    model = "run/model.safetensors"
    assert (parts / model).read_bytes() == (whole / model).read_bytes()
