"""Distances of convex hulls in rational arithmetic, from nothing but their definition."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain, combinations

import numpy as np

Point = list[Fraction]


def exact(points: np.ndarray) -> list[Point]:
    """Return the very numbers that the floats are."""
    return [[Fraction(float(x)) for x in point] for point in points]


def dot(x: Sequence[Fraction], y: Sequence[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(x, y, strict=True)), Fraction(0))


def minus(x: Point, y: Point) -> Point:
    return [p - q for p, q in zip(x, y, strict=True)]


def mean(weights: Sequence[Fraction], points: list[Point]) -> Point:
    return [dot(weights, column) for column in zip(*points, strict=True)]


def solution(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction] | None:
    """Solve by elimination; None for a singular system."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for k in range(len(rows)):
        pivot = next((i for i in range(k, len(rows)) if rows[i][k]), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def subsets(points: list[Point]) -> list[tuple[Point, ...]]:
    sizes = range(1, len(points) + 1)
    return list(chain.from_iterable(combinations(points, size) for size in sizes))


def squared_distance(a: np.ndarray, w: np.ndarray) -> Fraction:
    """Return the least squared distance over all pairs of faces.

    The nearest points of the affine hulls of two faces count if they are in the faces. Some pair of
    faces has the nearest points of the hulls inside it, and one solution.
    """
    found = []
    for s in subsets(exact(a)):
        for t in subsets(exact(w)):
            start = minus(s[0], t[0])
            edges = [minus(x, s[0]) for x in s[1:]] + [minus(t[0], y) for y in t[1:]]
            gram = [[dot(e, f) for f in edges] for e in edges]
            steps = solution(gram, [-dot(e, start) for e in edges])
            if steps is None:
                continue
            of_s, of_t = steps[: len(s) - 1], steps[len(s) - 1 :]
            if min([*steps, 1 - sum(of_s), 1 - sum(of_t)]) >= 0:
                way = (
                    [x + step for x, step in zip(start, mean(steps, edges), strict=True)]
                    if (edges)
                    else start
                )
                found.append(dot(way, way))
    return min(found)
