"""What each bound on a loss says in words and as a formula, for the bound-verification page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHUANG = "Chuang et al. 2020"
# Number, title, formula, what it says with its conditions, and where it is from.
LOSSES = (
    (
        "L1",
        "Negatives of the own label",
        "L_{biased} ≥ L_{unbiased} + mean_x min{0, log(E_+/E_−)} − κ/N",
        "Taking negatives from all items, of the own label too, lowers the loss by no more than "
        "this; `κ` is a number that depends on the temperature alone. Negatives are independent.",
        f"{CHUANG}, Lemma 1, with a larger last term, for temperature 1; the rest is new in setrep",
    ),
    (
        "L3",
        "Debiased negatives",
        "mean |L_{debiased} − limit| ≤ (e^{2/t} − 1)/2 · (1/(τ^− √N) + τ^+/(τ^− √M))",
        "How far the loss with debiased negatives is from its limit for many samples. Negatives "
        "and positives are each independent, given the anchor.",
        f"{CHUANG}, Theorem 3, for temperature 1; the constant is new in setrep",
    ),
    (
        "L4",
        "Debiased positives, many samples",
        "0 ≤ L_∞ − L_{positives} ≤ mean_x (log E_+ − mean log h) ≤ 1/(2t^2)",
        "How far the limit of the loss with debiased positives is below that of the unbiased loss.",
        "new in setrep",
    ),
    (
        "L5",
        "Debiased positives",
        "mean |L_{positives} − limit| ≤ (e^{2/t} − 1)/(2τ^+) · (1/√N + 1/√N′)",
        "How far the loss with debiased positives is from its limit: of `N` unlabelled items and "
        "`N′` negatives of other labels, each independent, with a floor under the estimate.",
        "new in setrep",
    ),
)


def loss_texts(losses: Sequence[dict[str, Any]] | None) -> list[tuple[str, str, str, str, str]]:
    """Return the texts of those bounds that a report has."""
    names = [str(of.get("name")) for of in losses or ()]
    return [text for text in LOSSES if any(name.startswith(text[0]) for name in names)]


def losses_by_temperature(
    losses: Sequence[dict[str, Any]],
) -> list[tuple[float | None, list[dict[str, Any]]]]:
    """Group bounds on losses by temperature, in the order of the report."""
    found: dict[float | None, list[dict[str, Any]]] = {}
    for of in losses:
        found.setdefault(of.get("temperature"), []).append(of)
    return list(found.items())
