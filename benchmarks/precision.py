"""Time a training step of each image encoder in float32 and bfloat16, in two memory layouts.

    python benchmarks/precision.py [--encoders convnet efficientnet_b2] [--rounds 5]

Rounds alternate between the four settings, so that other work falls on all alike; medians are
printed as images a second, and `ratio` is to float32 in the contiguous layout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product

import torch

from setrep.config import EncoderConfig
from setrep.encoders import ItemEncoder, build_encoder
from setrep.item_format import ItemFormat

SIZES = {"convnet": (32, 128), "resnet18": (32, 32), "efficientnet_b2": (64, 48)}  # side, batch
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Time every encoder and print one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoders", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.encoders:
        print(json.dumps({"encoder": name} | compare(name, arguments.rounds)), flush=True)


def compare(name: str, rounds: int) -> dict[str, object]:
    """Time the four settings in turns."""
    side, batch = SIZES[name]
    config = EncoderConfig(name=name)
    settings = list(product(LAYOUTS, PRECISIONS))
    encoders = {layout: build_encoder(config, ItemFormat("image", 1, side)) for layout in LAYOUTS}
    for layout, encoder in encoders.items():
        encoder.to(memory_format=LAYOUTS[layout])
    images = torch.rand(batch, 1, side, side)
    times: dict[tuple[str, str], list[float]] = {setting: [] for setting in settings}
    for turn in range(rounds + 1):
        for layout, precision in settings:
            seconds = step(encoders[layout], images, layout, precision)
            if turn > 0:  # the first is warm-up
                times[layout, precision].append(seconds)
    rates = {setting: batch / statistics.median(found) for setting, found in times.items()}
    base = rates["contiguous", "float32"]
    return {
        "images_per_second": {" ".join(s): round(rate, 1) for s, rate in rates.items()},
        "ratio": {" ".join(s): round(rate / base, 2) for s, rate in rates.items()},
        "side": side,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def step(encoder: ItemEncoder, images: torch.Tensor, layout: str, precision: str) -> float:
    """Return the seconds of one forward and backward pass."""
    x = images.contiguous(memory_format=LAYOUTS[layout])
    began = time.perf_counter()
    with torch.autocast("cpu", PRECISIONS[precision], precision != "float32"):
        embeddings = encoder(x)
    embeddings.square().sum().backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
