"""What the bound-verification page says of certified retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from setrep.reports import bound_plots as plots
from setrep.reports.bound_choices import evenly

NUM_LABELS = 100  # with a bound of their own in tables
NUM_PAIRED = 40  # labels, in the plot
CERTIFIED = 0.05  # probability of a wrong answer
LEAST_ERROR = 1e-6  # that is told from 0 in a plot


def certificates(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Sum up the certificates of each size over labels, those with the largest bounds first."""
    sizes = []
    for entry in (found or {}).get("sizes") or []:
        given = entry.get("per_label") or {}
        labels = dict(sorted(given.items(), key=lambda item: -(item[1].get("bound") or 0.0)))
        bounds = [one["bound"] for one in labels.values() if one.get("bound") is not None]
        pairs = [(of["bound"], of.get("error")) for of in labels.values() if of.get("bound")]
        sizes.append(
            {
                **entry,
                "means": {
                    kind: mean_of(labels, kind) for kind in ("half_space", "chernoff", "bound")
                },
                "labels": labels,
                "pairs": evenly(pairs, NUM_PAIRED),
                "num_above": sum(error is not None and error > bound for bound, error in pairs),
                "num_measured": sum(error is not None for _, error in pairs),
                "worst": max(bounds, default=entry.get("delta")),
                "num_certified": sum(bound <= CERTIFIED for bound in bounds),
                "num_empty": sum(bound >= 1 for bound in bounds),
            }
        )
    return sizes


def conclusion(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say whether errors kept to their bounds, and what the largest size certifies."""
    above = ", ".join(str(of["size"]) for of in found if not of["is_calibrated"])
    if above:
        yield f"At {above} items a measured error lies above its bound, beyond chance."
    elif any(of["num_above"] for of in found):
        yield "A measured error lies above its bound, but by no more than chance explains."
    elif any(of["num_measured"] for of in found):
        yield "No measured error lies above its bound."
    largest = max(found, key=lambda of: int(of["size"]))
    if not largest["labels"]:
        return
    size, count = largest["size"], largest["num_empty"]
    text = (
        f"At {size} item{'' if size == 1 else 's'} the error is certified to be at most "
        f"{CERTIFIED:.0%} for {largest['num_certified']:,} of {len(largest['labels']):,} labels"
    ).replace("%", " %")
    if count:
        text += f"; for {count:,} label{'' if count == 1 else 's'} the bound is 1, "
        text += "which says nothing"
    yield f"{text}."


def certificate_axis(found: Sequence[dict[str, Any]]) -> plots.Axis:
    """Choose one scale for the bounds and errors of all sizes, up to 1."""
    numbers = [number for of in found for pair in of["pairs"] for number in pair]
    return plots.axis_of(
        [min(max(number, LEAST_ERROR), 1.0) for number in numbers if number] + [1.0]
    )


def mean_of(labels: dict[str, dict[str, float | None]], kind: str) -> float | None:
    """Average a bound over labels."""
    known = [value for one in labels.values() if (value := one.get(kind)) is not None]
    return sum(known) / len(known) if known else None
