"""`bounds.html`: what the bounds of a run claim, whether they held, and how tight they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from setrep.data.dataset import ItemDataset
from setrep.files import write_atomically
from setrep.reports import bound_plots as plots
from setrep.reports.bound_retrieval import (
    CERTIFIED,
    NUM_LABELS,
    certificate_axis,
    certificates,
    evenly,
)
from setrep.reports.bound_texts import KNOWLEDGE, MARGINS, POSITIVES, SYMBOLS, THEOREMS, Theorem
from setrep.reports.loss_texts import loss_texts, losses_by_temperature
from setrep.reports.pages import COLOURS, picture, render
from setrep.reports.typeset import formula, number, prose

NUM_DRAWN = 400  # triples, the same in each plot
NUM_LISTED = 20  # violations
NUM_TABULATED = 7  # triples
NUM_PICTURED = 10  # items of a collection
THUMBNAIL = 64  # pixels
HEADINGS = {
    "same": "Two collections of one label",
    "other": "Collections of two labels",
    "squares": "Scores of a query, in squared units",
}
CLASSIC = ("karimov", "q12", "w1")
# It takes the distance of centroids as known, so that it is near 1 and ranks nothing.
UNRANKED = ("total_variation",)

Row = dict[str, Any]


def write_page(report: dict[str, Any], dataset: ItemDataset, path: Path) -> None:
    """Write the page of a report of `verify_bounds` on the items of `dataset`.

    It stands alone: no scripts, nothing to load.
    """
    sampling = report["sampling"]
    heading = {"source_note": sampling["source_note"], "split": sampling["split"]}
    page = render(
        "bounds.html.jinja",
        report={**report, **heading},
        picture=partial(thumbnail, dataset),
        **TEXTS,
        **contents(report["rows"], report["summary"]),
        certificates=certificates(report.get("retrieval_certificates")),
        loss_texts=loss_texts(report.get("loss_bounds")),
    )
    write_atomically(path, page.encode())


def contents(rows: Sequence[Row], summary: dict[str, Any]) -> dict[str, Any]:
    """Gather what the page says of triples."""
    names = [name for name, found in summary.items() if found["num_checked"]]
    sizes = list(dict.fromkeys(size_of(row) for row in rows))
    reference = choose_reference(names, summary)
    judged = beyond_one(rows)
    overall = {name: spread([row["bounds"][name]["tightness"] for row in judged]) for name in names}
    ranked = rank(judged, reference)
    drawn = choose_drawn(rows)
    return {
        "aggregator": rows[0]["aggregator"] if rows else None,
        "dim": rows[0]["dim"] if rows else None,
        "names": names,
        "kinds": {summary[name]["kind"] for name in names},
        "num_checks": sum(summary[name]["num_checked"] for name in names),
        "violations": violations(rows),
        "sizes": sizes,
        "headlines": headlines(names, summary, overall),
        "overall": overall,
        "leaves_out_one": len(judged) < len(rows),
        "num_ranked": {name: num_ranked(rows, name) for name in names},
        "reference": reference,
        "by_size": by_size(rows, names, sizes),
        "groups": scatter_plots(drawn, names, sizes, summary),
        "num_drawn": len(drawn),
        "tabulated": evenly(ranked, NUM_TABULATED),
        "extremes": [("Tightest", ranked[-1]), ("Loosest", ranked[0])] if len(ranked) > 1 else [],
        "columns": columns(names, summary),
        "margins": {name: spread([row["margin"][name] for row in rows]) for name in MARGINS},
    }


def violations(rows: Sequence[Row]) -> list[tuple[Row, str, dict[str, Any]]]:
    """List each violated bound with its triple."""
    return [
        (row, name, entry)
        for row in rows
        for name, entry in row["bounds"].items()
        if entry["holds"] is False
    ]


def beyond_one(rows: Sequence[Row]) -> list[Row]:
    """Leave out collections of one item, where most bounds are attained, if there are others."""
    return [row for row in rows if max(row["sizes"]) > 1] or list(rows)


def num_ranked(rows: Sequence[Row], name: str) -> int:
    """Count the triples of which a bound has a tightness."""
    return sum(row["bounds"][name]["tightness"] is not None for row in rows)


def choose_reference(names: Sequence[str], summary: dict[str, Any]) -> str | None:
    """Choose the bound that triples are ranked by: `q12`, else the first upper bound."""
    upper = [name for name in names if summary[name]["kind"] == "upper"]
    return "q12" if "q12" in names else next(iter([*upper, *names]), None)


def rank(rows: Sequence[Row], reference: str | None) -> list[Row]:
    """Sort triples by how tight a bound is, the loosest first."""
    if reference is None:
        return []
    found = [row for row in rows if row["bounds"][reference]["tightness"] is not None]
    return sorted(found, key=lambda row: float(row["bounds"][reference]["tightness"]))


def headlines(
    names: Sequence[str], summary: dict[str, Any], overall: dict[str, plots.Spread | None]
) -> list[tuple[str, str]]:
    """Choose the bounds that tell how tight all are: Karimov's, and the tightest of each sort."""
    upper = [name for name in names if summary[name]["kind"] == "upper"]
    same = [name for name in upper if text_of(name).of == "same"]
    lower = [name for name in names if name not in upper and text_of(name).of == "other"]
    sorts = [
        ("Karimov's theorem", [name for name in names if name == "karimov"]),
        ("The tightest upper bound from a margin", [name for name in same if text_of(name).margin]),
        ("The tightest upper bound of all", same),
        ("The tightest lower bound", lower),
    ]
    found: dict[str, str] = {}
    for what, candidates in sorts:
        medians = {
            name: found_of[1]
            for name in candidates
            if name not in UNRANKED and (found_of := overall[name]) is not None
        }
        if medians:
            found.setdefault(max(medians, key=lambda name: medians[name]), what)
    return [(what, name) for name, what in found.items()]


def by_size(
    rows: Sequence[Row], names: Sequence[str], sizes: Sequence[str]
) -> dict[str, list[plots.Spread | None]]:
    """Return the spread of each bound's tightness at each size."""
    return {
        name: [
            spread([row["bounds"][name]["tightness"] for row in rows if size_of(row) == size])
            for size in sizes
        ]
        for name in names
    }


def spread(values: Sequence[float | None]) -> plots.Spread | None:
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
    is_bad = [any(of["holds"] is False for of in row["bounds"].values()) for row in rows]
    bad = [row for row, found in zip(rows, is_bad, strict=True) if found]
    good = [row for row, found in zip(rows, is_bad, strict=True) if not found]
    kept = evenly(bad, NUM_DRAWN)
    return kept + evenly(good, NUM_DRAWN - len(kept))


def scatter_plots(
    rows: Sequence[Row], names: Sequence[str], sizes: Sequence[str], summary: dict[str, Any]
) -> list[tuple[str, bool, list[tuple[str, Any]]]]:
    """Draw the bounds of each group on the same axes."""
    groups = []
    for of, heading in HEADINGS.items():
        points = {name: points_of(rows, name, sizes) for name in names if text_of(name).of == of}
        numbers = [
            number for of_name in points.values() for x, y, *_ in of_name for number in (x, y)
        ]
        if numbers:
            axis = plots.axis_of(numbers)
            drawn = [
                (name, plots.scatter(of_name, axis, summary[name]["kind"], name))
                for name, of_name in points.items()
            ]
            groups.append((heading, axis.is_log, drawn))
    return groups


def points_of(rows: Sequence[Row], name: str, sizes: Sequence[str]) -> list[plots.Point]:
    """Return the points of a bound's plot."""
    entries = [(sizes.index(size_of(row)), row["bounds"][name]) for row in rows]
    return [
        (entry["bound"], entry["value"], number, entry["holds"])
        for number, entry in entries
        if entry["bound"] is not None and entry["value"] is not None
    ]


def columns(names: Sequence[str], summary: dict[str, Any]) -> dict[str, list[str]]:
    """Choose the bounds that tables of triples show."""
    same = [name for name in names if text_of(name).of == "same"]
    other = [name for name in names if text_of(name).of == "other" and name != "hull_lower"]
    return {
        "same": [name for name in same if name in CLASSIC] if "karimov" in same else same,
        "other": [name for name in other if summary[name]["kind"] == "lower"],
    }


def text_of(name: str) -> Theorem:
    """Return what there is to say of a bound."""
    return THEOREMS.get(name, Theorem(name, "", "", "", None))


def thumbnail(dataset: ItemDataset, item: int) -> str | None:
    """Return a small picture of an item as a `data:` address; none for vectors."""
    if dataset.item_format.kind == "image" and max(dataset.items.shape[2:]) > THUMBNAIL:
        pixels = dataset.gather([item]).float()
        share = THUMBNAIL / max(pixels.shape[2:])
        shape = [max(1, round(share * side)) for side in pixels.shape[2:]]
        small = torch.nn.functional.interpolate(pixels, size=shape, mode="area")
        items = small.round().to(torch.uint8).numpy()
        return picture(replace(dataset.subset([item]), items=items), 0)
    return picture(dataset, item)


TEXTS = {
    "num_listed": NUM_LISTED,
    "num_pictured": NUM_PICTURED,
    "num_labels": NUM_LABELS,
    "certified": CERTIFIED,
    "colours": COLOURS,
    "knowledge": KNOWLEDGE,
    "margin_texts": MARGINS,
    "positives": POSITIVES,
    "symbols": SYMBOLS,
    "plots": plots,
    "unit": plots.Axis(0.0, 1.0, is_log=False),
    "certificate_axis": certificate_axis,
    "text": text_of,
    "losses_by_temperature": losses_by_temperature,
    "size_of": size_of,
    "number": number,
    "formula": formula,
    "prose": prose,
}
