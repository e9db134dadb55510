"""Margins: the largest violation over triplets of anchor, positive and negative."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.triples import Triples

Margin = Float64[Tensor, "*triple"] | float | None


def one_sided_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Local margin of anchors in A with positives in B (cross-collection) and negatives in W.

    $$ m = \max_i \big( \max_j d(x_i, z_j) - \min_k d(x_i, w_k) \big) $$

    The largest violation $d(a, p) - d(a, n)$ over all triplets. The loss of the same paper is
    $(d(a, p) - d(a, n) + \alpha)_+$: at zero loss $m \le -\alpha$.
    """
    return (triples.a_b.amax(-1) - triples.nearest_other).amax(-1)


def symmetric_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Local margin $m_s$ of anchors in A or B, positives in the other (cross-collection)."""
    from_b = (triples.a_b.amax(-2) - triples.b_w.amin(-1)).amax(-1)
    return torch.maximum(one_sided_margin(triples), from_b)


def inter_class_margin(triples: Triples) -> Float64[Tensor, "*triple"]:
    r"""Two-sided margin $m_{AW}$: anchors in A or W, positives in the same collection.

    $$ m_{AW} = \max\Big\{ \max_i \big(\max_j d(x_i, x_j) - \min_k d(x_i, w_k)\big),
       \max_k \big(\max_l d(w_k, w_l) - \min_i d(x_i, w_k)\big) \Big\} $$

    It serves lower bounds between labels, never the upper bounds within one.
    """
    of_a = (triples.a_a.amax(-1) - triples.nearest_other).amax(-1)
    of_w = (triples.w_w.amax(-1) - triples.a_w.amin(-2)).amax(-1)
    return torch.maximum(of_a, of_w)


def given_or(margin: Margin, local: Float64[Tensor, "*triple"]) -> Float64[Tensor, "*triple"]:
    """Return the margin given, else the local one."""
    return local if margin is None else torch.as_tensor(margin).to(local).expand_as(local)


def radii(triples: Triples, margin: Margin = None) -> Float64[Tensor, "*triple n1"]:
    r"""Radii $r_i = m + \delta_i$ of balls about the items of A that hold every item of B.

    They are 1-Lipschitz in $x_i$. A margin below the local one, which is no margin of these
    collections, may make one negative: it counts as 0.
    """
    found = given_or(margin, one_sided_margin(triples)).unsqueeze(-1) + triples.nearest_other
    return found.clamp(min=0)
