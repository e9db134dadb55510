"""Hold certificates of retrieval against the errors of random queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.retrieval.plan import Certified
from setrep import bounds
from setrep.bounds import RetrievalCertificate
from setrep.data.collections import derive_generator

CONFIDENCE = 0.95
BOUNDS = ("triangle", "half_space", "chernoff", "bound")  # R1, R2, R3, the smaller of R2 and R3


def calibrate(
    embeddings: Tensor, labels: NDArray[np.int64], asked: Certified, seed: int
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Bound and measure errors; return a row for each bound and size, and all as [label, size].

    The gallery holds the centroid of some random items of each label, queries are drawn from the
    others.
    """
    generator = derive_generator(seed, 0)
    points = embeddings.double()
    gallery, pools = [], []
    for label in np.unique(labels):
        group = torch.from_numpy(np.flatnonzero(labels == label))
        group = group[torch.randperm(len(group), generator=generator)]
        gallery.append(points[group[: asked.gallery_size]].mean(0))
        pools.append(points[group[asked.gallery_size :]])
    centres = torch.stack(gallery)
    certificate = bounds.certify_retrieval(centres, pools, asked.sizes)
    errors = bounds.measure_errors(
        centres, pools, asked.sizes, generator=generator, num_queries=asked.num_queries
    )
    found = {name: bound_of(certificate, name) for name in BOUNDS}
    lower = errors.limits(CONFIDENCE)[0]
    rates = errors.num_errors.double() / errors.num_queries
    rows = [
        {"bound": name, "size": size, "num_queries": errors.num_queries}
        | summary(bound[:, place], lower[:, place], rates[:, place])
        for name, bound in found.items()
        for place, size in enumerate(asked.sizes)
    ]
    arrays = {name: bound.numpy().astype(np.float32) for name, bound in found.items()}
    return rows, arrays | {"num_errors": errors.num_errors.numpy().astype(np.int32)}


def bound_of(certificate: RetrievalCertificate, name: str) -> Tensor:
    """Return a bound of each label and size."""
    bound: Tensor = getattr(certificate, name)
    return bound


def summary(bound: Tensor, lower: Tensor, rates: Tensor) -> dict[str, Any]:
    """Summarise the labels of one size: `num_violations` are lower limits above their bound."""
    return {
        "num_checks": len(bound),
        "num_violations": int((lower > bound).sum()),
        "num_below_1": int((bound < 1).sum()),
        "bound_mean": float(bound.mean()),
        "bound_median": float(bound.median()),
        "bound_max": float(bound.max()),
        "error_mean": float(rates.mean()),
        "error_max": float(rates.max()),
        "limit_max": float(lower.max()),
    }
