"""Pure functions of tensors, in float32 or better."""

from setrep.functional.first_order import first_order
from setrep.functional.pairs import (
    Positives,
    Triplets,
    all_triplets,
    everyone,
    negative_mask,
    pairwise_distance,
    positive_mask,
)
from setrep.functional.precision import at_least_float32
from setrep.functional.segments import (
    Interpolation,
    row_pieces,
    segment_argsort,
    segment_max,
    segment_quantiles,
    segment_softmax,
    segment_sum,
    segment_sum_in_order,
)

__all__ = [
    "Interpolation",
    "Positives",
    "Triplets",
    "all_triplets",
    "at_least_float32",
    "everyone",
    "first_order",
    "negative_mask",
    "pairwise_distance",
    "positive_mask",
    "row_pieces",
    "segment_argsort",
    "segment_max",
    "segment_quantiles",
    "segment_softmax",
    "segment_sum",
    "segment_sum_in_order",
]
