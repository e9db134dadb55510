"""The optimiser, its learning rate, and averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from setrep.config import Config
from setrep.methods.method import Method


def build_optimizer(method: Method, config: Config) -> torch.optim.Optimizer:
    """Build AdamW with no weight decay on biases and normalisation, or Adam with it on all."""
    settings = config.optimizer
    groups: list[dict[str, Any]] = []
    for group in method.parameter_groups():
        scale, decay = group.get("lr_scale", 1.0), group.get("weight_decay", settings.weight_decay)
        if settings.name == "adam":
            groups.append({"params": group["params"], "weight_decay": decay, "lr_scale": scale})
            continue
        matrices = [p for p in group["params"] if p.ndim > 1]
        vectors = [p for p in group["params"] if p.ndim <= 1]
        groups += [
            {"params": matrices, "weight_decay": decay, "lr_scale": scale},
            {"params": vectors, "weight_decay": 0.0, "lr_scale": scale},
        ]
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind([g for g in groups if g["params"]], lr=settings.lr)


def build_average(method: Method, config: Config) -> AveragedModel | None:
    """Build an exponential moving average of weights and batch statistics, if asked for."""
    decay = config.optimizer.ema_decay
    if decay == 0:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(method, multi_avg_fn=average, use_buffers=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, step: int) -> None:
    """Warm up linearly, then stay, or follow half a cosine down to zero at `max_steps`."""
    warmup, total = config.optimizer.warmup_steps, config.training.max_steps
    if step < warmup:
        share = (step + 1) / warmup
    elif config.optimizer.schedule == "constant":
        share = 1.0
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.lr * share * group["lr_scale"]
