"""Time SimCLR views against torchvision's image by image, and kornia's by the batch, in one run.

    python benchmarks/views.py [--images 4096 --batch 512 --side 32 --rounds 7 --threads 1]

Every side makes one view of each of the same random byte images. torchvision's transforms run in a
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

from setrep.config import AugmentationConfig
from setrep.data import Augmentation
from setrep.training.run_directory import environment

SIMCLR = {
    "crop_scale": 0.08,
    "flip": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "jitter": 0.8,
    "grey": 0.2,
    "blur": 0.5,
}
COLOURS = (0.4, 0.4, 0.4, 0.1)
KERNEL, SIGMAS = 3, (0.1, 2.0)


class Images(Dataset[Tensor]):
    """Views of images, each made when it is asked for."""

    def __init__(self, images: Tensor, kind: str) -> None:
        first = (
            transforms.ToPILImage() if kind == "pil" else transforms.ConvertImageDtype(torch.float)
        )
        last = [transforms.ToTensor()] if kind == "pil" else []
        self.images = images
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
        view: Tensor = self.view(self.images[position])
        return view


def main() -> None:
    """Time every side in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("images", 4096), ("batch", 512), ("side", 32), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = (arguments.images, 3, arguments.side, arguments.side)
    images = torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    passes = sides(images, arguments.batch)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(arguments.rounds + 1):
        for name, make in passes.items():
            began = time.perf_counter()
            make()
            if turn > 0:  # the first starts workers and warms up
                seconds[name].append(time.perf_counter() - began)
    print(json.dumps(summary(arguments, seconds), indent=2))


def sides(images: Tensor, batch: int) -> dict[str, Callable[[], None]]:
    """Return, by name, what makes a view of every image."""
    augment, generator = (
        Augmentation(AugmentationConfig(**SIMCLR)),
        torch.Generator().manual_seed(0),
    )
    passes = {"setrep": lambda: every(lambda part: augment(part, generator), images, batch)}
    for kind, workers in product(("pil", "tensor"), (0, 2)):
        passes[f"torchvision {kind}, {workers} workers"] = loading(images, kind, workers, batch)
    if find_spec("kornia"):
        peer = kornia_views(images.shape[-1])
        passes["kornia"] = lambda: every(lambda part: peer(part.float() / 255), images, batch)
    return passes


def every(view: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> None:
    """Make the views batch by batch."""
    for part in images.split(batch):
        assert view(part).shape == part.shape


def loading(images: Tensor, kind: str, workers: int, batch: int) -> Callable[[], None]:
    """Return a pass through a loader, whose workers live on."""
    loader = DataLoader(
        Images(images, kind), batch, num_workers=workers, persistent_workers=workers > 0
    )

    def run() -> None:
        assert sum(len(views) for views in loader) == len(images)

    return run


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
