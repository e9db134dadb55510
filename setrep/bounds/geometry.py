r"""Upper bounds on the distance between the centroids of two collections of one label.

$A=\{x_i\}$ and $B=\{z_j\}$ are embedded collections of one label, $W=\{w_k\}$ is one of another,
$c_1, c_2, c_3$ are their centroids, $d$ is the Euclidean distance; the sizes may differ.

Positives are **cross-collection** in every upper bound: the anchor $x_i$ is in $A$, its positive
$z_j$ in $B$. With positives of the anchor's own collection the theorem is false: $A=\{0, 0.1\}$,
$B=\{10, 10.1\}$, $W=\{2\}$ have the within-collection margin $-1.8$, which would bound
$\|c_1-c_2\|=10$ by $2\max\{-1.8, 2\}=4$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from torch import Tensor

from setrep.errors import InputError

# A bound holds when value <= bound + RELATIVE * |bound| + ABSOLUTE * (largest distance).
RELATIVE_TOLERANCE = 1e-9
ABSOLUTE_TOLERANCE = 1e-11
LARGEST = 1e300  # beyond it distances leave float64

Points = Tensor | NDArray[Any] | Sequence[Any]
Margin = Float64[Tensor, "*triple"] | float | None


@dataclass(frozen=True, eq=False)
class Triples:
    """Distances within triples of collections (A, B, W), in float64; see `measure`."""

    a_b: Float64[Tensor, "*triple n1 n2"]
    a_w: Float64[Tensor, "*triple n1 n3"]
    b_w: Float64[Tensor, "*triple n2 n3"]
    a_a: Float64[Tensor, "*triple n1 n1"]
    w_w: Float64[Tensor, "*triple n3 n3"]
    distance_same: Float64[Tensor, "*triple"]  # of the centroids of A and B
    distance_other: Float64[Tensor, "*triple"]  # of the centroids of A and W

    @cached_property
    def max_distance(self) -> Float64[Tensor, "*triple"]:
        r"""$D = \max_{ik} d(x_i, w_k)$."""
        return self.a_w.amax((-2, -1))

    @cached_property
    def scale(self) -> Float64[Tensor, "*triple"]:
        """Largest distance between items of two different collections."""
        largest = [self.a_b.amax((-2, -1)), self.max_distance, self.b_w.amax((-2, -1))]
        return torch.stack(largest).amax(0)


@dataclass(frozen=True, eq=False)
class UpperBound:
    """A measured value, the bound that it must not exceed, and the tolerance for rounding."""

    value: Float64[Tensor, "*triple"]
    bound: Float64[Tensor, "*triple"]
    scale: Float64[Tensor, "*triple"]

    @property
    def slack(self) -> Float64[Tensor, "*triple"]:
        """Bound minus value."""
        return self.bound - self.value

    @property
    def tightness(self) -> Float64[Tensor, "*triple"]:
        """Value over bound, 1 when attained; NaN where the bound is nothing but rounding."""
        is_defined = self.bound > 100 * ABSOLUTE_TOLERANCE * self.scale
        return torch.where(is_defined, self.value / self.bound, torch.nan)

    @property
    def tolerance(self) -> Float64[Tensor, "*triple"]:
        """How far the value may exceed the bound through rounding."""
        return RELATIVE_TOLERANCE * self.bound.abs() + ABSOLUTE_TOLERANCE * self.scale

    @property
    def holds(self) -> Bool[Tensor, "*triple"]:
        """Whether the value is within the bound."""
        return self.value <= self.bound + self.tolerance


def measure(a: Points, b: Points, w: Points) -> Triples:
    """Measure triples: `a` `[.., n1, d]` and `b` `[.., n2, d]` of one label, `w` `[.., n3, d]` not.

    Arrays or tensors of any number type; leading axes, the same in all three, number the triples.
    Points are centred on the first centroid before any difference, and differences are direct, so
    that neither a large offset nor a large or small scale costs precision.

    Raises:
        InputError: an input is empty, not finite, not numeric, or the shapes do not fit.
    """
    collections = [to_points(x, name) for x, name in ((a, "a"), (b, "b"), (w, "w"))]
    leading = {tuple(x.shape[:-2]) for x in collections}
    widths = {x.shape[-1] for x in collections}
    if len(leading) > 1 or len(widths) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in collections)
        raise InputError(f"a, b, w must agree in all but the number of items; found {shapes}.")
    # Scaling by a power of two is exact and keeps squares away from overflow and underflow.
    largest = torch.stack([x.abs().amax((-2, -1), keepdim=True) for x in collections]).amax(0)
    unit = torch.exp2(torch.frexp(largest).exponent.double())
    collections = [x / unit for x in collections]
    origin = collections[0].mean(-2, keepdim=True)
    a_, b_, w_ = (x - origin for x in collections)
    pairs = [(a_, b_), (a_, w_), (b_, w_), (a_, a_), (w_, w_)]
    centroids = [x.mean(-2) for x in (a_, b_, w_)]
    return Triples(
        *(unit * distances(x, y) for x, y in pairs),
        *(unit[..., 0, 0] * (centroids[0] - c).norm(dim=-1) for c in centroids[1:]),
    )


def to_points(x: Points, name: str) -> Float64[Tensor, "*triple n dim"]:
    """Check one argument of `measure` and return it in float64."""
    if not isinstance(x, Tensor):
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise InputError(f"{name} must be an array of points: {error}") from error
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must hold real numbers, not {array.dtype}.")
        x = torch.from_numpy(np.array(array, dtype=np.float64))
    if x.is_complex():
        raise InputError(f"{name} must hold real numbers, not {x.dtype}.")
    x = x.detach().double()
    if x.ndim < 2 or x.numel() == 0:
        raise InputError(
            f"{name} must be of shape [.., items, dimensions] and hold at least one item; "
            f"found shape {tuple(x.shape)}."
        )
    if not bool((x.abs() < LARGEST).all()):  # false for NaN, too
        raise InputError(f"{name} holds NaN, infinity or a number beyond {LARGEST:.0e}.")
    return x


def distances(
    x: Float64[Tensor, "*triple n dim"], y: Float64[Tensor, "*triple m dim"]
) -> Float64[Tensor, "*triple n m"]:
    """Return Euclidean distances from direct differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def one_sided_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Local margin of anchors in A with positives in B (cross-collection) and negatives in W.

    $$ m = \max_i \big( \max_j d(x_i, z_j) - \min_k d(x_i, w_k) \big) $$

    The largest violation $d(a, p) - d(a, n)$ over all triplets. The loss of the same paper is
    $(d(a, p) - d(a, n) + \alpha)_+$: at zero loss $m \le -\alpha$.
    """
    return (triples.a_b.amax(-1) - triples.a_w.amin(-1)).amax(-1)


def symmetric_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Local margin $m_s$ of anchors in A or B, positives in the other (cross-collection)."""
    from_b = (triples.a_b.amax(-2) - triples.b_w.amin(-1)).amax(-1)
    return torch.maximum(one_sided_margin(triples), from_b)


def inter_class_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Two-sided margin $m_{AW}$: anchors in A or W, positives in the same collection.

    $$ m_{AW} = \max\Big\{ \max_i \big(\max_j d(x_i, x_j) - \min_k d(x_i, w_k)\big),
       \max_k \big(\max_l d(w_k, w_l) - \min_i d(x_i, w_k)\big) \Big\} $$

    It serves lower bounds between labels, never the upper bounds of this file.
    """
    of_a = (triples.a_a.amax(-1) - triples.a_w.amin(-1)).amax(-1)
    of_w = (triples.w_w.amax(-1) - triples.a_w.amin(-2)).amax(-1)
    return torch.maximum(of_a, of_w)


def karimov(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Theorem of Karimov 2024, for any sign of the margin and any sizes.

    $$ \|c_1 - c_2\| \le 2 \max\{m, D\}, \quad D = \max_{ik} d(x_i, w_k) $$

    `margin` may be any number at least the local one (of a label, of a data set); it must cover
    cross-collection positives.
    """
    bound = 2 * torch.maximum(resolve_margin(triples, margin), triples.max_distance)
    return UpperBound(triples.distance_same, bound, triples.scale)


def margin_plus_max(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""First step of the proof of Karimov 2024: $\|c_1 - c_2\| \le m + D$; `margin` as there."""
    bound = resolve_margin(triples, margin) + triples.max_distance
    return UpperBound(triples.distance_same, bound, triples.scale)


def chamfer(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Margin plus the directed Chamfer distance to the other label; `margin` as in `karimov`.

    $$ \|c_1 - c_2\| \le m + \frac{1}{n_1} \sum_i \min_k d(x_i, w_k) \le m + D $$
    """
    bound = resolve_margin(triples, margin) + triples.a_w.amin(-1).mean(-1)
    return UpperBound(triples.distance_same, bound, triples.scale)


def resolve_margin(triples: Triples, margin: Margin) -> Float64[Tensor, "*triple"]:
    """Return the margin given, or the local one-sided margin."""
    local = one_sided_margin(triples)
    return local if margin is None else torch.as_tensor(margin).to(local).expand_as(local)
