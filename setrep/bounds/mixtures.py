r"""Embeddings with labels as a finite mixture of classes, where every expectation is a finite sum.

$p$ is uniform over all points, $p_x^+$ over the class of $x$ with $x$ itself, $p_x^-$ over the
others. With classes of one size $p = \tau^+ p_x^+ + \tau^- p_x^-$ exactly, $\tau^+$ being one over
the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from setrep.bounds.empirical_losses import log_one_plus
from setrep.bounds.losses import check_temperature, to_count
from setrep.bounds.points import Points, to_points
from setrep.errors import InputError

ROUNDED_NORM = 0.01  # how far the norm of a unit vector in 16 bits may be from 1
LARGEST_RANGE = 690.0  # of the logarithm of h, so that h and its squares stay in float64

Labels = Tensor | NDArray[Any] | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of h(x, .) for each x, as logarithms."""

    log_mean: Float64[Tensor, " point"]
    log_deviation: Float64[Tensor, " point"]

    @property
    def mean(self) -> Float64[Tensor, " point"]:
        """Mean of h(x, .)."""
        return self.log_mean.exp()

    @property
    def deviation(self) -> Float64[Tensor, " point"]:
        """Standard deviation of h(x, .)."""
        return self.log_deviation.exp()


@dataclass(frozen=True, eq=False)
class FiniteMixture:
    r"""Points on the sphere in classes of one size, with $\log h$ of every pair."""

    logits: Float64[Tensor, "point point"]
    members: Int64[Tensor, "class item"]
    class_of: Int64[Tensor, " point"]
    temperature: float

    @classmethod
    def from_embeddings(
        cls, embeddings: Points, labels: Labels, temperature: float
    ) -> FiniteMixture:
        """Take L2-normalised embeddings `[n, dim]`, with as many of each label.

        What rounding has left of norms other than 1 is divided away.

        Raises:
            InputError: the embeddings are not finite or not of norm 1, the labels do not fit or
                are not equally frequent, or h leaves float64 at that temperature.
        """
        check_temperature(temperature)
        if 2 / temperature > LARGEST_RANGE:
            raise InputError(
                f"At temperature {temperature:g} exp(cosine / temperature) leaves float64: "
                f"use one of at least {2 / LARGEST_RANGE:.4f}."
            )
        points = to_unit(embeddings)
        members, class_of = to_classes(labels, len(points))
        logits = (points @ points.mT).clamp(-1, 1) / temperature
        logits.fill_diagonal_(1 / temperature)
        return cls(logits, members, class_of, temperature)

    @property
    def num_points(self) -> int:
        """How many points there are."""
        return len(self.logits)

    @property
    def tau_plus(self) -> float:
        """The prior of every class."""
        return 1 / len(self.members)

    @property
    def floor(self) -> float:
        """The logarithm of the least value that h can have on the sphere."""
        return -1 / self.temperature

    @cached_property
    def positive_logits(self) -> Float64[Tensor, "point item"]:
        """The logarithm of h(x, .) over the class of each x."""
        return self.logits.gather(1, self.members[self.class_of])

    @cached_property
    def everyone(self) -> Moments:
        """Moments over all points: E_p."""
        return moments(self.logits, torch.ones_like(self.logits, dtype=torch.bool))

    @cached_property
    def positives(self) -> Moments:
        """Moments over the class of x: E_+."""
        return moments(self.logits, self.is_positive)

    @cached_property
    def negatives(self) -> Moments:
        """Moments over the other classes: E_-."""
        return moments(self.logits, ~self.is_positive)

    @property
    def is_positive(self) -> Bool[Tensor, "point point"]:
        """Whether two points are of one class."""
        return self.class_of.unsqueeze(1) == self.class_of

    def biased_limit(self, num_negatives: SupportsIndex) -> float:
        r"""Return $\mathbb{E}_{x, x^+} \log(1 + N E_p / h(x, x^+))$."""
        return float(self.log_ratio(self.everyone, num_negatives).mean())

    def unbiased_limit(self, num_negatives: SupportsIndex) -> float:
        r"""Return $\mathbb{E}_{x, x^+} \log(1 + N E_- / h(x, x^+))$.

        The limit of the debiased loss, and of the unbiased one: $0 \le L_\infty^N - L_{Unbiased}^N
        \le \kappa / N$.
        """
        return float(self.log_ratio(self.negatives, num_negatives).mean())

    def debiased_positives_limit(self, num_negatives: SupportsIndex) -> float:
        r"""Return $\mathbb{E}_x \log(1 + N E_- / E_+)$."""
        n = to_count(num_negatives, "num_negatives")
        ratio = self.negatives.log_mean - self.positives.log_mean
        return float(log_one_plus(math.log(n) + ratio).mean())

    def log_ratio(self, of: Moments, num_negatives: SupportsIndex) -> Float64[Tensor, "point item"]:
        r"""Return $\log(1 + N E / h(x, x^+))$ for each $x$ and $x^+$."""
        n = to_count(num_negatives, "num_negatives")
        return log_one_plus(math.log(n) + of.log_mean.unsqueeze(1) - self.positive_logits)


def moments(logits: Float64[Tensor, "point point"], mask: Bool[Tensor, "point point"]) -> Moments:
    """Return mean and deviation of exp(logits) where the mask holds, in units of the largest."""
    largest = logits.masked_fill(~mask, -torch.inf).amax(1)
    h = (logits - largest.unsqueeze(1)).exp().masked_fill(~mask, 0)
    count = mask.sum(1)
    mean = h.sum(1) / count
    variance = (h - mean.unsqueeze(1)).square().masked_fill(~mask, 0).sum(1) / count
    return Moments(largest + mean.log(), largest + variance.sqrt().log())


def to_unit(embeddings: Points) -> Float64[Tensor, "point dim"]:
    """Check embeddings of norm 1 and divide by what rounding made of it."""
    points = to_points(embeddings, "embeddings").cpu()
    if points.ndim != 2:
        raise InputError(f"embeddings must be [points, dim]; found shape {tuple(points.shape)}.")
    norms = torch.linalg.vector_norm(points, dim=1)
    farthest = float(norms[(norms - 1).abs().argmax()])
    if abs(farthest - 1) > ROUNDED_NORM:
        raise InputError(
            f"embeddings must be of norm 1, but one has {farthest:.4g}: L2-normalise them first."
        )
    unit: Tensor = points / norms.unsqueeze(1)
    return unit


def to_classes(
    labels: Labels, num_points: int
) -> tuple[Int64[Tensor, "class item"], Int64[Tensor, " point"]]:
    """Check labels and return the points of each class, and the class of each point."""
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.shape != (num_points,):
        raise InputError(f"{num_points} embeddings need as many labels, not {array.shape}.")
    names, class_of, sizes = np.unique(array, return_inverse=True, return_counts=True)
    if len(names) < 2 or sizes.min() != sizes.max():
        raise InputError(
            f"A finite mixture needs two classes or more, all of one size; found {len(names)} of "
            f"{sizes.min()} to {sizes.max()}. Cut the larger ones."
        )
    order = np.argsort(class_of, kind="stable")
    members = torch.from_numpy(order.reshape(len(names), -1))
    return members.long(), torch.from_numpy(class_of).long()
