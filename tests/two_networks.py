"""A fake method with all that a checkpoint must keep, and short runs of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from setrep.aggregators import CentroidAggregator
from setrep.config import Config, resolve
from setrep.data.batch import Batch
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.encoders import build_encoder
from setrep.methods.method import Method
from setrep.training.build import Hardware, build_sampler
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

    def before_epoch(self, epoch: int, training) -> None:
        self.epochs.append(epoch)
        self.queue[0] = training.embed().mean(dim=0)


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
