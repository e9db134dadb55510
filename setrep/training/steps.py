"""What a step is made of: its seed, its batch, its precision, and how long it takes."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from setrep import distributed
from setrep.config import Config
from setrep.data.augmentation import Augmentation
from setrep.data.batch import Batch
from setrep.data.dataset import ItemDataset
from setrep.data.sampler import EpisodeSampler
from setrep.methods.method import Method
from setrep.training.build import Hardware
from setrep.training.optimizer import build_optimizer


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed torch (dropout) and return a generator (augmentation) for a step of this rank."""
    entropy = np.random.SeedSequence([seed, step, distributed.rank()])
    number = int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def load_batch(
    dataset: ItemDataset,
    indices: Tensor,
    offsets: Tensor,
    augment: Augmentation,
    generator: torch.Generator,
    hardware: Hardware,
) -> Batch:
    """Copy the items of an episode to the device and augment images there."""
    device = hardware.device
    items = dataset.gather(indices).to(device)
    if dataset.item_format.kind == "image":
        items = augment(items, generator).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(dataset.labels[indices.numpy()]).to(device)
    return Batch([items], labels, offsets.to(device), indices.to(device))


@torch.no_grad()
def embed_items(
    method: Method, dataset: ItemDataset, hardware: Hardware
) -> Float[Tensor, "item dim"]:
    """Embed every item of a data set as it is, on the CPU."""
    was_training = method.training
    method.eval()
    parts = []
    for chunk in torch.split(torch.arange(len(dataset)), 512):
        parts.append(method.encoder(dataset.gather(chunk).to(hardware.device)).cpu())
    method.train(was_training)
    return torch.cat(parts)


def autocast(hardware: Hardware) -> torch.autocast:
    """Compute convolutions and products in the run's precision."""
    is_mixed = hardware.precision != torch.float32
    return torch.autocast(hardware.device.type, hardware.precision, is_mixed)


def forecast_seconds(
    method: Method,
    dataset: ItemDataset,
    sampler: EpisodeSampler,
    config: Config,
    hardware: Hardware,
) -> float:
    """Return how long a step takes, from a few steps of a copy that is thrown away."""
    trial = copy.deepcopy(method).to(hardware.device)
    trial.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(trial, config)
    augment = Augmentation(config.augmentation)
    indices = sampler.episode(0, 0)
    times = []
    with torch.random.fork_rng():
        for _ in range(5):
            began = time.monotonic()
            generator = seed_step(config.training.seed, 0)
            batch = load_batch(dataset, indices, sampler.offsets, augment, generator, hardware)
            with autocast(hardware):
                loss, _ = trial.step(batch)
            torch.autograd.backward(loss)
            optimizer.step()
            float(loss.detach())  # waits for the GPU
            times.append(time.monotonic() - began)
    return sorted(times)[len(times) // 2]  # the first ones also warm up
