"""The training loop: what it learns, logs and refuses, and when it stops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from setrep.config import resolve
from setrep.data.batch import Batch
from setrep.errors import InputError
from setrep.training.build import build_method, build_sampler, choose_hardware, training_dataset
from setrep.training.checkpoint import load_checkpoint
from setrep.training.loop import train_loop
from tests.two_networks import CPU, QUIET, TINY, TwoNetworks, run, vectors


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
