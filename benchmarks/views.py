"""Time SimCLR views against torchvision's image by image, and kornia's by the batch, in one run.

    python benchmarks/views.py [--images 4096 --batch 512 --side 32 --rounds 7 --threads 1]

Every side makes one view of each of the same random byte images, or with `--step` two, and takes a
whole training step with them: `convnet_small`, NT-Xent, Adam. torchvision's transforms run in a
`DataLoader`, on PIL images or on float tensors, with 0 or 2 workers of one thread each. kornia is
left out where it is not installed; its colour jitter draws one order for a whole batch. Rounds go
from side to side, so that other work falls on all alike. `rate` is the median in images a second,
`slowest` and `fastest` the ends; `ratio` says how many times as fast setrep is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from setrep import config
from setrep.config import AugmentationConfig, EncoderConfig
from setrep.data import Augmentation, ItemFormat
from setrep.encoders import build_encoder
from setrep.losses import NTXentLoss
from setrep.training.run_directory import environment

SIMCLR = config.SIMCLR | {"jitter": 0.8}
COLOURS = (0.4, 0.4, 0.4, 0.1)
KERNEL, SIGMAS = 3, (0.1, 2.0)


class Images(Dataset[Tensor]):
    """Views [view, channel, h, w] of images, each made when it is asked for."""

    def __init__(self, images: Tensor, kind: str, num_views: int) -> None:
        first = (
            transforms.ToPILImage() if kind == "pil" else transforms.ConvertImageDtype(torch.float)
        )
        last = [transforms.ToTensor()] if kind == "pil" else []
        self.images, self.num_views = images, num_views
        self.view = transforms.Compose(
            [
                first,
                transforms.RandomResizedCrop(images.shape[-1], (SIMCLR["crop_scale"], 1.0)),
                transforms.RandomHorizontalFlip(SIMCLR["flip"]),
                transforms.RandomApply([transforms.ColorJitter(*COLOURS)], SIMCLR["jitter"]),
                transforms.RandomGrayscale(SIMCLR["grey"]),
                transforms.RandomApply([transforms.GaussianBlur(KERNEL, SIGMAS)], SIMCLR["blur"]),
                *last,
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Tensor:
        return torch.stack([self.view(self.images[position]) for _ in range(self.num_views)])


def main() -> None:
    """Time every side in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("images", 4096), ("batch", 512), ("side", 32), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", action="store_true", help="two views and a training step")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = (arguments.images, 3, arguments.side, arguments.side)
    images = torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    use = TrainingStep() if arguments.step else look
    passes = sides(images, arguments.batch, 2 if arguments.step else 1, use)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(arguments.rounds + 1):
        for name, make in passes.items():
            began = time.perf_counter()
            make()
            if turn > 0:  # the first starts workers and warms up
                seconds[name].append(time.perf_counter() - began)
    print(json.dumps(summary(arguments, seconds), indent=2))


def look(views: list[Tensor]) -> None:
    """See that there are views."""
    assert all(view.shape == views[0].shape for view in views)


class TrainingStep:
    """Train a small encoder on the views, the same one for every side."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        encoder = build_encoder(
            EncoderConfig(name="convnet_small", projection="mlp"), ItemFormat("image", 3, 32)
        )
        self.encoder = encoder.to(memory_format=torch.channels_last).train()
        self.loss = NTXentLoss()
        self.optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)

    def __call__(self, views: list[Tensor]) -> None:
        """Take one step."""
        embedded = [self.encoder(v.contiguous(memory_format=torch.channels_last)) for v in views]
        self.optimizer.zero_grad()
        self.loss(*embedded).backward()
        self.optimizer.step()


def sides(
    images: Tensor, batch: int, num_views: int, use: Callable[[list[Tensor]], None]
) -> dict[str, Callable[[], None]]:
    """Return, by name, what makes the views of every image and uses them."""
    augment, generator = (
        Augmentation(AugmentationConfig(**SIMCLR)),
        torch.Generator().manual_seed(0),
    )

    def batched(view: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for part in images.split(batch):
                use([view(part) for _ in range(num_views)])

        return run

    def loading(kind: str, workers: int) -> Callable[[], None]:
        dataset = Images(images, kind, num_views)
        loader = DataLoader(dataset, batch, num_workers=workers, persistent_workers=workers > 0)

        def run() -> None:  # its workers live on
            for views in loader:
                use(list(views.unbind(dim=1)))

        return run

    passes = {"setrep": batched(lambda part: augment(part, generator))}
    for kind, workers in product(("pil", "tensor"), (0, 2)):
        passes[f"torchvision {kind}, {workers} workers"] = loading(kind, workers)
    if find_spec("kornia"):
        peer = kornia_views(images.shape[-1])
        passes["kornia"] = batched(lambda part: peer(part.float() / 255))
    return passes


def kornia_views(side: int) -> torch.nn.Module:
    """Return the same pipeline in kornia."""
    from kornia import augmentation

    return torch.nn.Sequential(
        augmentation.RandomResizedCrop((side, side), (SIMCLR["crop_scale"], 1.0)),
        augmentation.RandomHorizontalFlip(p=SIMCLR["flip"]),
        augmentation.ColorJitter(*COLOURS, p=SIMCLR["jitter"]),
        augmentation.RandomGrayscale(p=SIMCLR["grey"]),
        augmentation.RandomGaussianBlur((KERNEL, KERNEL), SIGMAS, p=SIMCLR["blur"]),
    )


def summary(arguments: argparse.Namespace, seconds: dict[str, list[float]]) -> dict[str, object]:
    """Return rates and ratios beside the settings and the machine."""
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    rows = {
        name: {
            "rate": round(arguments.images / middle[name]),
            "slowest": round(arguments.images / max(found)),
            "fastest": round(arguments.images / min(found)),
            "ratio": round(middle[name] / middle["setrep"], 2),
        }
        for name, found in seconds.items()
    }
    return {
        "sides": rows,
        "settings": vars(arguments) | {"seed": 0, "augmentation": SIMCLR},
        "environment": environment(torch.device("cpu")),
        "kornia": importlib.metadata.version("kornia") if find_spec("kornia") else None,
    }


if __name__ == "__main__":
    main()
