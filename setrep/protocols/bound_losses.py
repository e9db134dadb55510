"""Bounds on contrastive losses, on the evaluated split as a finite mixture of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from setrep.bounds import FiniteMixture, loss_bounds
from setrep.bounds.points import power_of_two
from setrep.data.collections import derive_generator
from setrep.data.dataset import ItemDataset

NUM_LABELS, NUM_ITEMS = 10, 30  # at most, of the mixture
NUM_NEGATIVES, NUM_POSITIVES = 256, 16
LENGTH_FLOOR = 1e-6  # of the longest embedding; a shorter one has no direction


def measure_losses(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    temperatures: Sequence[float],
    *,
    seed: int,
) -> list[dict[str, Any]] | None:
    """Set losses on a mixture of held-out items beside their bounds (L1, L3, L4, L5).

    The mixture holds as many items of each label, at most 30 of 10 labels, at unit length; items
    without a direction are left out. None is returned where fewer than two labels have two items.
    """
    generator = derive_generator(seed, 0)
    points = embeddings.double()
    points = points / power_of_two(points.abs().amax())
    lengths = torch.linalg.vector_norm(points, dim=1)
    has_direction = (lengths > LENGTH_FLOOR * lengths.max()).numpy()
    groups = [
        np.flatnonzero((dataset.labels == label) & has_direction)
        for label in np.unique(dataset.labels)
    ]
    large = [torch.from_numpy(group) for group in groups if len(group) >= 2]
    if len(large) < 2:
        return None
    chosen = torch.randperm(len(large), generator=generator)[:NUM_LABELS].tolist()
    count = min(NUM_ITEMS, min(len(large[place]) for place in chosen))
    items = torch.cat(
        [large[p][torch.randperm(len(large[p]), generator=generator)[:count]] for p in chosen]
    )
    points = points[items] / lengths[items].unsqueeze(1)
    labels = dataset.labels[items.numpy()]
    rows = []
    for temperature in dict.fromkeys(temperatures):
        mixture = FiniteMixture.from_embeddings(points, labels, temperature)
        rows += loss_bounds(mixture, NUM_NEGATIVES, NUM_POSITIVES, generator)
    return [{key: finite(value) for key, value in asdict(row).items()} for row in rows]


def finite(value: Any) -> Any:
    """Return none for a number that is not finite, as a bound of a low temperature may be."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
