"""Random and adversarial triples of collections, many of one shape at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Sizes = tuple[int, int, int]
Draw = Callable[[np.random.Generator, int, Sizes, int], list[Points]]


def gaussian(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw three standard normal collections."""
    return [generator.normal(size=(count, size, dim)) for size in sizes]


def scaled(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw collections of scales from 1e-3 to 1e3, W wider or narrower, and nearer or farther."""
    a, b, w = gaussian(generator, count, sizes, dim)
    apart = generator.normal(size=(count, 1, dim)) * generator.choice(
        [0, 0.5, 2, 10], (count, 1, 1)
    )
    w = w * generator.uniform(0.1, 3, (count, 1, 1)) + apart
    unit = 10.0 ** generator.uniform(-3, 3, (count, 1, 1))
    return [unit * x for x in (a, b, w)]


def heavy(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw Cauchy items: outliers of any size."""
    return [generator.standard_cauchy((count, size, dim)) for size in sizes]


def lattice(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw whole numbers: ties and duplicates."""
    return [generator.integers(-2, 3, (count, size, dim)).astype(float) for size in sizes]


def collinear(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw items on a line, far from the origin, where Chamfer and quadratic bounds meet."""
    line = generator.normal(size=(count, 1, dim))
    origin = 1e3 * generator.normal(size=(count, 1, dim))
    return [origin + generator.normal(size=(count, size, 1)) * line for size in sizes]


def attained(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw what nearly attains the bounds: A along a line, all of B on one side, W beyond."""
    line = generator.normal(size=(count, 1, dim))
    line /= np.linalg.norm(line, axis=-1, keepdims=True)
    a = generator.uniform(0, 5, (count, sizes[0], 1)) * line
    w = -generator.uniform(1, 3, (count, 1, 1)) * line
    b = w - generator.uniform(0, 2, (count, 1, 1)) * line
    noise = 10.0 ** generator.uniform(-12, -1, (count, 1, 1))
    full = [a, np.repeat(b, sizes[1], axis=1), np.repeat(w, sizes[2], axis=1)]
    return [x + noise * generator.normal(size=x.shape) for x in full]


def offset(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw distances of about 1e3 on an offset of 1e4, as in Karimov's table."""
    far = 1e4 * generator.normal(size=(count, 1, dim)) / np.sqrt(dim)
    return [far + 40 * x for x in gaussian(generator, count, sizes, dim)]


def separated(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw labels far apart: negative margins."""
    a, b, w = gaussian(generator, count, sizes, dim)
    apart = generator.normal(size=(count, 1, dim))
    apart *= 20 * np.sqrt(dim) / np.linalg.norm(apart, axis=-1, keepdims=True)
    return [a, b, w + apart]


def overlapping(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw W from the items of A, as labels that share items would have it."""
    a, b, _ = gaussian(generator, count, sizes, dim)
    return [a, b, a[:, generator.integers(0, sizes[0], sizes[2])]]


def tiny(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw collections of the scale 1e-12."""
    return [1e-12 * x for x in gaussian(generator, count, sizes, dim)]


def nearly_equal(
    generator: np.random.Generator, count: int, sizes: Sizes, dim: int
) -> list[Points]:
    """Draw items that differ from one point in their last bits, or not at all."""
    point = generator.normal(size=(count, 1, dim))
    noise = 10.0 ** generator.choice([-300.0, -15.0, -12.0], (count, 1, 1))
    return [point + noise * x for x in gaussian(generator, count, sizes, dim)]


def halves(generator: np.random.Generator, count: int, sizes: Sizes, dim: int) -> list[Points]:
    """Draw embeddings in half precision, as a network under autocast gives them."""
    drawn = gaussian(generator, count, sizes, dim)
    return [x.astype(np.float16).astype(np.float64) for x in drawn]


SHAPES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        gaussian,
        scaled,
        heavy,
        lattice,
        collinear,
        attained,
        offset,
        separated,
        overlapping,
        tiny,
        nearly_equal,
        halves,
    )
}


def sizes_and_dim(generator: np.random.Generator) -> tuple[Sizes, int]:
    """Draw sizes of collections, from single items on, and the number of dimensions."""
    n1, n2, n3 = (int(x) for x in generator.integers(1, 9, 3))
    if generator.random() < 0.3:
        n2 = n1
    return (n1, n2, n3), int(generator.choice([1, 2, 3, 8, 40]))


def weights(generator: np.random.Generator, count: int, size: int) -> NDArray[Any]:
    """Draw convex weights, from nearly even to nearly one item."""
    return generator.dirichlet(np.full(size, generator.choice([0.1, 1.0, 10.0])), count)
