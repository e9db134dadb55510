"""Certified retrieval on the evaluated split: how often the nearest centroid may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep import bounds
from setrep.bounds import RetrievalCertificate, RetrievalErrors
from setrep.data.collections import derive_generator
from setrep.data.dataset import ItemDataset

GALLERY_SIZE = 10
NUM_QUERIES = 2000  # of each label and size
CONFIDENCE = 0.95  # of the intervals that are reported
WRONG_ALARM = 1e-6  # one of all labels and sizes that holds is called violated so often
SCOPE = (
    "Queries are random collections of n items of one label of this split, without the items of "
    "the gallery. This says nothing of items from elsewhere."
)


def certify(
    embeddings: Float[Tensor, "item dim"], dataset: ItemDataset, sizes: Sequence[int], *, seed: int
) -> dict[str, Any] | None:
    """Bound and measure how often the nearest of the labels' centroids is a wrong one (R2, R3).

    The gallery holds for each label the centroid of 10 random items, or of half of what the
    smallest label has. A label of a single item is left out; none is returned where fewer than two
    labels are left, or no label has enough items for any size.
    """
    groups = [np.flatnonzero(dataset.labels == label) for label in np.unique(dataset.labels)]
    large = [torch.from_numpy(group) for group in groups if len(group) >= 2]
    if len(large) < 2:
        return None
    gallery_size = min(GALLERY_SIZE, min(len(group) for group in large) // 2)
    generator = derive_generator(seed, 0)
    shuffled = [group[torch.randperm(len(group), generator=generator)] for group in large]
    points = embeddings.double()
    gallery = torch.stack([points[group[:gallery_size]].mean(0) for group in shuffled])
    pools = [points[group[gallery_size:]] for group in shuffled]
    fitting = [size for size in sorted(set(sizes)) if size <= min(len(pool) for pool in pools)]
    if not fitting:
        return None
    certificate = bounds.certify_retrieval(gallery, pools, fitting)
    errors = bounds.measure_errors(
        gallery, pools, fitting, generator=generator, num_queries=NUM_QUERIES
    )
    names = [dataset.label_names[int(dataset.labels[group[0]])] for group in shuffled]
    return {
        "rule": "nearest centroid",
        "scope": SCOPE,
        "gallery_size": gallery_size,
        "num_labels": len(names),
        "num_left_out": len(groups) - len(large),
        "sizes": [row_of(certificate, errors, names, n) for n in range(len(fitting))],
    }


def row_of(
    certificate: RetrievalCertificate, errors: RetrievalErrors, names: list[str], n: int
) -> dict[str, Any]:
    """Say of one size what is certified, and what was measured."""
    lower, upper = (limit[:, n].tolist() for limit in errors.limits(CONFIDENCE))
    surely_above, _ = errors.limits(1 - 2 * WRONG_ALARM / errors.num_errors.numel())
    counts: Int64[Tensor, " label"] = errors.num_errors[:, n]
    total = errors.num_queries * len(names)
    # Wide enough though labels differ: a sum of unequal chances varies less (Hoeffding 1956).
    low, high = bounds.clopper_pearson(counts.sum().reshape(1), total, CONFIDENCE)
    return {
        "size": int(certificate.sizes[n]),
        "delta": float(certificate.delta[n]),
        "mean_bound": float(certificate.bound[:, n].mean()),
        "num_queries": total,
        "num_errors": int(counts.sum()),
        "error": float(counts.sum()) / total,
        "error_ci95": [float(low), float(high)],
        "worst_error": float(counts.max()) / errors.num_queries,
        "is_calibrated": bool((surely_above[:, n] <= certificate.bound[:, n]).all()),
        "per_label": {
            name: {
                "half_space": float(certificate.half_space[place, n]),
                "chernoff": float(certificate.chernoff[place, n]),
                "bound": float(certificate.bound[place, n]),
                "error": float(counts[place]) / errors.num_queries,
                "error_ci95": [lower[place], upper[place]],
            }
            for place, name in enumerate(names)
        },
    }
