"""What an estimate of `tau_plus` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassBalance:
    """How equal the classes are, which debiased losses take for granted: one prior for all."""

    num_classes: int  # among the labels given
    effective_num_classes: float  # 1 / tau_plus: so many equal classes have the same prior
    smallest_class_prior: float
    largest_class_prior: float


@dataclass(frozen=True)
class PriorEstimate:
    """A value of `tau_plus` and the interval around it."""

    value: float
    interval: tuple[float, float]
    class_balance: ClassBalance | None = None  # where labels are known
