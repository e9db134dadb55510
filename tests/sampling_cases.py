"""Small pools and galleries, and everything that can be drawn from them, one draw after another."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

SHAPES = (
    "random",
    "lattice",
    "two points",
    "collinear",
    "equal",
    "offset",
    "tiny",
    "huge",
    "heavy",
    "outlier",
)


def draw_pool(shape: str, num_items: int, dim: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pool = generator.normal(size=(num_items, dim))
    if shape == "lattice":
        pool = generator.integers(-2, 3, size=(num_items, dim)).astype(float)
    if shape == "two points":
        pool = np.zeros((num_items, dim))
        pool[: generator.integers(num_items + 1), 0] = 1
    if shape == "collinear":
        pool = generator.normal(size=(num_items, 1)) * pool[:1]
    if shape == "equal":
        pool = np.tile(pool[:1], (num_items, 1))
    if shape == "offset":
        pool = 1e4 + pool
    if shape == "tiny":
        pool = 1e-12 * pool
    if shape == "huge":
        pool = 1e9 * pool
    if shape == "heavy":
        pool = generator.standard_cauchy((num_items, dim))
    if shape == "outlier":
        pool = np.zeros((num_items, dim))
        pool[0] = 1
    return pool


def pools(most: int):
    sizes, dims, seeds = st.integers(1, most), st.integers(1, 4), st.integers(0, 2**32 - 1)
    return st.builds(draw_pool, st.sampled_from(SHAPES), sizes, dims, seeds)


def draw_gallery(shape: str, sizes: list[int], dim: int, apart: float, seed: int):
    """Return centroids of labels that are `apart`, and a pool about each."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(len(sizes), dim)) * apart
    if shape in ("lattice", "two points", "outlier"):
        centres = centres.round()
    items = [draw_pool(shape, size, dim, seed + label) for label, size in enumerate(sizes)]
    origin = draw_pool(shape, 1, dim, seed)[0] if shape in ("equal", "offset") else 0.0
    scale = {"tiny": 1e-12, "huge": 1e9}.get(shape, 1.0)
    centred = [x - origin for x in items]
    off = 1e4 if shape == "offset" else 0.0
    found = [x + scale * c + off for x, c in zip(centred, centres, strict=True)]
    return scale * centres + off, found


galleries = st.builds(
    draw_gallery,
    st.sampled_from(SHAPES),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 2.0, 6.0]),
    st.integers(0, 2**32 - 10),
)


def distances_to_mean(pool: np.ndarray, n: int) -> np.ndarray:
    """Return the distance of the centroid of every subset of n items from the mean."""
    centred = pool - pool.mean(0)
    every = itertools.combinations(range(len(pool)), n)
    return np.array([np.linalg.norm(centred[list(chosen)].mean(0)) for chosen in every])


def distances_of_pairs(pool: np.ndarray, n1: int, n2: int) -> np.ndarray:
    """Return the distance of the centroids of every two disjoint subsets."""
    centred = pool - pool.mean(0)
    found = []
    for first in itertools.combinations(range(len(pool)), n1):
        rest = [i for i in range(len(pool)) if i not in first]
        for second in itertools.combinations(rest, n2):
            apart = centred[list(first)].mean(0) - centred[list(second)].mean(0)
            found.append(np.linalg.norm(apart))
    return np.array(found)


def distances_with_replacement(pool: np.ndarray, n: int) -> np.ndarray:
    """Return the distance to the mean of every sequence of n draws."""
    centred = pool - pool.mean(0)
    every = itertools.product(range(len(pool)), repeat=n)
    return np.array([np.linalg.norm(centred[list(chosen)].mean(0)) for chosen in every])


def draws(num_items: int, n: int, with_replacement: bool) -> Iterator[tuple[list[int], int]]:
    """Return every collection of n items, and how many sequences of draws give it."""
    if not with_replacement:
        yield from ((list(chosen), 1) for chosen in itertools.combinations(range(num_items), n))
        return
    for chosen in itertools.combinations_with_replacement(range(num_items), n):
        same = math.prod(math.factorial(count) for count in Counter(chosen).values())
        yield list(chosen), math.factorial(n) // same


def probability_of_error(
    gallery: np.ndarray, pool: np.ndarray, label: int, n: int, with_replacement: bool = False
) -> dict[str | int, Fraction]:
    """Return the probability of each label being as near as the own one, and of any, exactly."""
    centres = [[Fraction(value) for value in centre] for centre in gallery]
    items = [[Fraction(value) for value in item] for item in pool]
    counts: Counter[str | int] = Counter()
    total = 0
    for chosen, weight in draws(len(pool), n, with_replacement):
        query = [sum(items[i][axis] for i in chosen) / n for axis in range(pool.shape[1])]
        squared = [sum((q - c) ** 2 for q, c in zip(query, at, strict=True)) for at in centres]
        nearer = [other for other in range(len(gallery)) if squared[other] <= squared[label]]
        lost = [other for other in nearer if other != label]
        counts.update(dict.fromkeys([*lost, *(["any"] if lost else [])], weight))
        total += weight
    return {key: Fraction(counts[key], total) for key in ["any", *range(len(gallery))]}
