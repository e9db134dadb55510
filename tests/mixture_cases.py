"""Mixtures of classes that bounds on losses are tried on, and their expectations as slow loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from setrep.bounds.mixtures import FiniteMixture

SHAPES = ("random", "separated", "overlapping", "aligned", "antipodal", "equal", "line", "swapped")
TEMPERATURES = (2.0, 1.0, 0.5, 0.2, 0.07, 0.01)


def draw_points(
    shape: str, num_classes: int, size: int, dim: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw points of norm 1, class after class."""
    spread = {"separated": 0.2, "overlapping": 4.0, "aligned": 0.0}.get(shape, 0.7)
    centres = generator.normal(size=(num_classes, 1, dim))
    points = centres + spread * generator.normal(size=(num_classes, size, dim))
    axis = np.zeros(dim)
    axis[0] = 1
    if shape == "antipodal":  # with two classes the mean over negatives is at the floor
        points = np.tile(axis, (num_classes, size, 1))
        points[1::2] *= -1
    if shape == "equal":
        points = np.tile(axis, (num_classes, size, 1))
    if shape == "line":
        points = axis * generator.choice([-1.0, 1.0], size=(num_classes, size, 1))
    if shape == "swapped":  # a class is farther from itself than from the others
        points = np.tile(centres[:1], (num_classes, size, 1))
        points[:, 1::2] *= -1
    points = points.reshape(num_classes * size, dim)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def draw_mixture(
    shape: str, num_classes: int, size: int, dim: int, seed: int, temperature: float
) -> FiniteMixture:
    points = draw_points(shape, num_classes, size, dim, np.random.default_rng(seed))
    return FiniteMixture.from_embeddings(
        points, np.repeat(np.arange(num_classes), size), temperature
    )


def generic(
    num_classes: int, size: int, dim: int, concentration: float, seed: int, temperature: float = 1.0
) -> FiniteMixture:
    generator = np.random.default_rng(seed)
    centres = concentration * generator.normal(size=(num_classes, 1, dim))
    points = (centres + generator.normal(size=(num_classes, size, dim))).reshape(-1, dim)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return FiniteMixture.from_embeddings(
        points, np.repeat(np.arange(num_classes), size), temperature
    )


mixtures = st.builds(
    draw_mixture,
    st.sampled_from(SHAPES),
    st.integers(2, 5),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(TEMPERATURES),
)
small_mixtures = st.builds(
    draw_mixture,
    st.sampled_from(SHAPES),
    st.integers(2, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from(TEMPERATURES[:4]),
)


class Loops:
    """The expectations of a mixture, one pair at a time, from h itself."""

    def __init__(self, mixture: FiniteMixture) -> None:
        self.t = mixture.temperature
        self.h = [[math.exp(value) for value in row] for row in mixture.logits.tolist()]
        self.labels = mixture.class_of.tolist()
        self.points = range(len(self.labels))
        self.tau_plus = 1 / len(set(self.labels))
        self.tau_minus = 1 - self.tau_plus
        self.floor = math.exp(-1 / self.t)

        same = [[of_x == of_y for of_y in self.labels] for of_x in self.labels]
        pairs = [list(zip(*of_x, strict=True)) for of_x in zip(self.h, same, strict=True)]
        self._of = {
            "everyone": self.h,
            "positives": [[h for h, is_same in of_x if is_same] for of_x in pairs],
            "negatives": [[h for h, is_same in of_x if not is_same] for of_x in pairs],
        }
        self.means = {source: [mean(of_x) for of_x in self._of[source]] for source in self._of}

    def everyone(self, x: int) -> list[float]:
        return self._of["everyone"][x]

    def positives(self, x: int) -> list[float]:
        return self._of["positives"][x]

    def negatives(self, x: int) -> list[float]:
        return self._of["negatives"][x]

    def over_pairs(self, of) -> float:
        """Average of(x, h(x, x+)) over anchors and their positives."""
        return mean(mean(of(x, h) for h in self.positives(x)) for x in self.points)

    def unbiased_limit(self, n: int) -> float:
        return self.over_pairs(lambda x, h: math.log1p(n * self.means["negatives"][x] / h))

    def biased_limit(self, n: int) -> float:
        return self.over_pairs(lambda x, h: math.log1p(n * self.means["everyone"][x] / h))

    def positives_limit(self, n: int) -> float:
        pairs = zip(self.means["negatives"], self.means["positives"], strict=True)
        return mean(math.log1p(n * e_minus / e_plus) for e_minus, e_plus in pairs)

    def loss(self, source: str, n: int) -> float:
        """The loss with n negatives of a source, over all draws."""
        return self.over_pairs(
            lambda x, h: mean(
                math.log1p(sum(drawn) / h)
                for drawn in itertools.product(getattr(self, source)(x), repeat=n)
            )
        )

    def negatives_gaps(self, n: int, m: int) -> list[float]:
        """Every gap of debiased negatives, all of one probability."""
        return [
            self.negatives_loss(h, u, v, n) - math.log1p(n * self.means["negatives"][x] / h)
            for x in self.points
            for h in self.positives(x)
            for u in itertools.product(self.everyone(x), repeat=n)
            for v in itertools.product(self.positives(x), repeat=m)
        ]

    def negatives_gaps_with_own_positive(self, n: int) -> list[float]:
        """The same with M = 1 and the positive itself in the estimate, as in code."""
        return [
            self.negatives_loss(h, u, (h,), n) - math.log1p(n * self.means["negatives"][x] / h)
            for x in self.points
            for h in self.positives(x)
            for u in itertools.product(self.everyone(x), repeat=n)
        ]

    def negatives_loss(self, h: float, u: tuple, v: tuple, n: int) -> float:
        g = max((mean(u) - self.tau_plus * mean(v)) / self.tau_minus, self.floor)
        return -math.log(h / (h + n * g))

    def positives_gaps(self, n: int, n_minus: int, with_pair: bool) -> list[float]:
        """Every gap of debiased positives with unlabelled items apart from negatives."""
        gaps = []
        for x in self.points:
            limit = math.log1p(n_minus * self.means["negatives"][x] / self.means["positives"][x])
            for h in self.positives(x):
                for u in itertools.product(self.everyone(x), repeat=n):
                    p = (sum(u) + h + math.exp(1 / self.t)) / (n + 2) if with_pair else mean(u)
                    for w in itertools.product(self.negatives(x), repeat=n_minus):
                        gaps.append(self.positives_loss(p, mean(w), n_minus) - limit)
        return gaps

    def published_positives_gaps(self, n: int) -> list[float]:
        """Every gap where both means share one sample of negatives."""
        gaps = []
        for x in self.points:
            limit = math.log1p(n * self.means["negatives"][x] / self.means["positives"][x])
            for h in self.positives(x):
                for w in itertools.product(self.negatives(x), repeat=n):
                    p = (sum(w) + h + math.exp(1 / self.t)) / (n + 2)
                    gaps.append(self.positives_loss(p, mean(w), n) - limit)
        return gaps

    def positives_loss(self, p: float, p_minus: float, n: int) -> float:
        r = max((p - self.tau_minus * p_minus) / self.tau_plus, self.floor)
        return -math.log(r / (r + n * p_minus))


def mean(values) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def deviation(values) -> float:
    centre = mean(values)
    return math.sqrt(mean((value - centre) ** 2 for value in values))
