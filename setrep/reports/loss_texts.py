"""What each bound on a loss says in words and as a formula, for the bound-verification page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from setrep.bounds.loss_bounds import NUM_STANDARD_ERRORS

CHUANG = "Chuang et al. 2020"


@dataclass(frozen=True)
class LossText:
    """A bound on a loss: what it says, what it bounds, and where it is from."""

    name: str
    title: str
    formula: str
    text: str
    measured: str  # the value that tables show
    source: str


LOSSES = (
    LossText(
        "L1",
        "Biased negatives",
        "L_{biased} ≥ L_{unbiased} + mean_x min{0, log(E_+/E_−)} − κ/N",
        "Taking negatives from all items, of the own label too, lowers the loss by no more than "
        "this; `κ` depends on the temperature alone. Negatives are independent.",
        "L_{unbiased} + mean_x min{0, log(E_+/E_−)} − L_{biased}",
        f"{CHUANG}, Lemma 1, with a larger last term, for temperature 1; the rest is new in setrep",
    ),
    LossText(
        "L3",
        "Debiased negatives",
        "mean |L_{debiased} − limit| ≤ (e^{2/t} − 1)/2 · (1/(τ^− √N) + τ^+/(τ^− √M))",
        "How far the loss with debiased negatives is from its limit for many samples. Negatives "
        "and positives are each independent, given the anchor.",
        "mean |L_{debiased} − limit|",
        f"{CHUANG}, Theorem 3, for temperature 1; the constant is new in setrep",
    ),
    LossText(
        "L4",
        "Debiased positives, in the limit",
        "0 ≤ L_∞ − L_{positives} ≤ mean_x (log E_+ − mean log h) ≤ 1/(2t^2)",
        "How far the limit of the loss with debiased positives is below that of the unbiased loss.",
        "L_∞ − L_{positives}",
        "new in setrep",
    ),
    LossText(
        "L5",
        "Debiased positives",
        "mean |L_{positives} − limit| ≤ (e^{2/t} − 1)/(2τ^+) · (1/√N + 1/√N′)",
        "How far the loss with debiased positives is from its limit: of `N` unlabelled items and "
        "`N′ = N` negatives of other labels, each independent, with a floor under the estimate.",
        "mean |L_{positives} − limit|",
        "new in setrep",
    ),
)
# By what follows a statement's name: what the bound knows.
FORMS = {
    "": "temperature, share and counts",
    "from deviations": "and standard deviations of `h`",
    "of this mixture": "all means of this mixture",
    "as published": "as published",
    "from below": "the side below, `L_{positives} − L_∞`",
}
# A row that bounds another value than the rest of its statement.
OTHER_VALUES = {"L3, as published": "as published, of `|mean (L_{debiased} − limit)|`"}
# A count that rows share, and its sign in a formula.
COUNTS = {
    "tau_plus": "share of the label `τ^+` = {}",
    "num_negatives": "`N` = {} negatives",
    "num_positives": "`M` = {} positives",
    "num_draws": "means of {} draws",
}


def loss_texts(losses: Sequence[dict[str, Any]] | None) -> list[LossText]:
    """Return the texts of those bounds that a report has."""
    names = {statement_of(row) for row in losses or ()}
    return [text for text in LOSSES if text.name in names]


def loss_tables(losses: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Part rows into a table for each temperature, and each into groups of one statement."""
    tables: dict[Any, list[dict[str, Any]]] = {}
    for row in losses or ():
        tables.setdefault(row.get("temperature"), []).append(row)
    return [
        {"temperature": temperature, "counts": counts_of(rows), "groups": groups_of(rows)}
        for temperature, rows in tables.items()
    ]


def counts_of(rows: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """List the counts that are the same in all rows that have them."""
    found = {key: {row.get(key) for row in rows} - {None} for key in COUNTS}
    return [(COUNTS[key], values.pop()) for key, values in found.items() if len(values) == 1]


def groups_of(rows: Sequence[dict[str, Any]]) -> list[tuple[LossText, list[tuple[str, Any]]]]:
    """Gather the rows of each statement with what each knows; unknown ones stand alone."""
    texts = {text.name: text for text in LOSSES}
    groups: dict[str, list[tuple[str, Any]]] = {}
    for row in rows:
        name = str(row.get("name"))
        statement, _, form = name.partition(", ")
        known = OTHER_VALUES.get(name, FORMS.get(form, form)) if statement in texts else name
        groups.setdefault(statement_of(row), []).append((known, row))
    return [
        (texts.get(name, LossText("", name, "", "", "", "")), found)
        for name, found in groups.items()
    ]


def statement_of(row: dict[str, Any]) -> str:
    """Return the name of the statement that a row is of."""
    return str(row.get("name")).partition(", ")[0]


__all__ = ["LOSSES", "NUM_STANDARD_ERRORS", "LossText", "loss_tables", "loss_texts"]
