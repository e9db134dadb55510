"""Estimates of `tau_plus`, the prior probability that two random items share a class."""

from setrep.priors.labels import from_labels
from setrep.priors.results import ClassBalance, PriorEstimate
from setrep.priors.similarities import CheckedPairs, estimate, pairs_to_check

__all__ = [
    "CheckedPairs",
    "ClassBalance",
    "PriorEstimate",
    "estimate",
    "from_labels",
    "pairs_to_check",
]
