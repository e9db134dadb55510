"""Modified Hausdorff distance between two sets of points."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from setrep.errors import InputError
from setrep.functional import at_least_float32


def modified_hausdorff(x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"]) -> Float[Tensor, ""]:
    r"""Larger of the two mean nearest-neighbour distances (Dubuisson and Jain 1994, d22).

    $$ \max\Big( \frac{1}{n} \sum_i \min_j \|x_i - y_j\|,\;
                 \frac{1}{m} \sum_j \min_i \|x_i - y_j\| \Big) $$

    Raises:
        InputError: a set is empty.
    """
    if not len(x) or not len(y):
        raise InputError(
            f"The Hausdorff distance needs two non-empty sets; found {len(x)} and {len(y)} points. "
            f"Leave empty sets out."
        )
    # Direct differences: the Gram form turns small distances into rounding noise.
    distance = torch.cdist(
        at_least_float32(x), at_least_float32(y), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return torch.maximum(distance.amin(dim=1).mean(), distance.amin(dim=0).mean())
