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
from rich.console import Console
from torch import nn

from setrep.aggregators import CentroidAggregator
from setrep.config import Config, resolve
from setrep.data.batch import Batch
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.encoders import build_encoder
from setrep.errors import InputError
from setrep.methods.method import Method
from setrep.training.build import (
    Hardware,
    build_method,
    build_sampler,
    choose_hardware,
    training_dataset,
)
from setrep.training.checkpoint import load_checkpoint
from setrep.training.loop import LoopResult, train_loop

QUIET = Console(quiet=True)
CPU = Hardware(torch.device("cpu"), torch.float32)
TINY = {
    "episode": {"classes_per_episode": 4, "collections_per_class": 2, "items_per_collection": 2},
    "training": {"max_steps": 12, "checkpoint_every": 4, "log_every": 2, "device": "cpu"},
    "encoder": {"projection_dim": 8},
    "optimizer": {"warmup_steps": 2},
}


class TwoNetworks(Method):
    """A fake method: a student with dropout, a second optimised network, and a queue."""

    def __init__(self, config: Config, item_format: ItemFormat) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(config.training.seed)
            self.encoder = build_encoder(config.encoder, item_format)
            self.second = nn.Linear(item_format.shape[0], 8)
            self.register_buffer("queue", torch.randn(16, 8))
            self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.dropout = nn.Dropout(0.3)
        self.aggregator = CentroidAggregator(8)
        self.epochs: list[int] = []

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": list(self.encoder.parameters())},
            {"params": list(self.second.parameters()), "lr_scale": 10.0, "weight_decay": 0.0},
        ]

    def step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        student = self.encoder(self.dropout(batch.views[0]))
        teacher = self.second(batch.views[0])
        self.last = teacher.detach()
        loss = (student - teacher).square().mean() + (student @ self.queue.T).square().mean()
        return loss, {"embedding_spread": student.detach().std()}

    def after_step(self, step: int) -> None:
        where = int(self.pointer) % len(self.queue)
        self.queue[where] = self.last.mean(dim=0)
        self.pointer += 1

    def before_epoch(self, epoch: int, embed) -> None:
        self.epochs.append(epoch)
        self.queue[0] = embed().mean(dim=0)


def vectors(num_labels: int = 6, per_label: int = 8, dim: int = 5) -> ItemDataset:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(num_labels, dim))
    labels = np.repeat(np.arange(num_labels), per_label)
    noise = generator.normal(size=(len(labels), dim))
    items = (centres[labels] + 0.3 * noise).astype(np.float32)
    names = tuple(f"label{i}" for i in range(num_labels))
    return ItemDataset(
        "vectors", "train", items, labels, names, ItemFormat("vector", dim, 1), "label"
    )


def run(directory: Path, *, stop_at: int | None = None, **changes) -> tuple[LoopResult, Method]:
    """Train the fake method, perhaps with an interrupt after a step, perhaps continuing."""
    directory.mkdir(exist_ok=True)
    resume = changes.pop("resume", False)
    config = resolve({"encoder": {"name": "mlp"}}, TINY, changes)
    dataset = vectors()
    method = TwoNetworks(config, dataset.item_format)
    if stop_at is not None:
        plain = method.after_step

        def interrupt(step: int) -> None:
            plain(step)
            if step + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        method.after_step = interrupt  # type: ignore[method-assign]
    sampler = build_sampler(config, dataset)
    result = train_loop(
        method, dataset, sampler, config, CPU, directory, resume=resume, console=QUIET
    )
    return result, method


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


def test_the_second_network_learns_at_its_own_rate(tmp_path: Path) -> None:
    config = resolve({"encoder": {"name": "mlp"}}, TINY)
    method = TwoNetworks(config, vectors().item_format)
    from setrep.training.optimizer import build_optimizer, set_learning_rate

    optimizer = build_optimizer(method, config)
    set_learning_rate(optimizer, config, 5)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    first = rates[id(next(method.encoder.parameters()))]
    assert rates[id(method.second.weight)] == pytest.approx(10 * first)
    assert set(rates) == {id(p) for p in method.parameters()}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, stop_at=4)
    before = (tmp_path / "checkpoint/last.safetensors").read_bytes()
    config = resolve({"encoder": {"name": "mlp"}}, TINY)
    dataset = vectors()

    class Broken(TwoNetworks):
        def step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, metrics = super().step(batch)
            return loss * float("nan"), metrics

    method = Broken(config, dataset.item_format)
    with pytest.raises(InputError, match="last good checkpoint") as caught:
        train_loop(
            method,
            dataset,
            build_sampler(config, dataset),
            config,
            CPU,
            tmp_path,
            resume=True,
            console=QUIET,
        )
    assert "\n" not in str(caught.value)
    assert (tmp_path / "checkpoint/last.safetensors").read_bytes() == before


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    config = resolve({"encoder": {"name": "mlp"}}, TINY)
    dataset = vectors()

    class Broken(TwoNetworks):
        """Has a finite loss with a gradient of NaN at step 8, which is saved."""

        def step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, metrics = super().step(batch)
            zero = next(self.encoder.parameters()).sum() * 0
            return (loss + zero.sqrt() if self.pointer == 7 else loss), metrics

    method = Broken(config, dataset.item_format)
    sampler = build_sampler(config, dataset)
    with pytest.raises(InputError, match=r"By step 8 .* gradient was not finite"):
        train_loop(method, dataset, sampler, config, CPU, tmp_path, console=QUIET)
    kept = load_checkpoint(tmp_path)
    assert kept["step"] == 4
    weights = [value for value in kept["method"].values() if value.is_floating_point()]
    assert all(bool(value.isfinite().all()) for value in weights)


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


def test_the_logged_speed_is_that_of_the_steps_since_the_last_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("setrep.training.loop.time.monotonic", lambda: now[0])
    plain = TwoNetworks.after_step

    def tick(method: TwoNetworks, step: int) -> None:
        plain(method, step)
        now[0] += 2.0

    monkeypatch.setattr(TwoNetworks, "after_step", tick)
    run(tmp_path, stop_at=3, training=TINY["training"] | {"log_every": 5})
    run(tmp_path, resume=True, training=TINY["training"] | {"log_every": 5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [5, 10, 12]
    assert [record["seconds_per_step"] for record in records] == [2.0, 2.0, 2.0]
    assert {record["images_per_second"] for record in records} == {16 / 2}


def test_time_that_runs_out_stops_as_an_interrupt_does(tmp_path: Path) -> None:
    result, _ = run(tmp_path, training=TINY["training"] | {"max_minutes": 1e-9})
    assert (result.reason, result.step) == ("out_of_time", 1)
    assert (tmp_path / "checkpoint/last.safetensors").is_file()


def test_a_run_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    run(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_supervised_training_on_digits_lowers_the_loss(tmp_path: Path) -> None:
    convnet = {"encoder": {"name": "convnet"}, "loss": {"name": "triplet"}}
    config = resolve(
        TINY, convnet, {"training": TINY["training"] | {"max_steps": 30, "log_every": 1}}
    )
    dataset = training_dataset(config)
    method = build_method(config, dataset.item_format)
    train_loop(
        method, dataset, build_sampler(config, dataset), config, CPU, tmp_path, console=QUIET
    )
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert {"active_share", "embedding_spread", "images_per_second", "lr"} <= set(records[0])


def test_precision_and_device_are_chosen_by_name() -> None:
    config = resolve({"training": {"precision": "float32", "device": "cpu"}})
    assert choose_hardware(config) == CPU
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="finds no GPU"):
            choose_hardware(resolve({"training": {"device": "cuda"}}))


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
