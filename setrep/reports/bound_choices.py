"""What the bound-verification page shows of its triples: spreads, rankings, and whom to name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from setrep.reports.bound_plots import Spread
from setrep.reports.bound_texts import text_of

NUM_DRAWN = 400  # triples, the same in each plot
CLASSIC = ("karimov", "q12", "w1")
# It takes the distance of centroids as known, so that it is near 1 and ranks nothing.
UNRANKED = ("total_variation",)
ABOVE_Q12 = ("karimov", "margin_plus_max", "chamfer", "q1")

Row = dict[str, Any]


def telling(rows: Sequence[Row]) -> list[Row]:
    """Leave out triples of single items, whose bounds are attained, where others are."""
    return [row for row in rows if max(row["sizes"]) > 1] or list(rows)


def violations(rows: Sequence[Row]) -> list[tuple[Row, str, dict[str, Any]]]:
    """List each violated bound with its triple."""
    return [
        (row, name, entry)
        for row in rows
        for name, entry in row["bounds"].items()
        if not entry["holds"]
    ]


def choose_reference(names: Sequence[str], summary: dict[str, Any]) -> tuple[str | None, str]:
    """Choose the bound that triples are ranked by, `q12` or the first upper one; say why."""
    upper = [name for name in names if summary[name]["kind"] == "upper"]
    if "q12" not in names:
        side = "upper bound" if upper else "bound"
        return next(iter([*upper, *names]), None), f"the first {side} that applies"
    others = [name for name in ABOVE_Q12 if name in names]
    if not others:
        return "q12", "the smallest bound from the margin m"
    listed = " or ".join([", ".join(others[:-1])] * (len(others) > 1) + others[-1:])
    return "q12", f"the smallest bound from the margin m: never above {listed}"


def rank(rows: Sequence[Row], reference: str | None) -> list[Row]:
    """Sort triples by how tight a bound is, the loosest first."""
    if reference is None:
        return []
    found = [row for row in rows if row["bounds"][reference]["tightness"] is not None]
    return sorted(found, key=lambda row: float(row["bounds"][reference]["tightness"]))


def headlines(
    rows: Sequence[Row], names: Sequence[str], summary: dict[str, Any]
) -> list[tuple[str, str, Spread]]:
    """Choose the bounds that tell how tight all are: Karimov's, and the tightest of each sort."""
    tightness = {name: spread(tightness_of(rows, name)) for name in names}
    upper = [name for name in names if summary[name]["kind"] == "upper"]
    same = [name for name in upper if text_of(name).of == "same"]
    lower = [name for name in names if name not in upper and text_of(name).of == "other"]
    sorts = [
        ("Karimov's theorem", [name for name in names if name == "karimov"]),
        ("The tightest upper bound from a margin", [name for name in same if text_of(name).margin]),
        ("The tightest upper bound of all", same),
        ("The tightest lower bound", lower),
    ]
    found: dict[str, tuple[str, str, Spread]] = {}
    for what, candidates in sorts:
        kept = [(of, name) for name in candidates if name not in UNRANKED and (of := tightness[name])]
        if kept:
            of, best = max(kept, key=lambda pair: pair[0][1])
            found.setdefault(best, (what, best, of))
    return list(found.values())


def by_size(
    rows: Sequence[Row], names: Sequence[str], sizes: Sequence[str]
) -> dict[str, list[Spread | None]]:
    """Return the spread of each bound's tightness at each size."""
    return {
        name: [
            spread(tightness_of([row for row in rows if size_of(row) == size], name))
            for size in sizes
        ]
        for name in names
    }


def partial(rows: Sequence[Row], names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count for bounds without tightness of some triples those with it, and those without."""
    known = {name: len([t for t in tightness_of(rows, name) if t is not None]) for name in names}
    return {name: (count, len(rows) - count) for name, count in known.items() if count < len(rows)}


def tightness_of(rows: Sequence[Row], name: str) -> list[float | None]:
    """Return how tight a bound is on each triple, none where that says nothing."""
    return [row["bounds"][name]["tightness"] for row in rows]


def spread(values: Sequence[float | None]) -> Spread | None:
    """Return the 5th, 50th and 95th percentile, or none of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, middle, high = np.percentile(known, [5, 50, 95]).tolist()
    return low, middle, high


def size_of(row: Row) -> str:
    """Name the size of a triple's collections."""
    return ", ".join(str(size) for size in dict.fromkeys(row["sizes"]))


def choose_drawn(rows: Sequence[Row]) -> list[Row]:
    """Choose triples to draw, evenly, those with a violated bound before all others."""
    is_bad = [not all(entry["holds"] for entry in row["bounds"].values()) for row in rows]
    bad = [row for row, found in zip(rows, is_bad, strict=True) if found]
    good = [row for row, found in zip(rows, is_bad, strict=True) if not found]
    kept = evenly(bad, NUM_DRAWN)
    return kept + evenly(good, NUM_DRAWN - len(kept))


def evenly(given: Sequence[Any], count: int) -> list[Any]:
    """Take some of a sequence, evenly, both ends among them."""
    if len(given) <= count:
        return list(given)
    return [given[round(place)] for place in np.linspace(0, len(given) - 1, count)]


def columns(names: Sequence[str], summary: dict[str, Any]) -> dict[str, list[str]]:
    """Choose the bounds that tables of triples show."""
    same = [name for name in names if text_of(name).of == "same"]
    other = [name for name in names if text_of(name).of == "other" and name != "hull_lower"]
    return {
        "same": [name for name in same if name in CLASSIC] if "karimov" in same else same,
        "other": [name for name in other if summary[name]["kind"] == "lower"],
    }
