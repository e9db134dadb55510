r"""Upper bounds for embeddings in the convex hull of the items, such as weighted means.

$f$ is the embedding; $r_i = m + \delta_i$ and the rest as in the bounds on centroids. The labels
are the same but in `hull_upper`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import UpperBound
from setrep.bounds.margins import Margin, radii
from setrep.bounds.points import Points, finite, to_weights
from setrep.bounds.triples import Triples, length
from setrep.bounds.upper import quadratic

Distance = Float64[Tensor, "*triple"]
MASS_TOLERANCE = 1e-2  # sums of weights in half precision are off by this much


def convex(triples: Triples, value: Distance | None = None, margin: Margin = None) -> UpperBound:
    r"""Bound for every embedding in the convex hull of its items (T2c).

    $$ \|f(A) - f(B)\| \le \max_{ij} d(x_i, z_j) \le m + \max_i \delta_i $$

    `value` is the distance of the embeddings; none: the largest that any could have.
    """
    found = triples.a_b.amax((-2, -1)) if value is None else value
    return UpperBound(found, radii(triples, margin).amax(-1), triples.scale_outside)


def hull_upper(triples: Triples, value: Distance | None = None) -> UpperBound:
    r"""Bound for every convex embedding of two labels (T10): $\|f(A)-f(W)\| \le \max_{ik} d$.

    `value` is the distance of the embeddings of A and W; none: that of their centroids.
    """
    found = triples.distance_other if value is None else value
    return UpperBound(found, triples.max_distance, triples.scale_outside)


def weighted(
    triples: Triples, weights_a: Points, weights_b: Points, margin: Margin = None
) -> UpperBound:
    r"""Bound for weighted means (A1), of attention under the weights that it gave.

    $$ \Big\|\sum_i \alpha_i x_i - \sum_j \beta_j z_j\Big\|^2
       \le \sum_i \alpha_i r_i^2 - V_\alpha - V_\beta $$

    Weights `[.., n1]` and `[.., n2]` are at least 0; what their sums lack to 1 through rounding is
    made up for.

    Raises:
        InputError: weights are no such numbers.
    """
    alpha = to_weights(weights_a, triples.a, "weights_a", MASS_TOLERANCE)
    beta = to_weights(weights_b, triples.b, "weights_b", MASS_TOLERANCE)
    means = [
        torch.einsum("...i,...id->...d", p, x) for p, x in ((alpha, triples.a), (beta, triples.b))
    ]
    value = triples.unit * length(means[0] - means[1])
    apart = (triples.b - means[1].unsqueeze(-2)).square().sum(-1)
    spread_b = triples.unit * (beta * apart).sum(-1).sqrt()
    bound = quadratic(triples, radii(triples, margin), weights=alpha, spread_b=spread_b)
    return UpperBound(value, bound, triples.scale_outside)


def total_variation(triples: Triples, weights_a: Points, weights_b: Points) -> UpperBound:
    r"""Bound on weighted means by how far the weights are from even (A2).

    $$ \|f(A) - f(B)\| \le \|c_1 - c_2\| + \mathrm{TV}(\alpha) \operatorname{diam} A
       + \mathrm{TV}(\beta) \operatorname{diam} B $$

    Raises:
        InputError: weights are not as in `weighted`.
    """
    bound = triples.distance_same
    for weights, points, name in (
        (weights_a, triples.a, "weights_a"),
        (weights_b, triples.b, "weights_b"),
    ):
        share = to_weights(weights, points, name, MASS_TOLERANCE)
        uneven = (share - 1 / share.shape[-1]).abs().sum(-1) / 2
        bound = bound + uneven * triples.between(points, points).amax((-2, -1))
    return UpperBound(weighted(triples, weights_a, weights_b).value, bound, triples.scale_outside)


def softmax_variation(oscillation: float) -> float:
    r"""Return how far softmax is from even, at most (A3): $\tanh(S/4)$ of scores within $S$.

    Raises:
        InputError: $S$ is negative or not finite.
    """
    return math.tanh(finite(oscillation, "oscillation", least=0) / 4)


def attention(
    triples: Triples,
    value: Distance,
    *,
    score_lipschitz: float,
    value_norm: float = 1.0,
    margin: Margin = None,
) -> UpperBound:
    r"""Bound for attention whose weights are not known (A4).

    $$ \|f(A) - f(B)\| \le e^S \|V\| (1 + L D_\cup) \Big(m + \frac{1}{n_1} \sum_i \delta_i\Big),
       \quad S \le L D_\cup $$

    `score_lipschitz` is $L$ of the score, `value_norm` that of the value projection, $D_\cup$ the
    diameter of A and B together. `weighted` is far tighter where the weights are known.

    Raises:
        InputError: a constant is negative or not finite.
    """
    both = torch.cat([triples.a, triples.b], dim=-2)
    value_norm = finite(value_norm, "value_norm", least=0)
    reach = finite(score_lipschitz, "score_lipschitz", least=0) * triples.between(both, both).amax(
        (-2, -1)
    )
    bound = reach.exp() * value_norm * (1 + reach) * radii(triples, margin).mean(-1)
    return UpperBound(value, bound, triples.scale_outside * max(value_norm, 1.0))
