"""What a step is made of: its seed, its batch, its precision, and how long it takes."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from setrep import distributed
from setrep.config import Config
from setrep.data.augmentation import Augmentation
from setrep.data.batch import Batch
from setrep.data.dataset import ItemDataset
from setrep.data.views import Partners
from setrep.methods.method import Method
from setrep.training.build import Hardware, Sampler
from setrep.training.optimizer import build_optimizer

MOST_RESIDENT = 4 * 2**30  # bytes of items kept on a GPU


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed torch (dropout) and return a generator (augmentation) for a step of this rank."""
    entropy = np.random.SeedSequence([seed, step, distributed.rank()])
    number = int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


class BatchLoader:
    """Copy the items of a batch to the device and make its views there.

    On a GPU all items lie in its memory, as they are stored, where they take at most a few GB.
    """

    def __init__(
        self, dataset: ItemDataset, config: Config, hardware: Hardware, *, num_views: int
    ) -> None:
        self.dataset, self.device, self.num_views = dataset, hardware.device, num_views
        self.augment, self.noise = Augmentation(config.augmentation), config.augmentation.noise
        self.partners = Partners(dataset, config.views) if num_views > 1 else None
        is_resident = self.device.type == "cuda" and dataset.items.nbytes <= MOST_RESIDENT
        self.items = torch.from_numpy(np.array(dataset.items)) if is_resident else None
        if self.items is not None:
            self.items = self.items.to(self.device)

    def load(
        self,
        indices: Int64[Tensor, " n"],
        offsets: Int64[Tensor, " collection+1"] | None,
        generator: torch.Generator,
    ) -> Batch:
        """Make every view; all draws come from `generator`."""
        views = []
        # Of their own, so that who stands for a view changes no augmentation.
        drawing = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
        for number in range(self.num_views):
            chosen = self.partners.draw(indices, number, drawing) if self.partners else indices
            items = self._take(chosen)
            if self.dataset.item_format.kind == "image":
                items = self.augment(items, generator)
            elif self.noise:
                drawn = torch.randn(items.shape, generator=generator)
                items = items + self.noise * drawn.to(items.device)
            views.append(items)
        labels = torch.from_numpy(self.dataset.labels[indices.numpy()]).to(self.device)
        on_device = None if offsets is None else offsets.to(self.device)
        return Batch(views, labels, on_device, indices.to(self.device))

    def _take(self, indices: Int64[Tensor, " n"]) -> Shaped[Tensor, "n ..."]:
        if self.items is not None:
            return self.items[indices.to(self.device)]
        return self.dataset.gather(indices).to(self.device)


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
    sampler: Sampler,
    config: Config,
    hardware: Hardware,
) -> float:
    """Return how long a step takes, from a few steps of a copy that is thrown away."""
    trial = copy.deepcopy(method).to(hardware.device).train()
    optimizer = build_optimizer(trial, config)
    loader = BatchLoader(dataset, config, hardware, num_views=method.num_views)
    indices, offsets = sampler.draw(0, 0), sampler.offsets(0, 0)
    times = []
    with torch.random.fork_rng():
        for _ in range(5):
            began = time.monotonic()
            generator = seed_step(config.training.seed, 0)
            batch = loader.load(indices, offsets, generator)
            with autocast(hardware):
                loss, _ = trial.step(batch)
            torch.autograd.backward(loss)
            optimizer.step()
            float(loss.detach())  # waits for the GPU
            times.append(time.monotonic() - began)
    return sorted(times)[len(times) // 2]  # the first ones also warm up
