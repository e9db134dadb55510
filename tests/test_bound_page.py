"""The page of a bound verification: what it says equals the report, and it stands alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from markupsafe import Markup

from setrep.aggregators import build_aggregator
from setrep.data.dataset import ItemDataset
from setrep.item_format import ItemFormat
from setrep.protocols.bound_statements import STATEMENTS
from setrep.protocols.bounds import count_violations, verify_bounds
from setrep.reports import bound_page, bound_plots, runs
from setrep.reports.bound_page import write_page
from setrep.reports.bound_texts import MARGINS, THEOREMS
from setrep.reports.bounds import verify_bounds as report_bounds
from setrep.reports.loss_texts import LOSSES
from setrep.reports.pages import picture
from setrep.reports.typeset import formula, number, prose
from tests.evaluations import glyphs

DIM = 6
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tables of a page as rows of text, what is in its verdict, and whether tags nest."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.open = html, []
        self.tables: list[list[list[str]]] = []
        self.verdict = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        classes = (dict(attrs).get("class") or "").split()
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append((tag, classes))

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if {"td", "th"} & set(tags):
            self.tables[-1][-1][-1] += data
        if any("verdict" in classes for _, classes in self.open):
            self.verdict += data

    def table(self, *headings: str) -> list[dict[str, str]]:
        """Return the first table with these headings, a dict for each row."""
        for head, *rows in self.tables:
            if set(headings) <= set(head):
                return [dict(zip(head, row, strict=True)) for row in rows]
        raise AssertionError(f"no table has {headings}")


def images(num_labels: int = 4, *, has_keys: bool = False, name: str = "glyph 0") -> ItemDataset:
    dataset = glyphs(num_labels, 24)
    dataset = dataclasses.replace(dataset, label_names=(name, *dataset.label_names[1:]))
    if not has_keys:
        return dataset
    keys = np.arange(len(dataset)) // 6
    names = tuple(f"part {key}" for key in range(keys.max() + 1))
    return dataclasses.replace(dataset, keys=keys, key_names=names, collection_level="part")


def vectors() -> ItemDataset:
    items = np.random.default_rng(0).normal(size=(96, DIM)).astype(np.float32)
    return dataclasses.replace(images(), items=items, item_format=ItemFormat("vector", DIM, 1))


def report_of(dataset: ItemDataset, aggregator: str = "centroid", **options) -> dict:
    generator = np.random.default_rng(1)
    spread = generator.normal(size=(len(dataset), DIM)) + 3 * np.eye(DIM)[dataset.labels]
    torch.manual_seed(0)
    built = build_aggregator(aggregator, DIM).eval()
    settings = {"sizes": (2, 4), "max_triples": 60, "run": "tried"} | options
    report = verify_bounds(torch.from_numpy(spread).float(), dataset, built, **settings)
    return report | {"retrieval_certificates": None, "loss_bounds": None}


def html_of(report: dict, dataset: ItemDataset, tmp_path) -> str:
    write_page(report, dataset, tmp_path / "bounds.html")
    return (tmp_path / "bounds.html").read_text()


def violate(report: dict, *places: tuple[int, str]) -> dict:
    """Return the report with some bounds violated by a tenth."""
    broken = copy.deepcopy(report)
    for place, name in places:
        entry = broken["rows"][place]["bounds"][name]
        sign = 1 if broken["summary"][name]["kind"] == "upper" else -1
        entry |= {"value": entry["bound"] + sign * 0.1, "slack": -0.1, "holds": False}
        broken["summary"][name]["num_violations"] += 1
    return broken


@pytest.fixture(scope="module")
def report():
    return report_of(images())


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return Page(html_of(report, images(), tmp_path_factory.mktemp("page")))


def plots_of(html: str) -> dict[str, str]:
    """Return the scatter plots of a page by the names of their bounds."""
    found = re.findall(r'<svg class="scatter".*?</svg>', html, re.DOTALL)
    return {re.search(r'aria-label="(\w+):', plot)[1]: plot for plot in found}


def test_the_page_stands_alone(page):
    assert "http" not in page.html
    assert not re.search(r'(src|href)="(?!data:|#)', page.html)
    assert not re.search(r"<script|<link|<iframe|@import|url\(|\bon\w+=", page.html)
    ids = set(re.findall(r'id="([^"]+)"', page.html))
    assert set(re.findall(r'href="#([^"]+)"', page.html)) <= ids
    assert "undefined" not in page.html.lower()
    assert "None" not in page.html


@pytest.mark.parametrize("aggregator", ["centroid", "attention", "gem", "directional_mean", "pma"])
def test_every_bound_is_named_with_its_statement_or_why_it_does_not_apply(aggregator, tmp_path):
    report = report_of(images(), aggregator)
    html = html_of(report, images(), tmp_path)
    Page(html)
    assert set(plots_of(html)) == set(report["rows"][0]["bounds"])
    for name, found in report["summary"].items():
        if found["applies"]:
            assert f'id="{name}"' in html
            assert formula(THEOREMS[name].formula) in html
        else:
            assert f"<dt>{name}</dt><dd>{Markup.escape(found['why_not'])}</dd>" in html


def test_texts_are_of_the_bounds_that_are_verified_and_of_their_side():
    assert list(THEOREMS) == list(STATEMENTS)
    for name, text in THEOREMS.items():
        is_upper = STATEMENTS[name].kind == "upper"
        assert ("≤" in text.formula, "≥" in text.formula) == (is_upper, not is_upper), name
        assert ("m_{AW}" in text.formula) == (text.margin == "inter_class"), name
        assert ("m_s" in text.formula) == (text.margin == "symmetric"), name
        if text.margin == "one_sided":
            assert re.search(r"\bm\b|r_i|U|Q_|m_l", text.formula), name
        if text.of != "squares":
            assert (text.of == "same") == bool(re.search(r"c_2|f\(B\)", text.formula)), name
        assert text.text.endswith("."), name
        assert text.source.split(" (")[0].partition(":")[0].startswith(("Karimov", "st", "new"))


def test_a_run_without_violations_is_said_to_hold(page, report):
    verdict = " ".join(page.verdict.split())
    num_bounds = len(report["rows"][0]["bounds"])
    assert num_bounds == 19
    assert verdict == (
        f"Every bound held 60 triples, {num_bounds} bounds, {60 * num_bounds:,} checks, "
        f"0 violations."
    )
    assert 'class="verdict good"' in page.html
    assert 'class="cross"' not in page.html


def test_violations_are_counted_listed_and_drawn(report, tmp_path):
    broken = violate(report, (3, "karimov"), (40, "q12"), (41, "q12"), (7, "hull_lower"))
    page = Page(html_of(broken, images(), tmp_path))
    assert "4 violations" in page.verdict
    assert "karimov (1 of 60), q12 (2 of 60), hull_lower (1 of 60)" in page.verdict
    assert 'class="verdict bad"' in page.html
    listed = page.table("must be", "slack")
    assert [(row["triple"], row["bound"]) for row in listed] == [
        ("3", "karimov"),
        ("7", "hull_lower"),
        ("40", "q12"),
        ("41", "q12"),
    ]
    assert [row["must be"] for row in listed] == ["at most", "at least", "at most", "at most"]
    assert {row["slack"] for row in listed} == {"−0.100"}
    drawn = {name: plot.count("m-4-4") for name, plot in plots_of(page.html).items()}
    assert {name: n for name, n in drawn.items() if n} == {"karimov": 1, "q12": 2, "hull_lower": 1}
    row = next(row for row in page.table("bound", "kind", "class") if row["bound"] == "q12")
    assert row["violations"] == "2"


def test_of_many_violations_the_first_are_listed(report, tmp_path):
    page = Page(html_of(violate(report, *((n, "w1") for n in range(30))), images(), tmp_path))
    assert len(page.table("must be")) == 20
    assert "The first 20 of 30 violations; all are in bounds.json." in page.html


def test_one_violation_and_no_bound_at_all_are_said_as_they_are(report, tmp_path):
    assert "1 violation\n" in Page(html_of(violate(report, (0, "q1")), images(), tmp_path)).verdict
    nothing = Page(html_of(report_of(images(), "pma"), images(), tmp_path))
    assert "Nothing was checked" in nothing.verdict
    assert "No bound applies to the aggregator pma." in nothing.verdict
    assert 'class="verdict empty"' in nothing.html
    assert "<svg class=" not in nothing.html


def test_labels_and_runs_are_escaped(tmp_path):
    dataset = images(name=HOSTILE, has_keys=True)
    dataset = dataclasses.replace(dataset, key_names=('"><b onclick=1>', *dataset.key_names[1:]))
    report = violate(report_of(dataset, run=HOSTILE), *((n, "q1") for n in range(60)))
    report["retrieval_certificates"] = {
        "sizes": [{"size": 1, "per_label": {HOSTILE: {"bound": 0.5}}}],
        "rule": HOSTILE,
    }
    report["loss_bounds"] = [{"name": HOSTILE, "conditions": HOSTILE, HOSTILE: HOSTILE}]
    html = html_of(report, dataset, tmp_path)
    Page(html)
    assert "<script" not in html
    assert "<b onclick" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 6


def test_tables_say_what_the_report_says(page, report):
    rows = page.table("bound", "kind", "class")
    names = [name for name, found in report["summary"].items() if found["applies"]]
    assert [row["bound"] for row in rows] == names
    for row in rows:
        found = report["summary"][row["bound"]]
        low, middle, high = (found[f"tightness_{key}"] for key in ("p05", "median", "p95"))
        assert row["kind"] == found["kind"]
        assert row["class"] == found["class"].replace("_", " ")
        assert (row["checked"], row["violations"]) == ("60", "0")
        assert row["tightness"] == f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        assert float(row["median slack"]) == pytest.approx(found["slack_median"], rel=5e-3)
    by_size = {row["bound"]: row for row in page.table("bound", "2 items", "4 items")}
    for name in names:
        for size in (2, 4):
            tightness = [
                row["bounds"][name]["tightness"]
                for row in report["rows"]
                if row["sizes"][0] == size and row["bounds"][name]["tightness"] is not None
            ]
            low, middle, high = np.percentile(tightness, [5, 50, 95])
            assert by_size[name][f"{size} items"] == f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def test_some_triples_are_tabled_as_karimov_did_from_the_loosest_to_the_tightest(page, report):
    rows = page.table("triple", "D", "m", "karimov, 2 max{m, D}", "q12", "w1")
    ranked = sorted(report["rows"], key=lambda row: row["bounds"]["q12"]["tightness"])
    assert len(rows) == 7
    assert int(rows[0]["triple"]) == ranked[0]["triple"]
    assert int(rows[-1]["triple"]) == ranked[-1]["triple"]
    for row in rows:
        found = report["rows"][int(row["triple"])]
        close = {"rel": 5e-3}
        assert float(row["d(c1, c2)"]) == pytest.approx(found["distance_same"], **close)
        assert float(row["D"]) == pytest.approx(found["max_distance"], **close)
        assert signed(row["m"]) == pytest.approx(found["margin"]["one_sided"], **close)
        bound = found["bounds"]["karimov"]["bound"]
        assert float(row["karimov, 2 max{m, D}"]) == pytest.approx(bound, **close)
        assert bound == pytest.approx(2 * max(found["margin"]["one_sided"], found["max_distance"]))
    for row in page.table("d(c1, c3)", "lb1", "hulls"):
        found = report["rows"][int(row["triple"])]
        assert float(row["hulls"]) == pytest.approx(found["hull"]["lo"], rel=5e-3)
        assert float(row["lb1"]) == pytest.approx(found["bounds"]["lb1"]["bound"], rel=5e-3)


def signed(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_the_tightest_and_the_loosest_triple_are_shown_with_their_items(tmp_path):
    dataset = images(has_keys=True)
    report = report_of(dataset)
    html = html_of(report, dataset, tmp_path)
    ranked = sorted(report["rows"], key=lambda row: row["bounds"]["q12"]["tightness"])
    shown = html.split('id="extremes"')[1].split('id="statements"')[0]
    assert f"Tightest: triple {ranked[-1]['triple']}" in shown
    assert f"Loosest: triple {ranked[0]['triple']}" in shown
    for row in (ranked[0], ranked[-1]):
        for letter, items, key in zip("ABW", row["items"], row["keys"], strict=True):
            label = row["labels"][letter == "W"]
            assert f"<h4>{letter}: {label}, {key}</h4>" in shown
            for item in items:
                assert f'<img src="{picture(dataset, item)}" alt="{label}, item {item}">' in shown
    assert shown.count("<img") == sum(
        len(items) for row in (ranked[0], ranked[-1]) for items in row["items"]
    )


def test_large_collections_of_large_images_stay_small(tmp_path):
    noise = np.random.default_rng(0)
    dataset = dataclasses.replace(
        glyphs(2, 30),
        items=noise.integers(0, 256, (60, 3, 200, 300), dtype=np.uint8),
        item_format=ItemFormat("image", 3, 300),
    )
    html = html_of(report_of(dataset, sizes=(15,)), dataset, tmp_path)
    assert html.count("<img") == 2 * 3 * 10
    assert html.count("and 5 more") == 6
    assert len(html) < 1_500_000


def test_other_aggregators_are_ranked_by_their_first_upper_bound(tmp_path):
    report = report_of(images(), "attention")
    page = Page(html_of(report, images(), tmp_path))
    assert "By the tightness of convex." in page.html
    rows = page.table("triple", "convex", "weighted", "total_variation")
    assert "d(f(A), f(B))" in rows[0]
    assert "karimov, 2 max{m, D}" not in rows[0]
    # It takes the distance as known, and would win.
    assert "The tightest upper bound from a margin, weighted" in page.html
    assert "The tightest upper bound of all" not in page.html


def test_vectors_have_no_pictures(tmp_path):
    report = report_of(vectors())
    html = html_of(report, vectors(), tmp_path)
    assert "<img" not in html
    ranked = sorted(report["rows"], key=lambda row: row["bounds"]["q12"]["tightness"])
    items = ", ".join(map(str, ranked[0]["items"][2]))
    assert f"Items {items}</p>" in html


def test_a_report_of_one_bound_is_a_page(tmp_path):
    for name in ("karimov", "lb1", "hull_lower", "score_gap"):
        page = Page(html_of(report_of(images(), names=[name]), images(), tmp_path))
        assert "The bound held" in page.verdict
        assert set(plots_of(page.html)) == {name}


def test_parts_that_are_null_are_left_out(page, report, tmp_path):
    assert report["retrieval_certificates"] is report["loss_bounds"] is None
    for word in ("Certified retrieval", "Bounds on losses"):
        assert word not in page.html
    without = {key: value for key, value in report.items() if key != "loss_bounds"}
    assert html_of(without, images(), tmp_path) == page.html


CERTIFICATES = {
    "sizes": [
        {
            "size": 1,
            "delta": 0.8,
            "per_label": {
                "one": {"half_space": 1.0, "chernoff": 0.6, "bound": 0.6, "error": 0.13},
                "two": {
                    "half_space": 0.9,
                    "chernoff": 0.8,
                    "bound": 0.8,
                    "error": 0.15,
                    "error_ci95": [0.1, 0.2],
                },
            },
            "num_queries": 2000,
            "num_errors": 280,
            "error": 0.14,
            "error_ci95": [0.125, 0.156],
            "is_calibrated": True,
        },
        {
            "size": 10,
            "delta": 0.04,
            "per_label": {
                "one": {"half_space": 0.3, "chernoff": 0.002, "bound": 0.002, "error": 0.0},
                "two": {"half_space": 0.03, "chernoff": 0.04, "bound": 0.03, "error": 0.0},
            },
            "num_queries": 2000,
            "num_errors": 0,
            "error": 0.0,
            "error_ci95": [0.0, 0.0018],
            "is_calibrated": True,
        },
    ],
    "gallery_size": 7,
    "rule": "the nearest centroid",
    "scope": "Drawn without replacement.",
    "more": {"unknown": 1},
}


def test_certificates_are_shown_against_measured_errors(report, tmp_path):
    page = Page(html_of(report | {"retrieval_certificates": CERTIFICATES}, images(), tmp_path))
    first, second = page.table("items", "queries", "bound, worst label")
    assert (first["queries"], first["errors"]) == ("2,000", "280")
    assert first["measured error [95 %]"] == "0.140 [0.125, 0.156]"
    assert [first[f"bound, {of}"] for of in ("worst label", "mean of labels")] == ["0.800", "0.700"]
    assert [first[key] for key in ("half-space", "Chernoff")] == ["0.950", "0.700"]
    assert first["labels bounded by 0.05"] == "0 of 2"
    assert second["labels bounded by 0.05"] == "2 of 2"
    assert second["measured error [95 %]"].startswith("0 [0, 0.00180")
    plots = re.findall(r'class="each s(\d)" x1', page.html)
    assert (plots.count("0"), plots.count("4")) == (4, 4)  # bounds and errors of two labels
    assert "an error of at most 0.05 is certified for 2 of 2 labels." in page.html
    assert "No measured error is above its bound" in page.html
    assert "says nothing of items from elsewhere" in page.html
    assert "Drawn without replacement." in page.html
    assert "above its bound" not in page.verdict
    labels = page.table("label", "half-space", "Chernoff", "bound")
    assert labels[0] == {
        "label": "two",  # the larger bound first
        "half-space": "0.900",
        "Chernoff": "0.800",
        "bound": "0.800",
        "measured error [95 %]": "0.150 [0.100, 0.200]",
    }


def test_an_error_above_its_bound_is_in_the_verdict(report, tmp_path):
    changed = copy.deepcopy(CERTIFICATES)
    changed["sizes"][1]["is_calibrated"] = False
    assert count_violations(report | {"retrieval_certificates": changed}) == 1
    page = Page(html_of(report | {"retrieval_certificates": changed}, images(), tmp_path))
    assert "error lies above its bound for collections of 10" in page.verdict
    assert 'class="verdict bad"' in page.html
    assert "A measured error is above its bound" in page.html


def test_of_many_labels_those_with_the_largest_bounds_are_shown(report, tmp_path):
    labels = {f"label {n}": {"bound": (n + 1) / 3000} for n in range(3000)}
    many = {"sizes": [{"size": 2, "per_label": labels, "is_calibrated": False}]}
    html = html_of(report | {"retrieval_certificates": many}, images(), tmp_path)
    page = Page(html)
    assert html.count('class="each s0" x1') == len(page.table("label", "Chernoff")) == 100
    assert page.table("label", "Chernoff")[0]["label"] == "label 2999"
    assert "the 100 largest bounds of 3,000" in html
    assert page.table("items", "queries")[0]["labels bounded by 0.05"] == "150 of 3000"
    assert "error lies above its bound for collections of 2" in page.verdict


def test_missing_and_unknown_keys_of_certificates_and_losses_are_taken_with_grace(report, tmp_path):
    sparse = report | {
        "retrieval_certificates": {"sizes": [{"size": 3}, {"size": 4, "error": 0.1, "new": []}]},
        "loss_bounds": [{"name": "L1"}, {"name": "L2", "value": None, "later": [1, 2]}],
    }
    page = Page(html_of(sparse, images(), tmp_path))
    rows = page.table("items", "queries", "measured error [95 %]")
    assert [row["measured error [95 %]"] for row in rows] == ["–", "0.100"]
    losses = page.table("bound", "at most", "holds")
    assert [row["holds"] for row in losses] == ["–", "–"]
    assert 'class="verdict good"' in page.html


def test_losses_are_a_table_and_one_that_does_not_hold_is_in_the_verdict(report, tmp_path):
    losses = [
        {
            "name": "debiased",
            "value": 0.0314,
            "standard_error": 0.00021,
            "bound": 0.577,
            "holds": True,
            "kind": "upper",
            "conditions": ["negatives i.i.d.", "positives i.i.d."],
            "temperature": 0.5,
            "num_negatives": 254,
            "num_positives": 4,
            "num_draws": 200,
            "approximation": None,
        },
        {"name": "asymptotic", "value": 2.0, "bound": 1.5, "holds": False, "conditions": "unit"},
    ]
    page = Page(html_of(report | {"loss_bounds": losses}, images(), tmp_path))
    tables = [rows[1] for rows in page.tables if rows[0][-2:] == ["at most", "holds"]]
    assert tables == [
        ["debiased", "0.0314 ± 2.1e−4", "0.577", "yes"],
        ["asymptotic", "2.00", "1.50", "no"],
    ]
    caption = re.sub(r"<[^>]*>", "", page.html[page.html.index('id="losses"') :])
    assert "t = 0.500, N = 254, M = 4" in caption
    assert "1 bound of 2 on contrastive losses did not hold." in caption
    assert "<details open>" in page.html
    assert "Bounds on losses that do not hold: asymptotic." in page.verdict
    assert "Not every bound held" in page.verdict
    assert "Every bound held" not in page.verdict
    assert 'class="verdict bad"' in page.html


def test_bounds_on_losses_come_with_their_statements(report, tmp_path):
    losses = [{"name": name} for name in ("L1, as published", "L3", "L3, of this mixture")]
    html = html_of(report | {"loss_bounds": losses}, images(), tmp_path)
    Page(html)
    shown = [name for name, _, statement, *_ in LOSSES if formula(statement) in html]
    assert shown == ["L1", "L3"]
    assert "Debiased contrastive learning" in html


def test_many_triples_are_not_all_drawn_but_violated_ones_are(tmp_path):
    report = report_of(images(), max_triples=900, sizes=(2,))
    broken = violate(report, *((n, "w1") for n in range(1, 900, 90)))
    html = html_of(broken, images(), tmp_path)
    plots = plots_of(html)
    assert {plot.count("h0") + plot.count("m-4-4") for plot in plots.values()} == {400}
    assert plots["w1"].count("m-4-4") == 10
    assert "400 of the 900 triples are drawn" in html
    assert "violated ones before all others" in html
    assert len(html) < 1_500_000
    all_broken = violate(report, *((n, "w1") for n in range(900)))
    plots = plots_of(html_of(all_broken, images(), tmp_path))
    assert plots["w1"].count("m-4-4") == 400


def test_points_lie_where_value_and_bound_are(report, page):
    plots = plots_of(page.html)
    same = [name for name in plots if THEOREMS[name].of == "same"]
    numbers = [
        row["bounds"][name][key]
        for row in report["rows"]
        for name in same
        for key in ("value", "bound")
    ]
    axis = bound_plots.axis_of(numbers)
    left, top, side = bound_plots.LEFT, bound_plots.TOP, bound_plots.SIDE
    for name in ("karimov", "w1"):
        drawn = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", plots[name])]
        entries = [row["bounds"][name] for row in report["rows"]]
        expected = [
            (left + side * axis.place(of["bound"]), top + side * (1 - axis.place(of["value"])))
            for of in entries
        ]
        apart = np.abs(np.array(drawn)[:, None] - np.array(expected)).max(axis=2)
        assert len(drawn) == len(expected)
        assert max(*apart.min(axis=0), *apart.min(axis=1)) <= 0.051
        turns = re.findall(r'class="dots (s\d)"', plots[name])
        assert turns[:4] == ["s0", "s1", "s0", "s1"]  # no colour covers the other
    # Above the diagonal for upper bounds, below for lower ones.
    corner = f"L{bound_plots.LEFT} {bound_plots.TOP}Z"
    assert corner in plots["w1"]
    assert corner in plots["hull_upper"]
    assert corner not in plots["hull_lower"]


def test_an_axis_is_logarithmic_if_numbers_span_decades():
    assert not bound_plots.axis_of([1.0, 2.0, 3.0]).is_log
    assert bound_plots.axis_of([0.01, 1.0]).is_log
    assert not bound_plots.axis_of([0.0, 0.0, 0.01, 0.5, 1.0]).is_log  # zeros count for something
    assert bound_plots.axis_of([0.0, 0.0, 0.001, 0.002, 0.003, 1.0]).is_log  # all else at one point
    mostly = bound_plots.axis_of([0.0, *np.geomspace(0.01, 1, 50)])
    assert mostly.is_log
    assert mostly.place(0.0) == 0.0
    assert mostly.place(1e9) == 1.0
    assert mostly.place(0.1) == pytest.approx(0.5, abs=0.02)
    negative = bound_plots.axis_of([-1.0, 1.0])
    assert negative.place(0.0) == pytest.approx(0.5)
    for axis in (mostly, negative, bound_plots.axis_of([0.0, 0.0]), bound_plots.axis_of([1e-9, 3])):
        assert 2 <= len(axis.ticks) <= 8
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert bound_plots.axis_of([1e-300, 1e-3, *[1.0] * 98]).low > 1e-10


def test_the_same_report_gives_the_same_page_and_is_left_as_it_was(report, tmp_path):
    before = copy.deepcopy(report)
    first = html_of(report, images(), tmp_path)
    assert report == before
    assert html_of(json.loads(json.dumps(report)), images(), tmp_path) == first


def test_formulas_are_set_and_escaped():
    assert str(formula("‖c_1‖^2 ≤ max_{ik} d(x_i)")) == (
        '<span class="formula">‖<i>c</i><sub>1</sub>‖<sup>2</sup> ≤ max<sub><i>ik</i></sub> '
        "<i>d</i>(<i>x</i><sub><i>i</i></sub>)</span>"
    )
    assert "<sup>(1/2 − 1/<i>p</i>)<sub>+</sub></sup>" in formula("dim^{(1/2 − 1/p)_+}")
    assert str(prose("a < `b < 1`.")) == ('a &lt; <span class="formula"><i>b</i> &lt; 1</span>.')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1234, "1,234"),
        (-3, "−3"),
        (0.123456, "0.123"),
        (-12.3456, "−12.3"),
        (1234.5, "1,234"),
        (0.000123456, "1.23e−4"),
        (-4.5e12, "−4.50e12"),
        (1.0, "1.00"),
        ("words", "words"),
        (True, "True"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_written_in_three_digits(value, text):
    assert number(value) == text


def test_margins_come_with_their_positives_and_the_sign_of_the_loss(page, report):
    rows = {row["margin"]: row for row in page.table("margin", "positives are", "α = −m, median")}
    assert set(rows) == {"m", "ms", "mAW"}
    assert len(MARGINS) == 3
    assert rows["m"]["positives are"] == "from the other collection of the label"
    assert rows["mAW"]["positives are"] == "from the anchor's own collection"
    margins = [row["margin"]["inter_class"] for row in report["rows"]]
    middle = float(np.median(margins))
    assert signed(rows["mAW"]["α = −m, median"]) == pytest.approx(-middle, rel=5e-3)
    assert signed(rows["mAW"]["median [5 %, 95 %]"].split()[0]) == pytest.approx(middle, rel=5e-3)
    assert "A sign to watch" in page.html


def test_sampling_is_told(page):
    text = re.sub(r"<[^>]+>", " ", page.html.split('id="sampling"')[1])
    for words in ("4 of 9 glyphs", "test", "glyph", "sampled", "2, 4", "60", "1e−9", "no label"):
        assert words in text


def test_a_reference_without_tightness_has_no_extremes(report, tmp_path):
    points = torch.zeros(len(images()), DIM)
    degenerate = verify_bounds(
        points, images(), build_aggregator("centroid", DIM), sizes=(2,), max_triples=5
    )
    page = Page(html_of(degenerate, images(), tmp_path))
    assert "Tightest:" not in page.html
    assert "Every bound held" in page.verdict


def test_verify_bounds_writes_the_page_beside_the_numbers(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    values = generator.normal(size=(3, 6))[labels] + generator.normal(size=(90, 6))
    splits = np.where(np.arange(90) < 30, "train", "test")
    np.savez(tmp_path / "three.npz", values=values.astype(np.float32), labels=labels, splits=splits)
    asked = {
        "data": {"dataset": "vectors", "data_root": str(tmp_path / "three.npz")},
        "training": {"max_steps": 2, "device": "cpu"},
        "episode": {"classes_per_episode": 2, "items_per_collection": 2},
        "evaluation": {"sizes": [1], "num_bootstrap": 5, "protocol": "train_bank", "knn_k": 3},
        "output_dir": str(tmp_path / "run"),
    }
    run = runs.train(runs.configure([asked])).directory
    report = report_bounds(run, max_triples=20, output_dir=tmp_path / "out")
    html = (tmp_path / "out" / "bounds.html").read_text()
    assert json.loads((tmp_path / "out" / "bounds.json").read_text()) == report
    assert f"Bound verification: {run.name}" in html
    assert "20 triples" in Page(html).verdict
    assert bound_page.NUM_DRAWN == 400


def test_collections_of_one_item_do_not_rank(tmp_path):
    dataset = images()
    found = report_of(dataset, sizes=(1, 3), max_triples=60)
    page = Page(html_of(found, dataset, tmp_path))
    assert "of more than one item; of one item most bounds are attained by definition" in page.html
    three = [row for row in found["rows"] if row["sizes"][0] == 3]
    medians = np.median([row["bounds"]["q12"]["tightness"] for row in three])
    row = next(
        row for row in page.table("bound", "violations", "tightness") if row["bound"] == "q12"
    )
    assert row["tightness"].startswith(f"{medians:.3f} [")
    tabled = {row["triple"] for row in page.table("triple", "label", "items")}
    assert tabled <= {str(row["triple"]) for row in three}
    assert "attained by definition" not in html_of(report_of(dataset), dataset, tmp_path)


def test_a_bound_that_does_not_speak_of_a_triple_is_not_violated(report, tmp_path):
    silent = copy.deepcopy(report)
    for row in silent["rows"][:20]:
        row["bounds"]["hull_upper"] = dict.fromkeys(row["bounds"]["hull_upper"])
    silent["summary"]["hull_upper"]["num_checked"] = 40
    page = Page(html_of(silent, images(), tmp_path))
    assert 'class="verdict good"' in page.html
    assert plots_of(page.html)["hull_upper"].count("h0") == 40
    gap = [row["bounds"]["score_gap"]["tightness"] is not None for row in report["rows"]]
    if not all(gap):
        assert f"The tightness of score_gap is of the {sum(gap)} triples" in page.html
