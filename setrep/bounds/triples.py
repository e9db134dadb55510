"""Triples of collections, measured: two of one label, one of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import ABSOLUTE_TOLERANCE
from setrep.bounds.points import EPSILON, Points, distances, power_of_two, to_points
from setrep.errors import InputError

# Ten rounding errors of a coordinate, in units of the tolerance for distances.
ROUNDING_OUTSIDE = 10 * EPSILON / ABSOLUTE_TOLERANCE


@dataclass(frozen=True, eq=False, repr=False)
class Triples:
    r"""Triples of collections (A, B, W) in float64, and their distances; see `measure`.

    The points are relative to the centroid of A, in units of a power of two, so that neither a
    large offset nor a large or small scale costs precision. What is derived from them is in the
    units of the input.
    """

    a: Float64[Tensor, "*triple n1 dim"]
    b: Float64[Tensor, "*triple n2 dim"]
    w: Float64[Tensor, "*triple n3 dim"]
    origin: Float64[Tensor, "*triple dim"]  # the centroid of A
    unit: Float64[Tensor, "*triple"]

    def __repr__(self) -> str:
        a, b, w = (tuple(x.shape) for x in (self.a, self.b, self.w))
        return f"Triples(a={a}, b={b}, w={w})"

    def between(
        self, x: Float64[Tensor, "*triple n dim"], y: Float64[Tensor, "*triple m dim"]
    ) -> Float64[Tensor, "*triple n m"]:
        """Return the distances between the points of two of the collections."""
        return self.unit[..., None, None] * distances(x, y)

    @cached_property
    def a_b(self) -> Float64[Tensor, "*triple n1 n2"]:
        """Distances from items of A to items of B."""
        return self.between(self.a, self.b)

    @cached_property
    def a_w(self) -> Float64[Tensor, "*triple n1 n3"]:
        """Distances from items of A to items of W."""
        return self.between(self.a, self.w)

    @cached_property
    def b_w(self) -> Float64[Tensor, "*triple n2 n3"]:
        """Distances from items of B to items of W."""
        return self.between(self.b, self.w)

    @cached_property
    def a_a(self) -> Float64[Tensor, "*triple n1 n1"]:
        """Distances between items of A."""
        return self.between(self.a, self.a)

    @cached_property
    def w_w(self) -> Float64[Tensor, "*triple n3 n3"]:
        """Distances between items of W."""
        return self.between(self.w, self.w)

    @cached_property
    def distance_same(self) -> Float64[Tensor, "*triple"]:
        """Distance of the centroids of A and B."""
        return self.unit * length(self.a.mean(-2) - self.b.mean(-2))

    @cached_property
    def distance_other(self) -> Float64[Tensor, "*triple"]:
        """Distance of the centroids of A and W."""
        return self.unit * length(self.a.mean(-2) - self.w.mean(-2))

    @cached_property
    def spread_a(self) -> Float64[Tensor, "*triple"]:
        r"""$\sqrt{V_1}$, the root mean squared distance of the items of A from their centroid."""
        return self.unit * spread(self.a)

    @cached_property
    def spread_b(self) -> Float64[Tensor, "*triple"]:
        r"""$\sqrt{V_2}$, that of B."""
        return self.unit * spread(self.b)

    @cached_property
    def spread_w(self) -> Float64[Tensor, "*triple"]:
        r"""$\sqrt{V_3}$, that of W."""
        return self.unit * spread(self.w)

    @cached_property
    def nearest_other(self) -> Float64[Tensor, "*triple n1"]:
        r"""$\delta_i = \min_k d(x_i, w_k)$ of each item of A."""
        return self.a_w.amin(-1)

    @cached_property
    def max_distance(self) -> Float64[Tensor, "*triple"]:
        r"""$D = \max_{ik} d(x_i, w_k)$."""
        return self.a_w.amax((-2, -1))

    @cached_property
    def scale(self) -> Float64[Tensor, "*triple"]:
        """Largest distance between items of two different collections."""
        largest = [self.a_b.amax((-2, -1)), self.max_distance, self.b_w.amax((-2, -1))]
        return torch.stack(largest).amax(0)

    @cached_property
    def scale_outside(self) -> Float64[Tensor, "*triple"]:
        """Scale of what was computed from the points where they are, offset and all.

        Embeddings of the points round as their coordinates do, not as their differences.
        """
        return self.scale + ROUNDING_OUTSIDE * math.sqrt(self.a.shape[-1]) * self.unit


def length(x: Float64[Tensor, "*triple dim"]) -> Float64[Tensor, "*triple"]:
    """Return the lengths of vectors."""
    found: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return found


def spread(points: Float64[Tensor, "*triple n dim"]) -> Float64[Tensor, "*triple"]:
    """Return the root mean squared distance of points from their mean."""
    centred = points - points.mean(-2, keepdim=True)
    return centred.square().sum(-1).mean(-1).sqrt()


def measure(a: Points, b: Points, w: Points) -> Triples:
    """Measure triples: `a` `[.., n1, d]` and `b` `[.., n2, d]` of one label, `w` `[.., n3, d]` not.

    Arrays or tensors of any number type; leading axes, the same in all three, number the triples.

    Raises:
        InputError: an input is empty, not finite, not numeric, or the shapes do not fit.
    """
    points = [to_points(x, name) for x, name in ((a, "a"), (b, "b"), (w, "w"))]
    if len({(*x.shape[:-2], x.shape[-1]) for x in points}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in points)
        raise InputError(f"a, b, w must agree in all but the number of items; found {shapes}.")
    largest = torch.stack([x.abs().amax((-2, -1)) for x in points]).amax(0)
    unit = power_of_two(largest)
    points = [x / unit[..., None, None] for x in points]
    origin = points[0].mean(-2, keepdim=True)
    a_, b_, w_ = (x - origin for x in points)
    return Triples(a_, b_, w_, unit.unsqueeze(-1) * origin.squeeze(-2), unit)
