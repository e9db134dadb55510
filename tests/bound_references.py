"""Every bound on triples of collections, as slow loops over the points."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from tests.bound_cases import margin_over_all_triplets

Points = np.ndarray


def nearest(x: np.ndarray, others: Points) -> float:
    return min(math.dist(x, other) for other in others)


def farthest(x: np.ndarray, others: Points) -> float:
    return max(math.dist(x, other) for other in others)


def variance(points: Points) -> float:
    centre = points.mean(axis=0)
    return sum(math.dist(x, centre) ** 2 for x in points) / len(points)


def radius(a: Points, b: Points, w: Points) -> list[float]:
    margin = margin_over_all_triplets(a, b, w)
    return [margin + nearest(x, w) for x in a]


def upper_bounds(a: Points, b: Points, w: Points) -> dict[str, float]:
    """Return the bounds of the distance of centroids; squares where they are of squares."""
    margin = margin_over_all_triplets(a, b, w)
    both = max(margin, margin_over_all_triplets(b, a, w))
    largest = max(farthest(x, w) for x in a)
    r = radius(a, b, w)
    pairs = [both + min(nearest(x, w), nearest(z, w)) for x in a for z in b]
    return {
        "karimov": 2 * max(margin, largest),
        "margin_plus_max": margin + largest,
        "chamfer": sum(r) / len(r),
        "q1 squared": sum(one**2 for one in r) / len(r) - variance(a),
        "q12 squared": sum(one**2 for one in r) / len(r) - variance(a) - variance(b),
        "symmetric squared": sum(one**2 for one in pairs) / len(pairs) - variance(a) - variance(b),
        "symmetric_chamfer": both + antitone(a, b, w),
        "mean_distance": sum(math.dist(x, z) for x in a for z in b) / len(a) / len(b),
    }


def antitone(a: Points, b: Points, w: Points) -> float:
    """Return the integral of the smaller quantile, one of them read backwards."""
    of_a = sorted(nearest(x, w) for x in a)
    of_b = sorted((nearest(z, w) for z in b), reverse=True)
    times = sorted(
        {Fraction(i, len(a)) for i in range(len(a) + 1)}
        | {Fraction(j, len(b)) for j in range(len(b) + 1)}
    )
    total = 0.0
    for start, end in itertools.pairwise(times):
        value = min(of_a[int(start * len(a))], of_b[int(start * len(b))])
        total += float(end - start) * value
    return total


def mean_loss(a: Points, b: Points, w: Points, alpha: float) -> float:
    """Return the mean triplet loss over all triplets."""
    losses = [max(0.0, math.dist(x, z) - math.dist(x, v) + alpha) for x in a for z in b for v in w]
    return sum(losses) / len(losses)


def batch_hard_loss(a: Points, b: Points, w: Points, alpha: float) -> float:
    """Return the mean over anchors of the loss of their hardest triplet."""
    return sum(max(0.0, farthest(x, b) - nearest(x, w) + alpha) for x in a) / len(a)


def transport(a: Points, b: Points) -> float:
    """Return the Wasserstein distance from the linear program of all plans."""
    costs = np.array([[math.dist(x, z) for z in b] for x in a])
    n, m = costs.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    totals = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    scale = costs.max() or 1.0
    return scale * float(linprog(costs.ravel() / scale, A_eq=sums, b_eq=totals).fun)


def lower_bounds(a: Points, w: Points) -> dict[str, float]:
    """Return the bounds of the squared distance of centroids; the margin is two-sided."""
    margin = max(margin_over_all_triplets(a, a, w), margin_over_all_triplets(w, w, a))
    of_a, of_w = [farthest(x, a) for x in a], [farthest(x, w) for x in w]
    pairs = [max(0.0, max(one, other) - margin) ** 2 for one in of_a for other in of_w]
    halves = []
    for reaches in (of_a, of_w):
        n = len(reaches)
        terms = [max(0.0, d - margin) ** 2 - (1 - 1 / n) * d**2 for d in reaches]
        halves.append(sum(terms) / n / 2)
    gamma = max(0.0, -margin)
    return {
        "lb1": sum(pairs) / len(pairs) - variance(a) - variance(w),
        "lb0": sum(halves),
        "margin_hull": gamma**2 + gamma * (min(of_a) + min(of_w)),
        "means": gamma**2 + gamma * (sum(of_a) / len(of_a) + sum(of_w) / len(of_w)),
    }


def score_gap(a: Points, b: Points, w: Points) -> tuple[float, float]:
    """Return the gap of the variance-corrected scores and its bound."""
    c1, c2, c3 = (x.mean(axis=0) for x in (a, b, w))
    value = math.dist(c1, c3) ** 2 + variance(w) - math.dist(c1, c2) ** 2 - variance(b)
    bound = sum(nearest(x, w) ** 2 - farthest(x, b) ** 2 for x in a) / len(a)
    return value, bound
