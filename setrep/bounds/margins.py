"""Margins: the largest violation over triplets of anchor, positive and negative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from setrep.bounds.bound import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from setrep.bounds.triples import Triples
from setrep.errors import InputError

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


def given_or(
    triples: Triples, margin: Margin, measure: Callable[[Triples], Float64[Tensor, "*triple"]]
) -> Float64[Tensor, "*triple"]:
    """Return the local margin that `measure` finds, or a given one that is no smaller.

    Raises:
        InputError: the given margin is not finite, or below the local one by more than rounding.
    """
    local = measure(triples)
    if margin is None:
        return local
    given = torch.as_tensor(margin).to(local).expand_as(local)
    allowed = RELATIVE_TOLERANCE * local.abs() + ABSOLUTE_TOLERANCE * triples.scale
    if not bool((given.isfinite() & (given >= local - allowed)).all()):
        place = (given - local).nan_to_num(nan=-torch.inf).argmin()
        raise InputError(
            f"A margin must be finite and at least that of the collections, "
            f"{float(local.flatten()[place]):.6g}; found {float(given.flatten()[place]):.6g}. "
            f"The margin of a loss has the opposite sign: at zero loss m is at most minus it."
        )
    return given


def radii(triples: Triples, margin: Margin = None) -> Float64[Tensor, "*triple n1"]:
    r"""Radii $r_i = m + \delta_i$ of balls about the items of A that hold every item of B.

    They are 1-Lipschitz in $x_i$, and 0 where a given margin is below the local one by rounding.

    Raises:
        InputError: as `given_or`.
    """
    found = given_or(triples, margin, one_sided_margin).unsqueeze(-1) + triples.nearest_other
    return found.clamp(min=0)
