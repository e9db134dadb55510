"""Time one step of mining, loss and backward against pytorch-metric-learning, in one run.

    python benchmarks/losses_and_miners.py [--rounds 30] [--batch-sizes 128 512]

Both sides get the same embeddings and labels (4 items of each label, 128 dimensions, CPU). Before a
case is timed, both must give the same loss and the same gradient. Rounds alternate between the two,
so that other work on the machine falls on both alike; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn.functional import normalize

from setrep.losses import SupConLoss, TripletMarginLoss
from setrep.miners import BatchHardMiner, HardNegativeMiner

DIM, ITEMS_PER_LABEL, MARGIN, TEMPERATURE = 128, 4, 0.2, 0.1
Step = Callable[[Tensor, Tensor], Tensor]


def cases() -> dict[str, tuple[Step, Step]]:
    """Return, by name, our step and the peer's that computes the same."""
    distance = distances.LpDistance(normalize_embeddings=False)
    dot_product = distances.DotProductSimilarity(normalize_embeddings=False)
    ours = TripletMarginLoss(MARGIN)
    theirs = losses.TripletMarginLoss(
        MARGIN, distance=distance, reducer=reducers.MeanReducer(), triplets_per_anchor="all"
    )
    hard, their_hard = BatchHardMiner(), miners.BatchHardMiner(distance=distance)
    negative = HardNegativeMiner()
    their_negative = miners.BatchEasyHardMiner("all", "hard", distance=distance)
    return {
        "batch-hard triplets": (
            lambda z, y: ours(z, y, hard(z, y)),
            lambda z, y: theirs(z, y, their_hard(z, y)),
        ),
        "hard-negative triplets": (
            lambda z, y: ours(z, y, negative(z, y)),
            lambda z, y: theirs(z, y, their_negative(z, y)),
        ),
        "all triplets": (ours, theirs),
        "supcon": (SupConLoss(TEMPERATURE), losses.SupConLoss(TEMPERATURE, distance=dot_product)),
    }


def step(compute: Step, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient."""
    loss = compute(embeddings, labels)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return loss.detach(), gradient


def compare(
    name: str, ours: Step, theirs: Step, batch_size: int, rounds: int
) -> dict[str, str | int | float]:
    """Check that both sides agree, then time them in alternation."""
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(batch_size, DIM, generator=generator), dim=1)
    embeddings.requires_grad_()
    labels = torch.arange(batch_size) // ITEMS_PER_LABEL
    # The peer takes distances through the Gram matrix, which costs it a few float32 digits.
    torch.testing.assert_close(
        step(ours, embeddings, labels), step(theirs, embeddings, labels), rtol=1e-3, atol=1e-6
    )
    seconds: dict[Step, list[float]] = {ours: [], theirs: []}
    for turn in range(2 * rounds):
        side = (ours, theirs)[turn % 2]
        start = time.perf_counter()
        step(side, embeddings, labels)
        seconds[side].append(time.perf_counter() - start)
    setrep_ms, peer_ms = (1e3 * statistics.median(times) for times in seconds.values())
    return {
        "case": name,
        "batch_size": batch_size,
        "setrep_ms": round(setrep_ms, 3),
        "peer_ms": round(peer_ms, 3),
        "times_as_fast": round(peer_ms / setrep_ms, 2),
    }


def main() -> None:
    """Print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 512])
    arguments = parser.parse_args()
    rows = []
    print(f"{'case':<24}{'batch':>6}{'setrep ms':>12}{'peer ms':>12}{'times as fast':>15}")
    for batch_size in arguments.batch_sizes:
        for name, (ours, theirs) in cases().items():
            row = compare(name, ours, theirs, batch_size, arguments.rounds)
            rows.append(row)
            print(
                f"{name:<24}{batch_size:>6}{row['setrep_ms']:>12}{row['peer_ms']:>12}"
                f"{row['times_as_fast']:>15}"
            )
    versions = {"torch": torch.__version__, "peer": pytorch_metric_learning.__version__}
    settings = {"dim": DIM, "items_per_label": ITEMS_PER_LABEL, "rounds": arguments.rounds}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    print(json.dumps({**settings, **machine, **versions, "rows": rows}))


if __name__ == "__main__":
    main()
