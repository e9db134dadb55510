"""What the bound-verification page says of certified retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from setrep.reports import bound_plots as plots

NUM_LABELS = 100  # with a bound of their own
CERTIFIED = 0.05  # probability of a wrong answer
LEAST_ERROR = 1e-6  # that is told from 0 in a plot


def certificates(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Sum up the certificates of each size over labels, those with the largest bounds first."""
    sizes = []
    for entry in (found or {}).get("sizes") or []:
        given = entry.get("per_label") or {}
        labels = dict(sorted(given.items(), key=lambda item: -(item[1].get("bound") or 0.0)))
        bounds = [one["bound"] for one in labels.values() if one.get("bound") is not None]
        worst = max(bounds, default=entry.get("delta"))
        errors = [one["error"] for one in labels.values() if one.get("error") is not None]
        sizes.append(
            {
                **entry,
                "means": {
                    kind: mean_of(labels, kind) for kind in ("half_space", "chernoff", "bound")
                },
                "labels": labels,
                "bounds": evenly(bounds, NUM_LABELS),
                "worst": worst,
                "errors": evenly(errors, NUM_LABELS),
                "num_certified": sum(bound <= CERTIFIED for bound in bounds),
                "num_silent": sum(bound >= 1 for bound in bounds),
                "is_above": not entry.get("is_calibrated", True),
            }
        )
    return sizes


def certificate_axis(certificates: Sequence[dict[str, Any]]) -> plots.Axis:
    """Choose one scale for the bounds and errors of all sizes, up to 1."""
    numbers = [number for of in certificates for number in (*of["bounds"], *of["errors"])]
    return plots.axis_of(
        [min(max(number, LEAST_ERROR), 1.0) for number in numbers if number] + [1.0]
    )


def mean_of(labels: dict[str, dict[str, float | None]], kind: str) -> float | None:
    """Average a bound over labels."""
    known = [value for one in labels.values() if (value := one.get(kind)) is not None]
    return sum(known) / len(known) if known else None


def evenly(given: Sequence[Any], count: int) -> list[Any]:
    """Take some of a sequence, evenly, both ends among them."""
    if len(given) <= count:
        return list(given)
    return [given[round(place)] for place in np.linspace(0, len(given) - 1, count)]
