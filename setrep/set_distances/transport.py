"""Plans that move the items of one collection onto those of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import pairwise_distance
from setrep.set_distances.pairs import checked_pairs

ORDERS = (1, 2)


@dataclass(frozen=True, eq=False)
class TransportPlan:
    """Hold how pairs of collections are moved onto each other, move by move.

    A move takes `mass` from item `x_items` to item `y_items`, positions in `x.values` and
    `y.values`. Each of the n items of a collection holds 1/n, and a mass is a whole multiple of
    1/nm.
    """

    pair: Int64[Tensor, " move"]
    x_items: Int64[Tensor, " move"]
    y_items: Int64[Tensor, " move"]
    mass: Float64[Tensor, " move"]

    def cost(
        self, x: CollectionBatch, y: CollectionBatch, *, order: int = 1
    ) -> Float64[Tensor, " pair"]:
        """Sum mass times distance to the power `order` of each pair, in float64.

        For any plan this bounds the least cost from above, so a stored plan is a certificate.
        """
        difference = x.values.double().index_select(0, self.x_items)
        difference = difference - y.values.double().index_select(0, self.y_items)
        distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
        moved = self.mass * distance**order
        return torch.zeros_like(x.sizes, dtype=torch.float64).index_add(0, self.pair, moved)


def check_order(order: int) -> None:
    """Refuse an order without a distance here.

    Raises:
        InputError: the order is neither 1 nor 2.
    """
    if order not in ORDERS:
        raise InputError(f"The order of a Wasserstein distance must be 1 or 2, not {order}.")


def root(cost: Float[Tensor, " pair"], order: int) -> Float[Tensor, " pair"]:
    """Return the root of that order, with gradient 0 at cost 0."""
    if order == 1:
        return cost
    is_zero = cost == 0
    return cost.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)


def transport_plan(x: CollectionBatch, y: CollectionBatch, *, order: int = 1) -> TransportPlan:
    """Return a plan of least cost for each pair of collections.

    Each pair is solved by itself on the CPU, in float64. A pair with an item that is not finite
    gets some plan, whose cost is not finite either.

    Raises:
        InputError: the collections cannot be compared, see `checked_pairs`, or the order is
            neither 1 nor 2.
    """
    check_order(order)
    x, y = checked_pairs(x, y)
    x_values, y_values = (c.values.detach().double().cpu() for c in (x, y))
    x_offsets, y_offsets = x.offsets.tolist(), y.offsets.tolist()
    plans = []
    for k in range(len(x)):
        x_start, y_start = x_offsets[k], y_offsets[k]
        distance = pairwise_distance(
            x_values[x_start : x_offsets[k + 1]], y_values[y_start : y_offsets[k + 1]]
        )
        rows, columns, mass = least_moves((distance**order).numpy())
        plans.append((np.full(len(rows), k), rows + x_start, columns + y_start, mass))
    empty = (*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0))
    joined = [np.concatenate(parts) for parts in zip(empty, *plans, strict=True)]
    return TransportPlan(*(torch.from_numpy(part).to(x.values.device) for part in joined))


def least_moves(
    cost: Float64[np.ndarray, "n m"],
) -> tuple[Int64[np.ndarray, " move"], Int64[np.ndarray, " move"], Float64[np.ndarray, " move"]]:
    """Return rows, columns and masses of a plan of least cost between n and m equal masses.

    In units of 1/lcm(n, m) every supply and demand is a whole number, so some best plan is whole.
    It is found as an assignment of that many units, or at a vertex of the linear program.
    """
    n, m = cost.shape
    if not np.isfinite(cost).all():
        cost = np.zeros_like(cost)
    units = math.lcm(n, m)
    # Ties between copies cost the assignment about units^3; measured against the program's n * m.
    is_assigned = units**3 <= 40_000 * n * m
    plan = (_assignment if is_assigned else _program)(cost, units // n, units // m)
    rows, columns = plan.nonzero()
    return rows, columns, plan[rows, columns] / units


def _assignment(
    cost: Float64[np.ndarray, "n m"], supply: int, demand: int
) -> Int64[np.ndarray, "n m"]:
    """Assign copies of the items to each other, and count the copies."""
    copies = cost.repeat(supply, axis=0).repeat(demand, axis=1)
    rows, columns = linear_sum_assignment(copies)
    plan = np.zeros(cost.shape, np.int64)
    np.add.at(plan, (rows // supply, columns // demand), 1)
    return plan


def _program(
    cost: Float64[np.ndarray, "n m"], supply: int, demand: int
) -> Int64[np.ndarray, "n m"]:
    """Solve the linear program; the dual simplex method ends at a vertex, which is whole."""
    n, m = cost.shape
    sums = sparse.vstack(
        [
            sparse.kron(sparse.eye_array(n), np.ones((1, m))),
            sparse.kron(np.ones((1, n)), sparse.eye_array(m)),
        ]
    )
    totals = np.concatenate([np.full(n, supply), np.full(m, demand)])
    found = linprog(
        cost.ravel() / (cost.max() or 1.0),  # tolerances are absolute
        A_eq=sums.tocsr(),
        b_eq=totals,
        method="highs-ds",
        options={"dual_feasibility_tolerance": 1e-10},
    )
    assert found.status == 0, found.message  # every such program has a solution
    plan: Int64[np.ndarray, "n m"] = found.x.round().astype(np.int64).reshape(n, m)
    assert (plan.sum(1) == supply).all()
    assert (plan.sum(0) == demand).all()
    return plan
