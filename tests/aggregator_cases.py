"""Every registered aggregator, small, with random parameters; one that is added is covered."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from setrep.aggregators import AGGREGATORS, Aggregator, build_aggregator, default_options
from setrep.collection import CollectionBatch

DIM = 4
SMALL = {
    "hidden_dim": 6,
    "num_clusters": 3,
    "num_slices": 5,
    "num_quantiles": 3,
    "rank": 2,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("attention", {"num_heads": 2, "gated": False}),
    ("concat", {"parts": ("sum", "quantiles", "median")}),
    ("gem", {"power": 1.5}),
    ("geometric_median", {"num_iterations": 2, "smoothing": 0.5}),
    ("pma", {"num_heads": 2, "num_seeds": 2}),
    ("quantiles", {"interpolation": "linear", "quantiles": (0.0, 0.3, 1.0)}),
    ("set_transformer", {"num_inducing": 2, "num_heads": 2, "num_seeds": 2}),
    ("trimmed_mean", {"trim": 0.4}),
    ("concat", {"parts": ("centroid", "sum"), "normalize": True}),
    ("geometric_median", {"normalize": True}),
    ("pma", {"normalize": True}),
]


def small_options(name: str) -> dict[str, Any]:
    return {option: SMALL[option] for option in default_options(name) if option in SMALL}


CASES = [(name, small_options(name)) for name in sorted(AGGREGATORS)]
CASES += [(name, small_options(name) | options) for name, options in VARIANTS]
every_aggregator = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)]
)


def build(name: str, options: dict[str, Any], seed: int = 0) -> Aggregator:
    """Build with no parameter at zero, where a whole branch might be switched off."""
    aggregator = build_aggregator(name, DIM, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in aggregator.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * 0.5)
    return aggregator


def draw(sizes: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in sizes]


def batch_of(*collections: torch.Tensor) -> CollectionBatch:
    return CollectionBatch.from_list(collections)


def same(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> bool:
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
