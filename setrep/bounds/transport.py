"""The distance of centroids and that of moving one collection onto the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import UpperBound
from setrep.bounds.triples import Triples
from setrep.errors import InputError
from setrep.set_distances.transport import least_moves

MASS_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class TransportBound(UpperBound):
    """`w1` with its certificate: how much of each item of A goes to each item of B.

    Any plan bounds the distance of the centroids, whether or not it is the cheapest.
    """

    plan: Float64[Tensor, "*triple n1 n2"]


def w1(triples: Triples) -> TransportBound:
    r"""Wasserstein distance of the collections, exact for any sizes (T2).

    $$ \|c_1 - c_2\| \le W_1(A, B) = \min_\pi \sum_{ij} \pi_{ij} d(x_i, z_j) $$
    """
    costs = triples.a_b
    plans = np.zeros(costs.shape)
    for place in np.ndindex(costs.shape[:-2]):
        rows, columns, mass = least_moves(costs[place].numpy())
        plans[place][rows, columns] = mass
    plan = torch.from_numpy(plans).to(costs)
    return TransportBound(triples.distance_same, transport_cost(triples, plan), triples.scale, plan)


def transport_cost(
    triples: Triples, plan: Float64[Tensor, "*triple n1 n2"]
) -> Float64[Tensor, "*triple"]:
    r"""Return $\sum_{ij} \pi_{ij} d(x_i, z_j)$ of a plan: the certificate of `w1`, checked.

    Raises:
        InputError: the plan takes or gives other than $1/n$ of an item, or moves less than nothing.
    """
    costs = triples.a_b
    if plan.shape != costs.shape:
        raise InputError(f"A plan of shape {tuple(plan.shape)} for {tuple(costs.shape)} pairs.")
    n1, n2 = costs.shape[-2:]
    wrong = torch.stack(
        [
            (plan.sum(-1) - 1 / n1).abs().amax(),
            (plan.sum(-2) - 1 / n2).abs().amax(),
            (-plan).amax(),
        ]
    ).max()
    if not float(wrong) <= MASS_TOLERANCE:  # false for NaN, too
        raise InputError(
            f"A plan must take 1/{n1} of each item of A and give 1/{n2} to each of B; "
            f"found {float(wrong):.2g} off."
        )
    return (plan * costs).sum((-2, -1))
