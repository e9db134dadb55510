"""Aggregators: from the item embeddings of a collection to one embedding, one per file."""

from __future__ import annotations

import inspect
from typing import Any

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.attention import AttentionAggregator
from setrep.aggregators.centroid import CentroidAggregator
from setrep.errors import InputError, nearest

AGGREGATORS: dict[str, type[Aggregator]] = {
    "centroid": CentroidAggregator,
    "attention": AttentionAggregator,
}


def build_aggregator(name: str, dim: int, **options: Any) -> Aggregator:
    """Build an aggregator of embeddings of `dim` dimensions by its name, with its own options.

    Raises:
        InputError: there is no aggregator of that name, it has no such option, or not that value.
    """
    if name not in AGGREGATORS:
        known = sorted(AGGREGATORS)
        raise InputError(
            f"Unknown aggregator '{name}'.{nearest(name, known)} Known: {', '.join(known)}."
        )
    known = options_of(name)
    for option in options:
        if option not in known:
            has = f"It has: {', '.join(known)}." if known else "It has no options."
            raise InputError(
                f"The aggregator {name} has no option '{option}'.{nearest(option, known)} {has}"
            )
    return AGGREGATORS[name](dim, **options)


def options_of(name: str) -> list[str]:
    """Name the options of an aggregator."""
    return [option for option in inspect.signature(AGGREGATORS[name]).parameters if option != "dim"]


__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "AttentionAggregator",
    "CentroidAggregator",
    "build_aggregator",
    "options_of",
]
