"""Aggregators against torch_geometric's, forward and backward, in one run.

    python benchmarks/aggregators.py [--collections 10000 --largest 64 --dim 256 --rounds 5] \
        [--only NAME ...] > aggregators.json

Collections have uniform sizes from 1 to `largest`; the gradient of the items is computed, too. Ours
and theirs are timed in turns, so that load falls on both alike; seconds are medians over rounds,
and `ratio` is the median of theirs over ours in each round: above 1, setrep is faster. A round
that takes less than a second is made of as many turns as fill one. Where both
compute the same, `difference` is the largest between their embeddings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from setrep.aggregators import AGGREGATORS, Aggregator, build_aggregator
from setrep.collection import CollectionBatch

# Its median takes the lower of two in the middle, its quantiles interpolate, its power mean clamps
# twice, its deviation has a floor.
SAME = ("centroid", "sum", "max", "attention", "deep_sets")
SLOW = 2000  # collections of the self-attention, which holds all pairs of a collection


def main() -> None:
    """Time every aggregator, beside torch_geometric's where it has one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("collections", 10_000), ("largest", 64), ("dim", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", choices=list(AGGREGATORS))
    asked = parser.parse_args()
    rows = {}
    for name in asked.only or AGGREGATORS:
        rows[name] = compare(name, asked)
        print(name, rows[name], file=sys.stderr, flush=True)
    packages = ("torch", "torch_geometric")
    report = {
        "sizes": {name: getattr(asked, name) for name in ("collections", "largest", "dim")},
        "rounds": asked.rounds,
        "aggregators": rows,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(report, indent=1))


def compare(name: str, asked: argparse.Namespace) -> dict[str, float | None]:
    """Time one aggregator and its peer in turns."""
    torch.manual_seed(0)
    count = min(asked.collections, SLOW) if name == "set_transformer" else asked.collections
    sizes = torch.randint(1, asked.largest + 1, (count,))
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    values = torch.randn(int(offsets[-1]), asked.dim).requires_grad_()
    index = CollectionBatch(values, offsets).index
    options = {"num_heads": 4, "num_blocks": 1} if name == "set_transformer" else {}
    ours = build_aggregator(name, asked.dim, **options)
    if name == "attention":
        nn.init.normal_(ours.score.weight)  # it starts as the mean
    peer = peer_of(name, ours)
    ways: dict[str, Callable[[], Tensor]] = {"ours": lambda: ours(CollectionBatch(values, offsets))}
    if peer is not None:
        ways["theirs"] = lambda: peer(values, index, dim_size=count)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    outputs = {}
    turns = 1
    for number in range(asked.rounds + 1):  # the first warms up
        of_round = dict.fromkeys(ways, 0.0)
        for _ in range(turns):
            for way, run in ways.items():
                values.grad = None
                began = time.perf_counter()
                out = run()
                out.backward(torch.ones_like(out))
                of_round[way] += time.perf_counter() - began
                outputs[way] = out.detach()
        for way, took in of_round.items():
            if number:
                seconds[way].append(took / turns)
        if not number:
            turns = math.ceil(1.0 / max(of_round["ours"], 0.05))
    found: dict[str, float | None] = {
        "seconds": round(statistics.median(seconds["ours"]), 4),
        "collections_per_second": round(count / statistics.median(seconds["ours"])),
    }
    if peer is not None:
        pairs = zip(seconds["ours"], seconds["theirs"], strict=True)
        found["their_seconds"] = round(statistics.median(seconds["theirs"]), 4)
        found["ratio"] = round(statistics.median(b / a for a, b in pairs), 2)
        gap = (outputs["ours"] - outputs["theirs"]).abs().max() if name in SAME else None
        found["difference"] = None if gap is None else float(gap)
    return found


class Gate(nn.Module):
    """The scores of an attention aggregator, for torch_geometric to pool with."""

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, values: Tensor) -> Tensor:
        """Score each item."""
        hidden = torch.tanh(self.aggregator.content(values))
        return self.aggregator.score(hidden * torch.sigmoid(self.aggregator.gate(values)))


def peer_of(name: str, ours: Aggregator) -> nn.Module | None:
    """Build torch_geometric's aggregator of the same kind, with the same networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import aggr
    dim = ours.dim
    peers: dict[str, Callable[[], nn.Module]] = {
        "centroid": aggr.MeanAggregation,
        "sum": aggr.SumAggregation,
        "max": aggr.MaxAggregation,
        "median": aggr.MedianAggregation,
        "quantiles": lambda: aggr.QuantileAggregation([0.25, 0.5, 0.75]),
        "gem": lambda: aggr.PowerMeanAggregation(3.0, clamp_min=1e-6),
        "mean_std": lambda: aggr.MultiAggregation(["mean", "std"]),
        "concat": lambda: aggr.MultiAggregation(["mean", "max"]),
        "attention": lambda: aggr.AttentionalAggregation(Gate(ours)),
        "deep_sets": lambda: WithLinear(
            aggr.DeepSetsAggregation(ours.phi, ours.rho), aggr.MeanAggregation(), ours.linear
        ),
        "set_transformer": lambda: aggr.SetTransformerAggregation(
            dim, num_seed_points=1, num_encoder_blocks=1, heads=4, layer_norm=True
        ),
    }
    return peers[name]() if name in peers else None


class WithLinear(nn.Module):
    """Deep Sets with the linear term in the mean that ours has."""

    def __init__(self, deep_sets: nn.Module, mean: nn.Module, linear: nn.Module) -> None:
        super().__init__()
        self.deep_sets, self.mean, self.linear = deep_sets, mean, linear

    def forward(self, values: Tensor, index: Tensor, *, dim_size: int) -> Tensor:
        """Add both."""
        mean = self.mean(values, index, dim_size=dim_size)
        out: Tensor = self.linear(mean) + self.deep_sets(values, index, dim_size=dim_size)
        return out


if __name__ == "__main__":
    main()
