r"""Upper bounds for embeddings that may leave the convex hull of the items.

$f$ is the embedding; $r_i = m + \delta_i$ and the rest as in the bounds on centroids.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from setrep.bounds.bound import LowerBound, UpperBound
from setrep.bounds.margins import Margin, radii
from setrep.bounds.points import EPSILON, Points, finite, power_of_two, to_numbers
from setrep.bounds.triples import Triples, length
from setrep.bounds.upper import quadratic
from setrep.errors import InputError

Distance = Float64[Tensor, "*triple"]
# Of the scale of the items; a shorter vector has no direction that a bound could speak of.
LENGTH_FLOOR = 1e-6


def normalized(inner: UpperBound, a: Points, b: Points) -> UpperBound:
    r"""Bound for embeddings of unit length (A10), from one for their embeddings before.

    $$ \|\hat f(A) - \hat f(B)\| \le \frac{2 \|f(A) - f(B)\|}{\|f(A)\| + \|f(B)\|} $$

    `a`, `b` `[.., dim]` are the embeddings before; items need no unit length.

    Raises:
        InputError: an embedding is too near to zero to have a direction.
    """
    (unit_a, length_a), (unit_b, length_b) = (
        directions(x, name, inner.scale) for x, name in ((a, "a"), (b, "b"))
    )
    bound = 2 * inner.bound / (length_a + length_b)
    value = length(unit_a - unit_b)
    return UpperBound(value, bound, scale_of_directions(inner.scale, length_a, length_b))


def normalized_lower(inner: LowerBound, a: Points, w: Points) -> LowerBound:
    r"""Lower bound for embeddings of unit length and two labels (A10).

    $$ \|\hat f(A) - \hat f(W)\|^2 \ge \frac{(h^2 - (R_1 - R_3)^2)_+}{R_1 R_3}, \quad
       R = \|f\|, \; h \le \|f(A) - f(W)\| $$

    Raises:
        InputError: as `normalized`.
    """
    (unit_a, length_a), (unit_w, length_w) = (
        directions(x, name, inner.scale) for x, name in ((a, "a"), (w, "w"))
    )
    apart = (length_a - length_w).abs() + 4 * EPSILON * (length_a + length_w)
    squared = (inner.bound - apart).clamp(min=0) / length_a * ((inner.bound + apart) / length_w)
    value = length(unit_a - unit_w)
    return LowerBound(value, squared.sqrt(), scale_of_directions(inner.scale, length_a, length_w))


def gem(triples: Triples, power: float = 3.0, margin: Margin = None) -> UpperBound:
    r"""Bound for generalised means of items that are not negative (A7), $p \ge 1$.

    $$ \|f(A) - f(B)\| \le d^{(1/2 - 1/p)_+} \Big(\frac{1}{n_1} \sum_i r_i^p\Big)^{1/p} $$

    For $p \ge 2$ and equal sizes also $n^{1/2 - 1/p} \big(\frac1n \sum_i r_i^2\big)^{1/2}$.

    Raises:
        InputError: the power is below 1 or not finite, or an item is negative.
    """
    if not 1 <= power < math.inf:
        raise InputError(f"The bound of a generalised mean takes a power from 1, not {power}.")
    means = [power_mean(triples, x, power) for x in (triples.a, triples.b)]
    value = triples.unit * length(means[0] - means[1])
    found = radii(triples, margin)
    excess = max(0.0, 0.5 - 1 / power)
    bound = triples.a.shape[-1] ** excess * mean_power(found, power)
    size = triples.a.shape[-2]
    if power >= 2 and size == triples.b.shape[-2]:
        bound = torch.minimum(bound, size**excess * mean_power(found, 2.0))
    return UpperBound(value, bound, triples.scale)


def coordinatewise(
    triples: Triples, value: Distance, *, num_parts: int = 1, margin: Margin = None
) -> UpperBound:
    r"""Bound where each coordinate is between the items' least and largest (A11).

    $$ \|f(A) - f(B)\| \le \sqrt{k d} \max_{ij} d(x_i, z_j) \le \sqrt{k d} (m + \max_i \delta_i) $$

    That is so of medians, trimmed means and the maximum; `num_parts` is $k$, how many such
    embeddings are joined, as for quantiles.
    """
    factor = math.sqrt(num_parts * triples.a.shape[-1])
    bound = factor * radii(triples, margin).amax(-1)
    return UpperBound(value, bound, factor * triples.scale_outside)


def mean_std(triples: Triples, value: Distance, margin: Margin = None) -> UpperBound:
    r"""Bound for means and standard deviations of each coordinate, joined (A12).

    $$ \|f(A) - f(B)\| \le W_2(A, B) \le \Big(\frac{1}{n_1} \sum_i r_i^2\Big)^{1/2} $$

    Under any coupling of A and B the squared difference of the means is that of the mean
    difference, and that of the deviations at most the variance of the difference.
    """
    return UpperBound(value, mean_power(radii(triples, margin), 2.0), triples.scale_outside)


def deep_sets(
    features: Triples,
    value: Distance,
    *,
    rho_lipschitz: float,
    items: Triples | None = None,
    linear_norm: float = 0.0,
    margin: Margin = None,
) -> UpperBound:
    r"""Bound for a network of the mean of features (A9), margin measured on the features.

    $$ \|f(A) - f(B)\| \le \|M\| Q_{12} + L_\rho Q_{12}^\phi, \quad f = M \bar x + \rho(\bar\phi) $$

    `features` are triples of $\phi(x)$; `items` and `linear_norm` are of the linear term, if any.

    Raises:
        InputError: a constant is negative or not finite.
    """
    found = radii(features, margin)
    rho_lipschitz = finite(rho_lipschitz, "rho_lipschitz", least=0)
    linear_norm = finite(linear_norm, "linear_norm", least=0)
    bound = rho_lipschitz * quadratic(features, found, spread_b=features.spread_b)
    scale = rho_lipschitz * features.scale_outside
    if items is not None:
        linear = quadratic(items, radii(items), spread_b=items.spread_b)
        bound, scale = bound + linear_norm * linear, scale + linear_norm * items.scale_outside
    return UpperBound(value, bound, scale)


def directions(
    x: Points, name: str, scale: Distance
) -> tuple[Float64[Tensor, "*triple dim"], Distance]:
    """Return unit vectors and lengths."""
    embeddings = to_numbers(x, name)
    unit = power_of_two(embeddings.abs().amax(-1))
    embeddings = embeddings / unit.unsqueeze(-1)
    lengths = length(embeddings)
    if not bool(have_direction(unit * lengths, scale).all()):
        raise InputError(
            f"{name} holds an embedding of length {float((unit * lengths).min()):.2g}, too near to "
            f"zero for a direction among items {float(scale.max()):.2g} apart."
        )
    return embeddings / lengths.unsqueeze(-1), unit * lengths


def have_direction(lengths: Distance, scale: Distance) -> Bool[Tensor, "*triple"]:
    """Return which embeddings are long enough for a direction, beside the scale of their items."""
    return (lengths > LENGTH_FLOOR * scale) & (lengths > 0)


def scale_of_directions(scale: Distance, one: Distance, other: Distance) -> Distance:
    """Return what rounding goes with: 1, or the scale before, in units of the lengths."""
    return torch.clamp(scale / torch.minimum(one, other), min=1.0)


def power_mean(
    triples: Triples, points: Float64[Tensor, "*triple n dim"], power: float
) -> Float64[Tensor, "*triple dim"]:
    """Return the generalised mean of each coordinate, in units of `triples.unit`."""
    items = points + (triples.origin / triples.unit.unsqueeze(-1)).unsqueeze(-2)
    if bool((items < -EPSILON).any()):
        raise InputError(
            f"The bound of a generalised mean takes items that are not negative; found "
            f"{float((triples.unit[..., None, None] * items).min()):.3g}. Clamp them first, as "
            f"the aggregator does."
        )
    items = items.clamp(min=0)
    largest = items.amax(-2, keepdim=True)
    share = items / largest.masked_fill(largest == 0, 1.0)
    return largest.squeeze(-2) * share.pow(power).mean(-2).pow(1 / power)


def mean_power(radii: Float64[Tensor, "*triple n"], power: float) -> Float64[Tensor, "*triple"]:
    """Return the generalised mean of numbers that are not negative."""
    largest = radii.amax(-1, keepdim=True)
    share = radii / largest.masked_fill(largest == 0, 1.0)
    return largest.squeeze(-1) * share.pow(power).mean(-1).pow(1 / power)
