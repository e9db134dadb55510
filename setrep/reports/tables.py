"""Results as tables for a terminal."""

from __future__ import annotations

from unicodedata import category

from rich.console import Console
from rich.table import Table

from setrep.protocols.results import CollectionResult, Evaluation, Scores

JOINERS = "\u200c\u200d"  # in Persian and Indic scripts, and in emoji


def print_table(table: Table) -> None:
    """Print a table to standard output."""
    Console(markup=False, emoji=False).print(table)  # names of files and labels as they are


def printable(name: object) -> str:
    """Return a name without what would steer its reader, or has no code.

    That is control and format characters, but for those that join letters, and what Python makes
    of names that are not UTF-8.
    """
    return "".join(
        "\ufffd" if category(one) in ("Cc", "Cf", "Cs") and one not in JOINERS else one
        for one in str(name)
    )


def print_text(text: str) -> None:
    """Print a line to standard output, broken between words where a terminal ends."""
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(text, soft_wrap=not console.is_terminal)


def percent(value: float | None) -> str:
    """Write a fraction as a percentage, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def evaluation_table(result: Evaluation) -> Table:
    """Show what was learned beside the baselines: a row for each measure, in percent."""
    columns: dict[str, Scores | None] = {
        result.encoder: Scores(result.items, result.collections, result.one_shot)
    }
    if result.baselines:
        columns |= {"untrained": result.baselines.untrained, "pixels": result.baselines.pixels}
    shown = {name: scores for name, scores in columns.items() if scores}
    protocol = result.protocol.replace("_", " ")
    table = Table(title=f"{result.source_note} ({protocol}, %)", title_justify="left")
    table.add_column("")
    for name in shown:
        table.add_column(name, justify="right", overflow="fold")
    rows = [measures(scores) for scores in shown.values()]
    if result.linear_probe:
        rows[0]["linear probe: top-1"] = percent(result.linear_probe["top1"])
    for measure in rows[0]:
        table.add_row(measure, *(row.get(measure, "–") for row in rows))
    return table


def verdict(result: Evaluation) -> str | None:
    """Say plainly which baselines the encoder does not beat."""
    if result.baselines is None or result.items is None:
        return None
    measure, name_of = "map_at_r", "MAP@R"
    if result.items.map_at_r is None:
        measure, name_of = "knn_top1", f"{result.items.knn_k}-NN top-1"
    own = getattr(result.items, measure)
    named = {"pixels": result.baselines.pixels, "the untrained encoder": result.baselines.untrained}
    found = {name: scores.items for name, scores in named.items() if scores and scores.items}
    better = [
        f"{name} ({percent(getattr(items, measure))})"
        for name, items in found.items()
        if (value := getattr(items, measure)) is not None and value >= own
    ]
    if not better:
        return None
    return f"Items, {name_of}: {percent(own)}, no better than {' and '.join(better)}."


def class_note(result: Evaluation) -> str | None:
    """Say how unequal the classes are that were trained on, where that is worth a word."""
    balance = result.class_balance
    if balance is None or balance["largest_class_prior"] < 1.5 * balance["smallest_class_prior"]:
        return None
    return (
        f"Trained on {balance['num_classes']} classes of {percent(balance['smallest_class_prior'])}"
        f" to {percent(balance['largest_class_prior'])} % of the items; two random items share one "
        f"with probability {balance['tau_plus']:.4g}. Debiased losses take classes to be equal."
    )


def measures(scores: Scores) -> dict[str, str]:
    """Name and write what was measured of one embedding."""
    items = scores.items
    out: dict[str, str] = {}
    if items:
        out = {
            "items: recall@1": percent(items.recall_at_1),
            f"items: {items.knn_k}-NN top-1": percent(items.knn_top1),
            "items: worst class top-1": percent(items.worst_class_top1),
        }
        if items.map_at_r is not None:
            out["items: MAP@R"] = percent(items.map_at_r)
    for found in scores.collections:
        if found.num_queries:
            out[f"sets of {found.size}: recall@1 [95 %]"] = with_interval(found)
            out[f"sets of {found.size}: MAP@R"] = percent(found.map_at_r)
    if scores.one_shot:
        runs = scores.one_shot.num_runs
        out[f"one-shot task, {runs} runs: error"] = percent(scores.one_shot.error_mean)
    return out


def with_interval(result: CollectionResult) -> str:
    """Write recall@1 with its interval over classes, or a dash for that."""
    if result.recall_at_1_ci95 is None:
        return f"{percent(result.recall_at_1)} [–]"
    low, high = result.recall_at_1_ci95
    return f"{percent(result.recall_at_1)} [{percent(low)}, {percent(high)}]"
