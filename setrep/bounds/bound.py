"""What every bound returns: a measured value, its bound, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

# A bound holds when the value is on its side of bound, give or take
# RELATIVE * |bound| + ABSOLUTE * (largest distance).
RELATIVE_TOLERANCE = 1e-9
ABSOLUTE_TOLERANCE = 1e-11


@dataclass(frozen=True, eq=False)
class Bound:
    """A measured value, the bound that it must keep to, and the scale that rounding goes with.

    `scale` is the largest distance between two items; for bounds on squares, its square.
    """

    kind: ClassVar[Literal["upper", "lower"]]
    value: Float64[Tensor, "*triple"]
    bound: Float64[Tensor, "*triple"]
    scale: Float64[Tensor, "*triple"]

    @property
    def slack(self) -> Float64[Tensor, "*triple"]:
        """How far the value may still move; negative where the bound is violated."""
        raise NotImplementedError

    @property
    def tightness(self) -> Float64[Tensor, "*triple"]:
        """Smaller over larger side, 1 when attained; NaN where that says nothing."""
        raise NotImplementedError

    @property
    def tolerance(self) -> Float64[Tensor, "*triple"]:
        """How far the value may be beyond the bound through rounding."""
        relative = RELATIVE_TOLERANCE * self.bound.abs().masked_fill(self.bound.isinf(), 0.0)
        return relative + ABSOLUTE_TOLERANCE * self.scale

    @property
    def holds(self) -> Bool[Tensor, "*triple"]:
        """Whether the value keeps to the bound."""
        return self.slack >= -self.tolerance

    def ratio(
        self, part: Float64[Tensor, "*triple"], whole: Float64[Tensor, "*triple"]
    ) -> Float64[Tensor, "*triple"]:
        """Divide where the whole is more than rounding; above 1 only where a bound is violated."""
        is_defined = whole > 100 * ABSOLUTE_TOLERANCE * self.scale
        found = part / whole
        found = torch.where(self.holds, found.clamp(max=1), found)
        return torch.where(is_defined, found, torch.nan)


@dataclass(frozen=True, eq=False)
class UpperBound(Bound):
    """A value that must not exceed its bound."""

    kind = "upper"

    @property
    def slack(self) -> Float64[Tensor, "*triple"]:
        """Bound minus value."""
        return self.bound - self.value

    @property
    def tightness(self) -> Float64[Tensor, "*triple"]:
        """Value over bound, 1 when attained; NaN where the bound is nothing but rounding."""
        return self.ratio(self.value, self.bound)


@dataclass(frozen=True, eq=False)
class LowerBound(Bound):
    """A value that must not fall below its bound; a bound of 0 on a distance says nothing."""

    kind = "lower"

    @property
    def slack(self) -> Float64[Tensor, "*triple"]:
        """Value minus bound."""
        return self.value - self.bound

    @property
    def tightness(self) -> Float64[Tensor, "*triple"]:
        """Bound over value, 1 when attained; NaN where the value is rounding or below 0.

        A bound below 0, which says nothing, counts as 0.
        """
        return self.ratio(self.bound.clamp(min=0), self.value)
