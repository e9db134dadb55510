"""Triples of collections that bounds are tried on, random and adversarial."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

SHAPES = (
    "random",
    "collinear",
    "offset",
    "equal",
    "far",
    "heavy",
    "lattice",
    "tiny",
    "huge",
    "overlap",
)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float).reshape(-1, 1)


def draw_triple(shape: str, dim: int, sizes: tuple[int, int, int], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    triple = [generator.normal(size=(size, dim)) for size in sizes]
    if shape == "heavy":
        triple = [generator.standard_cauchy((size, dim)) for size in sizes]
    if shape == "collinear":
        direction = generator.normal(size=dim)
        triple = [generator.normal(size=(size, 1)) * direction for size in sizes]
    if shape == "offset":
        triple = [1e4 + x for x in triple]
    if shape == "equal":
        point = generator.normal(size=dim)
        triple = [np.tile(point, (size, 1)) for size in sizes]
    if shape == "far":
        triple[2] = triple[2] + 100
    if shape == "lattice":
        triple = [generator.integers(-2, 3, size=(size, dim)).astype(float) for size in sizes]
    if shape == "tiny":
        triple = [1e-12 * x for x in triple]
    if shape == "huge":
        triple = [1e9 * x for x in triple]
    if shape == "overlap":
        triple[2] = triple[0].copy()
    return triple


triples_of_points = st.builds(
    draw_triple,
    st.sampled_from(SHAPES),
    st.integers(1, 12),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 2**32 - 1),
)


def margin_over_all_triplets(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> float:
    largest = -math.inf
    for anchor in a:
        for positive in b:
            for negative in w:
                violation = math.dist(anchor, positive) - math.dist(anchor, negative)
                largest = max(largest, violation)
    return largest
