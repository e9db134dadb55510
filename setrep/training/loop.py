"""The training loop, for one process or any number under `torchrun`."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from setrep import distributed
from setrep.config import Config
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.methods.method import Method, TrainingItems
from setrep.training.build import Hardware, Sampler
from setrep.training.checkpoint import FILE, load_checkpoint, save_checkpoint
from setrep.training.metrics_log import MetricsLog
from setrep.training.optimizer import build_average, build_optimizer, set_learning_rate
from setrep.training.progress import TrainingProgress
from setrep.training.run_directory import identity
from setrep.training.steps import BatchLoader, autocast, embed_items, seed_step


@dataclass(frozen=True)
class LoopResult:
    """Where the loop stopped, and why."""

    step: int
    reason: str  # "finished", "interrupted" or "out_of_time"
    model: Method  # the averaged one where averaging was asked for


class Monitor(Protocol):
    """Measure a method while it trains."""

    every_epochs: int

    def __call__(self, method: Method) -> dict[str, float]:
        """Return what to log; the method is left as it was."""


def train_loop(
    method: Method,
    dataset: ItemDataset,
    sampler: Sampler,
    config: Config,
    hardware: Hardware,
    directory: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    monitor: Monitor | None = None,
) -> LoopResult:
    """Train a method until `max_steps`, `max_minutes` or an interrupt, and checkpoint it.

    `monitor` measures it on rank 0 after every so many epochs, and what it finds is logged.
    Everything random in step s is drawn from (seed, s, rank), so that a continued run repeats an
    unbroken one.

    Raises:
        InputError: the loss is not finite, or the directory cannot be written.
    """
    run = config.training
    console = console or Console(stderr=True, quiet=distributed.rank() > 0)
    method.to(hardware.device)
    optimizer = build_optimizer(method, config)
    averaged = build_average(method, config)
    state = Restart(method, optimizer, averaged, identity(config, dataset))
    start = state.load(directory) if resume else 0
    loader = BatchLoader(dataset, config, hardware, num_views=method.num_views)
    training = TrainingItems(
        lambda: embed_items(method, dataset, hardware),
        torch.from_numpy(dataset.labels),
        None if dataset.keys is None else torch.from_numpy(dataset.keys),
    )
    steps_per_epoch = len(sampler)
    began = last = time.monotonic()
    step, last_step, reason = start, start, "finished"
    is_broken = torch.zeros((), dtype=torch.bool, device=hardware.device)
    limit = config.optimizer.clip_norm or math.inf
    with (
        torch.random.fork_rng(),
        interrupt_flag() as interrupted,
        MetricsLog(directory, start) as log,
        TrainingProgress(console, run.max_steps, start) as progress,
    ):
        method.train()
        while step < run.max_steps:
            epoch, position = divmod(step, steps_per_epoch)
            generator = seed_step(run.seed, step)
            if position == 0:
                method.before_epoch(epoch, training)
            indices = sampler.draw(epoch, position)
            batch = loader.load(indices, sampler.offsets(epoch, position), generator)
            set_learning_rate(optimizer, config, step)
            with autocast(hardware):
                loss, metrics = method.step(batch)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            distributed.average_gradients(method.parameters())
            norm = torch.nn.utils.clip_grad_norm_(method.parameters(), limit)
            is_broken |= ~torch.isfinite(loss.detach() + norm)
            optimizer.step()
            method.after_step(step)
            if averaged:
                averaged.update_parameters(method)
            step += 1

            # Asking ranks for a vote, and the GPU for a number, waits for both: not every step.
            is_log = step % run.log_every == 0 or step == run.max_steps
            is_save = step % run.checkpoint_every == 0 or step == run.max_steps
            late = run.max_minutes is not None and time.monotonic() - began > run.max_minutes * 60
            is_stop = distributed.any_rank(interrupted[0] or late, hardware.device)
            if is_log or is_save or is_stop:
                stop_if_broken(is_broken, loss, step, directory)
            if is_log:
                now = time.monotonic()
                seconds = (now - last) / (step - last_step)
                last, last_step = now, step
                record = {name: float(value) for name, value in metrics.items()}
                shared = distributed.total(loss.detach()) / distributed.world_size()
                record = {"loss": float(shared)} | record
                record["lr"] = optimizer.param_groups[0]["lr"]
                record["seconds_per_step"] = seconds
                record["images_per_second"] = len(indices) * distributed.world_size() / seconds
                log.write(step, record)
                progress.show(step, record)
            if step % steps_per_epoch == 0:  # so that what epochs begin and end with is one model
                state.share_statistics()
            if monitor and step % (monitor.every_epochs * steps_per_epoch) == 0:
                best = averaged.module if averaged else method
                assert isinstance(best, Method)
                measured = monitor(best) if distributed.rank() == 0 else {}
                log.write(step, {"epoch": epoch + 1.0} | measured)
                progress.note(step, measured)
                last, last_step = time.monotonic(), step
            if is_save or is_stop:
                state.save(directory, step)
            if is_stop and step < run.max_steps:
                reason = "interrupted" if interrupted[0] else "out_of_time"
                break
    best = averaged.module if averaged else method
    assert isinstance(best, Method)
    return LoopResult(step, reason, best.eval())


class Restart:
    """Everything that a continued run needs."""

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        averaged: AveragedModel | None,
        identity: dict[str, str],
    ) -> None:
        self.method, self.optimizer, self.averaged = method, optimizer, averaged
        self.identity = identity

    def share_statistics(self) -> None:
        """Average batch statistics over the ranks."""
        for network in filter(None, (self.method, self.averaged)):
            distributed.average_buffers(network)

    def save(self, directory: Path, step: int) -> None:
        """Checkpoint on rank 0, with batch statistics averaged over the ranks."""
        self.share_statistics()
        if distributed.rank() == 0:
            state = {
                "step": step,
                "identity": self.identity,
                "method": dict(self.method.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "averaged": dict(self.averaged.state_dict()) if self.averaged else None,
            }
            save_checkpoint(directory, state)
        distributed.barrier()

    def load(self, directory: Path) -> int:
        """Restore the last checkpoint and return its step; without one, begin at 0."""
        if not (directory / FILE).is_file():
            return 0
        state = load_checkpoint(directory)
        for what, value in self.identity.items():
            if state.get("identity", {}).get(what) != value:
                raise InputError(
                    f"The checkpoint in {directory} was made with other {what}. Continue with what "
                    f"it was made with, or train anew in another --output-dir."
                )
        try:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.averaged:
                self.averaged.load_state_dict(state["averaged"])
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"The checkpoint in {directory} is of another model: {first}"
            ) from error
        return int(state["step"])


def stop_if_broken(is_broken: Tensor, loss: Tensor, step: int, directory: Path) -> None:
    """Stop before a checkpoint of broken weights is written."""
    if is_broken:
        raise InputError(
            f"By step {step} the loss ({float(loss.detach()):.3g}) or its gradient was not finite. "
            f"The last good checkpoint in {directory} is kept. Try a lower "
            f"optimizer.lr, more optimizer.warmup_steps, optimizer.clip_norm=1, or "
            f"training.precision=float32."
        )


@contextmanager
def interrupt_flag() -> Iterator[list[bool]]:
    """Let Ctrl-C or a termination request set a flag, so that a step is never cut in half.

    A second one stops at once.
    """
    flag = [False]

    def note(number: int, frame: object) -> None:
        if flag[0]:
            raise KeyboardInterrupt
        flag[0] = True

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it handles signals
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
