r"""Upper bounds on the distance between the centroids of two collections of one label.

$A=\{x_i\}$ and $B=\{z_j\}$ are embedded collections of one label, $W=\{w_k\}$ is one of another,
$c_1, c_2, c_3$ are their centroids, $d$ is the Euclidean distance; the sizes may differ.
`margin` may be any number at least the local one (of a label, of a data set).

Positives are **cross-collection** in every upper bound: the anchor $x_i$ is in $A$, its positive
$z_j$ in $B$. With positives of the anchor's own collection the theorem is false: $A=\{0, 0.1\}$,
$B=\{10, 10.1\}$, $W=\{2\}$ have the within-collection margin $-1.8$, which would bound
$\|c_1-c_2\|=10$ by $2\max\{-1.8, 2\}=4$.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import UpperBound
from setrep.bounds.margins import Margin, given_or, one_sided_margin, radii, symmetric_margin
from setrep.bounds.points import finite, rounding
from setrep.bounds.triples import Triples
from setrep.errors import InputError


def karimov(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Theorem of Karimov 2024 (T1), for any sign of the margin and any sizes.

    $$ \|c_1 - c_2\| \le 2 \max\{m, D\}, \quad D = \max_{ik} d(x_i, w_k) $$
    """
    m = given_or(triples, margin, one_sided_margin)
    return same(triples, 2 * torch.maximum(m, triples.max_distance))


def margin_plus_max(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""First step of the proof of Karimov 2024 (T1): $\|c_1 - c_2\| \le m + D$."""
    return same(triples, given_or(triples, margin, one_sided_margin) + triples.max_distance)


def chamfer(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Margin plus the directed Chamfer distance to the other label (T2).

    $$ \|c_1 - c_2\| \le m + \frac{1}{n_1} \sum_i \min_k d(x_i, w_k) \le m + D $$
    """
    m = given_or(triples, margin, one_sided_margin)
    return same(triples, m + triples.nearest_other.mean(-1))


def q1(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Quadratic bound (T3), never above `chamfer` (T3c); of B it needs the margin alone.

    $$ \|c_1 - c_2\|^2 \le Q_1^2 = \frac{1}{n_1} \sum_i r_i^2 - V_1, \quad r_i = m + \delta_i $$
    """
    return same(triples, quadratic(triples, radii(triples, margin)))


def q12(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Quadratic bound with the spread of B (T3), never above `q1`.

    $$ \|c_1 - c_2\|^2 \le Q_{12}^2 = \frac{1}{n_1} \sum_i r_i^2 - V_1 - V_2 $$
    """
    return same(triples, quadratic(triples, radii(triples, margin), spread_b=triples.spread_b))


def multi_negative(
    triples: Sequence[Triples], margins: Sequence[Margin] | None = None
) -> UpperBound:
    r"""Quadratic bound from several collections of other labels (T5).

    $$ r_i = \min_l (m^l + \delta^l(x_i)), \quad
       \|c_1 - c_2\|^2 \le \frac{1}{n_1} \sum_i r_i^2 - V_1 - V_2 $$

    `triples` hold the same A and B, each with another W. Never above `q12` of all W together.

    Raises:
        InputError: there are none, they differ in A or B, or margins are not one for each.
    """
    if not triples:
        raise InputError("multi_negative takes triples with at least one W; found none.")
    first = triples[0]
    if any(
        other.a_b.shape != first.a_b.shape or not torch.equal(other.a_b, first.a_b)
        for other in triples
    ):
        raise InputError(
            "multi_negative takes triples that hold the same A and B; found different ones."
        )
    given = [None] * len(triples) if margins is None else margins
    if len(given) != len(triples):
        raise InputError(
            f"multi_negative takes a margin for each of {len(triples)} W; found {len(given)}."
        )
    each = [radii(one, margin) for one, margin in zip(triples, given, strict=True)]
    scale = torch.stack([one.scale for one in triples]).amax(0)
    bound = quadratic(first, torch.stack(each).amin(0), spread_b=first.spread_b, scale=scale)
    return UpperBound(first.distance_same, bound, scale)


def symmetric(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Quadratic bound from both collections (T4b); `margin` is at least the symmetric one.

    $$ \|c_1 - c_2\|^2 \le \frac{1}{n_1 n_2} \sum_{ij} r_{ij}^2 - V_1 - V_2, \quad
       r_{ij} = m_s + \min(\delta(x_i), \delta(z_j)) $$

    As $m_s \ge m$, neither it nor `q12` is always the tighter one.
    """
    m = given_or(triples, margin, symmetric_margin)[..., None, None]
    nearest = torch.minimum(triples.nearest_other.unsqueeze(-1), triples.b_w.amin(-1).unsqueeze(-2))
    unit = triples.unit
    pairs = (m + nearest).clamp(min=0) / unit[..., None, None]
    v1, v2, scale = (x / unit for x in (triples.spread_a, triples.spread_b, triples.scale))
    squared = pairs.square().mean((-2, -1)) - v1.square() - v2.square()
    lost = (
        scale * (pairs.amax((-2, -1)) + v1 + v2) * rounding(sum(pairs.shape[-2:]), dim_of(triples))
    )
    return same(triples, unit * (squared.clamp(min=0) + lost).sqrt())


def symmetric_chamfer(triples: Triples, margin: Margin = None) -> UpperBound:
    r"""Linear bound from both collections (T4a); `margin` is at least the symmetric one.

    $$ \|c_1 - c_2\| \le W_1(A, B)
       \le m_s + \int_0^1 \min\{F_{\delta(A)}^{-1}(u), F_{\delta(B)}^{-1}(1-u)\} du $$

    The largest distances of one collection to W are paired with the smallest of the other.
    """
    m = given_or(triples, margin, symmetric_margin)
    of_a = triples.nearest_other.sort(dim=-1).values
    of_b = triples.b_w.amin(-1).sort(dim=-1, descending=True).values
    n1, n2 = of_a.shape[-1], of_b.shape[-1]
    # In units of 1 / (n1 n2), where either quantile function steps.
    steps = torch.tensor(sorted({*range(0, n1 * n2, n2), *range(0, n1 * n2, n1)}))
    lengths = torch.diff(steps, append=torch.tensor([n1 * n2])).double() / (n1 * n2)
    paired = torch.minimum(of_a[..., steps // n2], of_b[..., steps // n1])
    return same(triples, m + (paired * lengths).sum(-1))


def mean_loss(triples: Triples, loss_margin: float = 0.0) -> UpperBound:
    r"""Bound from the mean triplet loss over all triplets of the collections (T6).

    $$ \|c_1 - c_2\| \le \overline{d(x, w)} - \alpha + L, \quad
       L = \overline{(d(x_i, z_j) - d(x_i, w_k) + \alpha)_+} $$

    It holds for every $\alpha$, the `loss_margin`. The two sum to
    $\overline{\max\{d(x_i, z_j), d(x_i, w_k) - \alpha\}}$, in which a large $\alpha$ cancels.

    Raises:
        InputError: the margin is not finite.
    """
    negatives = triples.a_w - finite(loss_margin, "loss_margin")
    return same(triples, triples.a_b.mean((-2, -1)) + mean_hinge(negatives, triples.a_b))


def batch_hard(triples: Triples, loss_margin: float = 0.0) -> UpperBound:
    r"""Bound from the mean batch-hard triplet loss of the collections (T6).

    $$ \|c_1 - c_2\| \le \overline{\delta} - \alpha + L, \quad
       L = \overline{(\max_j d(x_i, z_j) - \delta_i + \alpha)_+} $$

    It holds for every $\alpha$, the `loss_margin`, and is no looser than `chamfer` from
    $\alpha = -m$ on. The two sum to $\overline{\max\{\max_j d(x_i, z_j), \delta_i - \alpha\}}$.

    Raises:
        InputError: the margin is not finite.
    """
    negatives = triples.nearest_other - finite(loss_margin, "loss_margin")
    return same(triples, torch.maximum(triples.a_b.amax(-1), negatives).mean(-1))


def mean_distance(triples: Triples) -> UpperBound:
    r"""Mean distance between items (T2): $\|c_1 - c_2\| \le \overline{d(x_i, z_j)}$."""
    return same(triples, triples.a_b.mean((-2, -1)))


def same(triples: Triples, bound: Float64[Tensor, "*triple"]) -> UpperBound:
    """Bound the distance of the centroids of A and B."""
    return UpperBound(triples.distance_same, bound, triples.scale)


def dim_of(triples: Triples) -> int:
    """Return the dimensions of the points."""
    return triples.a.shape[-1]


def mean_hinge(
    x: Float64[Tensor, "*triple n1 m"], y: Float64[Tensor, "*triple n1 n"]
) -> Float64[Tensor, "*triple"]:
    r"""Return the mean of $(x_{ij} - y_{ik})_+$, without the numbers of all triplets."""
    y = y.sort(dim=-1).values
    sums = torch.nn.functional.pad(y.cumsum(-1), (1, 0))
    below = torch.searchsorted(y, x.contiguous())
    excess = below * x - sums.gather(-1, below)
    return excess.clamp(min=0).mean((-2, -1)) / y.shape[-1]


def quadratic(
    triples: Triples,
    radii: Float64[Tensor, "*triple n1"],
    *,
    weights: Float64[Tensor, "*triple n1"] | None = None,
    spread_b: Float64[Tensor, "*triple"] | None = None,
    scale: Float64[Tensor, "*triple"] | None = None,
) -> Float64[Tensor, "*triple"]:
    r"""Return $\sqrt{\sum_i \alpha_i r_i^2 - V_\alpha - V_2}$, at most $\sum_i \alpha_i r_i$.

    Radii are 1-Lipschitz, so with $\bar r = \sum_i \alpha_i r_i$ no term of

    $$ \bar r^2 - \tfrac12 \sum_{ij} \alpha_i \alpha_j
       (d(x_i, x_j)^2 - (r_i - r_j)^2) - V_2 $$

    but the last cancels; this is the same number (T3c). What rounding may take is added, but never
    so much that the order of the bounds is lost.
    """
    unit, num_items = triples.unit, radii.shape[-1]
    if weights is None:
        weights = torch.full_like(radii, 1 / num_items)
    r = radii / unit.unsqueeze(-1)
    apart = triples.a_a / unit[..., None, None]
    differences = (r.unsqueeze(-1) - r.unsqueeze(-2)).abs()
    terms = ((apart - differences) * (apart + differences)).clamp(min=0)
    mean = (weights * r).sum(-1)
    squared = mean.square() - torch.einsum("...i,...ij,...j->...", weights, terms, weights) / 2
    share = rounding(num_items + triples.b.shape[-2], dim_of(triples))
    error = share * (triples.scale if scale is None else scale) / unit
    reach = mean + apart.amax((-2, -1))
    found = torch.minimum((squared.clamp(min=0) + error * reach).sqrt(), mean)
    if spread_b is not None:
        spread = spread_b / unit
        less = (squared - spread.square()).clamp(min=0) + error * (reach + spread)
        found = torch.minimum(less.sqrt(), found)
    return unit * found
