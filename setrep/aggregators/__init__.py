"""Aggregators: from the item embeddings of a collection to one embedding, one per file."""

from __future__ import annotations

import inspect
from typing import Any

from setrep.aggregators.aggregator import Aggregator
from setrep.aggregators.attention import AttentionAggregator
from setrep.aggregators.centroid import CentroidAggregator
from setrep.aggregators.concat import ConcatAggregator
from setrep.aggregators.covariance import CovarianceAggregator
from setrep.aggregators.deep_sets import DeepSetsAggregator
from setrep.aggregators.directional_mean import DirectionalMeanAggregator
from setrep.aggregators.gem import GemAggregator
from setrep.aggregators.geometric_median import GeometricMedianAggregator
from setrep.aggregators.max import MaxAggregator
from setrep.aggregators.mean_std import MeanStdAggregator
from setrep.aggregators.median import MedianAggregator
from setrep.aggregators.nan import NANAggregator
from setrep.aggregators.netvlad import NetVLADAggregator
from setrep.aggregators.normalized import NormalizedAggregator
from setrep.aggregators.pma import PMAAggregator
from setrep.aggregators.quantiles import QuantilesAggregator
from setrep.aggregators.set_transformer import SetTransformerAggregator
from setrep.aggregators.sliced_wasserstein import SlicedWassersteinAggregator
from setrep.aggregators.sum import SumAggregator
from setrep.aggregators.trimmed_mean import TrimmedMeanAggregator
from setrep.errors import InputError, nearest

AGGREGATORS: dict[str, type[Aggregator]] = {
    "centroid": CentroidAggregator,
    "sum": SumAggregator,
    "max": MaxAggregator,
    "directional_mean": DirectionalMeanAggregator,
    "geometric_median": GeometricMedianAggregator,
    "trimmed_mean": TrimmedMeanAggregator,
    "median": MedianAggregator,
    "quantiles": QuantilesAggregator,
    "gem": GemAggregator,
    "mean_std": MeanStdAggregator,
    "concat": ConcatAggregator,
    "attention": AttentionAggregator,
    "pma": PMAAggregator,
    "set_transformer": SetTransformerAggregator,
    "deep_sets": DeepSetsAggregator,
    "nan": NANAggregator,
    "netvlad": NetVLADAggregator,
    "sliced_wasserstein": SlicedWassersteinAggregator,
    "covariance": CovarianceAggregator,
}


def build_aggregator(name: str, dim: int, *, normalize: bool = False, **options: Any) -> Aggregator:
    """Build an aggregator of embeddings of `dim` dimensions by its name, with its own options.

    With `normalize` the embedding of a collection is brought to unit length.

    Raises:
        InputError: there is no aggregator of that name, it has no such option, or not that value.
    """
    if name not in AGGREGATORS:
        known = sorted(AGGREGATORS)
        raise InputError(
            f"Unknown aggregator '{name}'.{nearest(name, known)} Known: {', '.join(known)}."
        )
    known = list(default_options(name))
    for option in options:
        if option not in known:
            has = f"It has: {', '.join(known)}." if known else "It has no options."
            raise InputError(
                f"The aggregator {name} has no option '{option}'.{nearest(option, known)} {has}"
            )
    try:
        aggregator = AGGREGATORS[name](dim, **options)
    except TypeError as error:
        asked = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise InputError(f"The aggregator {name} cannot take {asked}: {error}.") from error
    return NormalizedAggregator(aggregator) if normalize else aggregator


def default_options(name: str) -> dict[str, Any]:
    """Return the options of an aggregator with their defaults."""
    found = inspect.signature(AGGREGATORS[name]).parameters
    return {name: of.default for name, of in found.items() if of.kind is of.KEYWORD_ONLY}


__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "AttentionAggregator",
    "CentroidAggregator",
    "ConcatAggregator",
    "CovarianceAggregator",
    "DeepSetsAggregator",
    "DirectionalMeanAggregator",
    "GemAggregator",
    "GeometricMedianAggregator",
    "MaxAggregator",
    "MeanStdAggregator",
    "MedianAggregator",
    "NANAggregator",
    "NetVLADAggregator",
    "NormalizedAggregator",
    "PMAAggregator",
    "QuantilesAggregator",
    "SetTransformerAggregator",
    "SlicedWassersteinAggregator",
    "SumAggregator",
    "TrimmedMeanAggregator",
    "build_aggregator",
    "default_options",
]
