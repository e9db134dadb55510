"""Aggregators: from the item embeddings of a collection to one embedding."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from setrep.aggregators.centroid import CentroidAggregator
from setrep.errors import InputError, nearest

AGGREGATORS: dict[str, Callable[[int], nn.Module]] = {"centroid": CentroidAggregator}


def build_aggregator(name: str, dim: int) -> nn.Module:
    """Build an aggregator of embeddings of `dim` dimensions by its name."""
    if name not in AGGREGATORS:
        known = sorted(AGGREGATORS)
        raise InputError(
            f"Unknown aggregator '{name}'.{nearest(name, known)} Known: {', '.join(known)}."
        )
    return AGGREGATORS[name](dim)


__all__ = ["AGGREGATORS", "CentroidAggregator", "build_aggregator"]
