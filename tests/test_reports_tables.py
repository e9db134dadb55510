"""Results as tables that fit a terminal."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from setrep.reports import bound_tables
from setrep.reports.bound_tables import bounds_table
from setrep.reports.search import query_table
from setrep.reports.tables import class_note, evaluation_table, percent, printable, verdict
from setrep.retrieval import Match, Result
from tests.evaluations import evaluation as evaluation
from tests.evaluations import plain as plain


def test_baselines_that_are_not_beaten_are_named(evaluation):
    items = evaluation.items

    def with_map(**scores):
        found = {
            name: dataclasses.replace(
                getattr(evaluation.baselines, name),
                items=dataclasses.replace(items, map_at_r=value),
            )
            for name, value in scores.items()
        }
        own = dataclasses.replace(items, map_at_r=0.5)
        baselines = dataclasses.replace(evaluation.baselines, **found)
        return verdict(dataclasses.replace(evaluation, items=own, baselines=baselines))

    assert with_map(pixels=0.4, untrained=0.4) is None
    one = with_map(pixels=0.617, untrained=0.4)
    assert one == "Items, MAP@R: 50.0, no better than pixels (61.7)."
    both = with_map(pixels=0.5, untrained=0.6)
    assert both.endswith("no better than pixels (50.0) and the untrained encoder (60.0).")
    assert verdict(dataclasses.replace(evaluation, baselines=None)) is None


def test_unequal_classes_are_mentioned_and_equal_ones_are_not(evaluation):
    balance = {"tau_plus": 0.1234, "num_classes": 3, "effective_num_classes": 2.0}
    for smallest, is_shown in ((0.2, True), (0.39, False)):
        priors = {"smallest_class_prior": smallest, "largest_class_prior": 0.4}
        note = class_note(dataclasses.replace(evaluation, class_balance=balance | priors))
        assert (note is not None) == is_shown
        if note:
            assert "3 classes of 20.0 to 40.0 % of the items" in note
            assert "with probability 0.1234" in note
    assert class_note(evaluation) is None


def shown(table, width: int = 80) -> str:
    """Print a table as to a terminal of some width."""
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False).print(table)
    return out.getvalue()


def cells(text: str) -> str:
    """Return the words of a table without its lines and breaks."""
    return " ".join("".join(c if c.isascii() or c in "–…" else " " for c in text).split())


def test_a_percentage_has_one_decimal_and_an_absent_one_a_dash():
    assert [percent(x) for x in (0.0, 1 / 3, 1.0, None)] == ["0.0", "33.3", "100.0", "–"]


@pytest.mark.parametrize("encoder", ["convnet", "timm:vit_small_patch16_224.augreg_in21k"])
def test_an_evaluation_fits_80_columns_with_all_its_numbers(encoder, evaluation):
    result = dataclasses.replace(evaluation, encoder=encoder)
    text = shown(evaluation_table(result))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    columns = {"untrained": result.baselines.untrained, "pixels": result.baselines.pixels}
    assert all(name in text for name in columns)
    for scores in (result, *columns.values()):
        for value in (scores.items.recall_at_1, scores.items.map_at_r, scores.items.knn_top1):
            assert f" {percent(value)} " in text
        low, high = scores.collections[0].recall_at_1_ci95
        assert f"[{percent(low)}," in text
        assert f"{percent(high)}]" in text
    words = cells(text)
    for size in (1, 3):
        assert f"sets of {size}:" in words
    assert "sets of 50" not in words  # nothing to show
    assert "one-shot task" in words


def test_an_evaluation_without_baselines_or_sets_is_shown(plain):
    text = shown(evaluation_table(plain))
    assert "1 of 9 glyphs" in text
    assert "pixels" not in text


def test_names_are_shown_as_they_are(evaluation):
    note = "[bold]my[/x] :smile: photos"
    text = shown(evaluation_table(dataclasses.replace(evaluation, source_note=note)), 120)
    assert note in text


def bound_row(**changes):
    row = {
        "kind": "upper",
        "class": "a_priori",
        "applies": True,
        "why_not": None,
        "num_checked": 1_000_000,
        "num_violations": 0,
        "tightness_median": 0.8434,
        "tightness_p05": 0.2,
        "tightness_p95": 1.0,
        "slack_median": 0.1,
    }
    return row | changes


def test_bounds_fit_80_columns_with_all_their_numbers():
    nothing = dict.fromkeys(("tightness_median", "tightness_p05", "tightness_p95"))
    why = "It bounds centroids; this aggregator is 'attention'."
    report = {
        "summary": {
            "margin_plus_max": bound_row(),
            "violated": bound_row(num_violations=12_345),
            "undefined": bound_row(**nothing),
            "elsewhere": bound_row(applies=False, why_not=why, num_checked=0),
        }
    }
    text = shown(bounds_table(report))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in ("margin_plus_max", "1000000", "12345", "0.843 [0.200, 1.000]", "–"):
        assert part in text


def bound_report(**changes):
    drawn = {"num_triples": 40, "source_note": "digits", "split": "test"}
    losses = [{"name": "L1", "holds": True}, {"name": "L3", "holds": True}]
    labels = {"one": {"bound": 0.05}, "two": {"bound": 0.051}, "three": {"bound": 1.0}}
    size = {"size": 20, "error": 0.125, "is_calibrated": True, "per_label": labels}
    certificates = {"num_labels": 3, "sizes": [size | {"size": 5}, size]}
    report = {
        "sampling": drawn,
        "summary": {
            "karimov": bound_row(num_checked=40),
            "gem": bound_row(num_checked=0, applies=False),
        },
        "loss_bounds": losses,
        "retrieval_certificates": certificates,
    }
    return report | changes


def test_the_verdict_says_what_held_and_what_is_certified():
    assert list(bound_tables.verdict(bound_report())) == [
        "40 triples of digits, split test",
        "Every bound held: 40 checks on distances, 2 on losses. Attained is tightness 1.",
        "Retrieval of 20 items: error 12.5 %, certified to be at most 5 % for 1 of 3 labels.",
        "Of other aggregators: gem.",
    ]
    few = bound_report(
        loss_bounds=None, retrieval_certificates=None, summary={"q1": bound_row(num_checked=2)}
    )
    assert list(bound_tables.verdict(few))[1:] == [
        "Every bound held: 2 checks on distances. Attained is tightness 1."
    ]


def test_the_verdict_names_all_that_is_violated():
    report = bound_report(summary={"q1": bound_row(num_violations=3, num_checked=9)})
    report["loss_bounds"][1]["holds"] = False
    report["retrieval_certificates"]["sizes"][1]["is_calibrated"] = False
    assert list(bound_tables.verdict(report))[1] == (
        "VIOLATED: q1, L3 (loss), certificate at 20 items; 9 checks, 2 on losses."
    )


def test_matches_fit_80_columns_with_whole_names_and_scores():
    name = "a/very/long/" + "path" * 30
    matches = (Match(name, -1.5, "[bold]", None), Match(0, -12345.6789, 0, None))
    text = shown(query_table(Result(matches), [], None))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    column = [line.split("│")[2].strip() for line in text.splitlines() if line.count("│") == 6]
    assert name in "".join(column)
    for part in ("-1.5", "-12345.7", "[bold]", " 0 "):
        assert part in text
    zero = shown(query_table(Result((Match("a", -0.0, None, None),)), [], None))
    steered = shown(
        query_table(Result((Match("\x1b[31mred\u202e", -1.0, "\x9b1m", None),)), [], None)
    )
    assert not {"\x1b", "\x9b", "\u202e"} & set(steered)
    assert "[31mred" in steered
    assert "–" in zero
    assert "-0" not in zero


def test_letters_are_joined_as_before_and_names_without_a_code_are_shown():
    assert printable("می\u200cخواهم 👩\u200d👧 क्\u200dष") == "می\u200cخواهم 👩\u200d👧 क्\u200dष"
    assert printable("a\udc80b\ud800") == "a\ufffdb\ufffd"
    assert printable(3) == "3"
