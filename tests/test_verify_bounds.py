from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from setrep import bounds
from setrep.aggregators import (
    AGGREGATORS,
    Aggregator,
    CentroidAggregator,
    NormalizedAggregator,
    build_aggregator,
)
from setrep.collection import CollectionBatch
from setrep.data.collections import draw_disjoint_triples
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.errors import InputError
from setrep.protocols import bound_statements
from setrep.protocols.bounds import count_violations, verify_bounds

DIM = 6
NAMES = ("karimov", "margin_plus_max", "chamfer", "q1")  # a priori
OF_CENTROIDS = (
    *NAMES,
    "q12",
    "multi_negative",
    "symmetric",
    "symmetric_chamfer",
    "mean_loss",
    "batch_hard",
    "mean_distance",
    "w1",
    "lb1",
    "lb0",
    "score_gap",
)
OF_CONVEX = ("convex", "margin_hull", "hull_lower", "hull_upper")
# Which bounds beside those of convex embeddings apply to which aggregator.
APPLIES = {
    "centroid": OF_CENTROIDS,
    "geometric_median": ("weighted", "total_variation"),
    "attention": ("weighted", "total_variation"),
    "nan": ("weighted", "total_variation"),
    "directional_mean": ("normalized", "normalized_lower"),
    "gem": ("gem",),
    "max": ("max",),
    "median": ("coordinatewise",),
    "quantiles": ("coordinatewise",),
    "trimmed_mean": ("coordinatewise",),
    "mean_std": ("mean_std",),
    "deep_sets": ("deep_sets",),
}


def make_dataset(*, has_keys: bool = False, items_per_label: int = 20) -> ItemDataset:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), items_per_label)
    items = generator.normal(size=(len(labels), DIM)) + 3 * np.eye(3, DIM)[labels]
    keys = labels * 4 + np.arange(len(labels)) % 4 if has_keys else None
    return ItemDataset(
        name="clusters",
        split="test",
        items=items.astype(np.float32),
        labels=labels,
        label_names=("one", "two", "three"),
        item_format=ItemFormat("vector", DIM, 1),
        label_level="cluster",
        collection_level="part" if has_keys else "sampled",
        keys=keys,
        key_names=tuple(f"part {i}" for i in range(12)) if has_keys else (),
        source_note="made here",
    )


def embeddings_of(dataset: ItemDataset) -> torch.Tensor:
    return torch.from_numpy(np.asarray(dataset.items))


def verify(dataset: ItemDataset, **options) -> dict:
    return verify_bounds(embeddings_of(dataset), dataset, CentroidAggregator(DIM), **options)


def test_every_row_says_what_can_be_recomputed_from_its_items():
    dataset = make_dataset()
    report = verify(dataset, sizes=(3, 5), max_triples=151, seed=4)
    assert [row["triple"] for row in report["rows"]] == list(range(151))
    embeddings = embeddings_of(dataset).double().numpy()
    rows = iter(report["rows"])
    for size, count in ((3, 76), (5, 75)):
        drawn = draw_disjoint_triples(dataset, size, count, seed=4)
        for i in range(count):
            row = next(rows)
            a, b, w = (embeddings[x[i].numpy()] for x in (drawn.first, drawn.second, drawn.other))
            close = {"rel": 1e-9}
            to_b = np.linalg.norm(a[:, None] - b, axis=-1)
            to_w = np.linalg.norm(a[:, None] - w, axis=-1)
            margin = (to_b.max(axis=1) - to_w.min(axis=1)).max()
            value = np.linalg.norm(a.mean(0) - b.mean(0))
            assert row["distance_same"] == pytest.approx(value, **close)
            assert row["distance_other"] == pytest.approx(
                np.linalg.norm(a.mean(0) - w.mean(0)), **close
            )
            assert row["margin"]["one_sided"] == pytest.approx(margin, **close)
            assert row["max_distance"] == pytest.approx(to_w.max(), **close)
            bound = row["bounds"]["chamfer"]
            assert bound["bound"] == pytest.approx(margin + to_w.min(axis=1).mean(), **close)
            assert bound["slack"] == pytest.approx(bound["bound"] - value, **close)
            assert bound["tightness"] == pytest.approx(value / bound["bound"], **close)
            assert row["labels"] == [dataset.label_names[x] for x in drawn.labels[i]]
            assert row["sizes"] == [size] * 3


def test_the_report_has_the_keys_of_schema_1_and_is_json():
    report = verify(make_dataset(), max_triples=20, run="runs/one")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report) == [
        "schema",
        "run",
        "sampling",
        "rows",
        "summary",
        "retrieval_certificates",
        "loss_bounds",
    ]
    assert (report["schema"], report["run"]) == (1, "runs/one")
    assert report["retrieval_certificates"]["rule"] == "nearest centroid"
    row = report["rows"][0]
    assert set(row) == {
        *("triple", "labels", "keys", "items", "sizes", "dim", "scale", "aggregator", "margin"),
        *("distance_same", "distance_other", "max_distance", "bounds", "hull", "tolerance"),
    }
    assert set(row["margin"]) == {"one_sided", "symmetric", "inter_class", "positives"}
    assert row["margin"]["positives"]["one_sided"] == "cross_collection"
    assert (row["keys"], row["aggregator"]) == (None, "centroid")
    assert 0 <= row["hull"]["lo"] <= row["hull"]["hi"] <= row["distance_other"] * (1 + 1e-9)
    assert set(row["bounds"]) == {*OF_CENTROIDS, *OF_CONVEX}
    for entry in row["bounds"].values():
        assert set(entry) == {"value", "bound", "slack", "tightness", "tolerance", "holds"}
        assert entry["holds"] == (entry["slack"] >= -entry["tolerance"])


def test_the_summary_counts_and_ranks_the_rows():
    report = verify(make_dataset(), max_triples=200)
    for name in NAMES:
        summary = report["summary"][name]
        tightness = [row["bounds"][name]["tightness"] for row in report["rows"]]
        assert summary == {
            "kind": "upper",
            "class": "a_priori",
            "applies": True,
            "why_not": None,
            "num_checked": 200,
            "num_violations": 0,
            "tightness_median": pytest.approx(np.median(tightness)),
            "tightness_p05": pytest.approx(np.percentile(tightness, 5)),
            "tightness_p95": pytest.approx(np.percentile(tightness, 95)),
            "slack_median": pytest.approx(
                np.median([row["bounds"][name]["slack"] for row in report["rows"]])
            ),
        }
    assert count_violations(report) == 0


def test_the_same_seed_gives_the_same_report():
    dataset = make_dataset()
    assert verify(dataset, max_triples=9, seed=1) == verify(dataset, max_triples=9, seed=1)
    assert verify(dataset, max_triples=9, seed=1) != verify(dataset, max_triples=9, seed=2)


def test_natural_collections_name_their_keys():
    report = verify(make_dataset(has_keys=True), sizes=(4,), max_triples=30)
    for row in report["rows"]:
        first, second, other = row["keys"]
        assert len({first, second, other}) == 3
        assert all(key.startswith("part ") for key in row["keys"])
    assert report["sampling"]["collection_level"] == "part"


def test_a_false_bound_is_reported_as_violated(monkeypatch):
    # The largest distance alone bounds nothing: in one label at 0, 100 and another at 1, CE2.
    def max_distance_alone(triples: bounds.Triples) -> bounds.UpperBound:
        bound = 2 * triples.max_distance
        return bounds.UpperBound(triples.distance_same, bound, triples.scale)

    false = bound_statements.Statement(
        lambda sample: max_distance_alone(sample.triples), "upper", "a_priori", lambda _: None
    )
    monkeypatch.setitem(bound_statements.STATEMENTS, "false", false)
    dataset = make_dataset()
    positions = torch.tensor([[0.0], [100.0]])[torch.arange(len(dataset)) % 2]
    positions[torch.from_numpy(dataset.labels) != 0] = 1.0
    dataset = replace(dataset, items=positions.expand(-1, DIM).contiguous().numpy())
    report = verify(dataset, sizes=(1,), max_triples=100)
    assert report["summary"]["false"]["num_violations"] > 0
    assert count_violations(report) == report["summary"]["false"]["num_violations"]
    assert sum(not row["bounds"]["false"]["holds"] for row in report["rows"]) == count_violations(
        report
    )


def test_losses_and_certificates_that_fail_count_as_violated():
    report = verify(make_dataset(), max_triples=9, sizes=(1, 2))
    assert count_violations(report) == 0
    report["loss_bounds"][0]["holds"] = False
    report["retrieval_certificates"]["sizes"][1]["is_calibrated"] = False
    assert count_violations(report) == 2


def test_collapsed_embeddings_hold_with_undefined_tightness():
    dataset = make_dataset()
    report = verify_bounds(
        torch.full((len(dataset), DIM), 0.1), dataset, CentroidAggregator(DIM), max_triples=5
    )
    json.dumps(report, allow_nan=False)
    assert count_violations(report) == 0
    assert report["summary"]["karimov"]["tightness_median"] is None
    assert report["rows"][0]["bounds"]["karimov"]["tightness"] is None


class FirstItemAggregator(Aggregator):
    formula = "x_1"

    def aggregate(self, batch: CollectionBatch) -> torch.Tensor:
        return batch.values[batch.offsets[:-1]]


def test_another_aggregator_than_the_centroid_is_measured_but_not_judged():
    dataset = make_dataset()
    embeddings = embeddings_of(dataset)
    report = verify_bounds(embeddings, dataset, FirstItemAggregator(DIM), max_triples=100)
    drawn = draw_disjoint_triples(dataset, 5, 100, seed=0)
    for i, row in enumerate(report["rows"]):
        a, b = embeddings[drawn.first[i, 0]], embeddings[drawn.second[i, 0]]
        assert row["distance_same"] == pytest.approx(float((a - b).norm()), rel=1e-6)
        assert row["bounds"] == {}
        assert row["aggregator"] == "FirstItemAggregator"
    summary = report["summary"]["karimov"]
    assert (summary["applies"], summary["num_checked"]) == (False, 0)
    assert "FirstItemAggregator" in summary["why_not"]
    assert count_violations(report) == 0


@pytest.mark.parametrize("name", ["centroid", "directional_mean"])
def test_embeddings_without_a_direction_are_left_out_of_bounds_on_directions(name):
    dataset = make_dataset()
    embeddings = embeddings_of(dataset).clone()
    embeddings[0] = 0.0
    aggregator = build_aggregator(name, DIM)
    if name == "centroid":
        aggregator = NormalizedAggregator(aggregator)
    report = verify_bounds(embeddings, dataset, aggregator, sizes=(1,), max_triples=60)
    touched = [any(0 in items for items in row["items"]) for row in report["rows"]]
    assert 0 < sum(touched) < 60
    for key in ("normalized", "normalized_lower"):
        entries = [row["bounds"][key] for row in report["rows"]]
        assert [entry["holds"] is None for entry in entries] == touched
        assert [entry["value"] is None for entry in entries] == touched
        assert report["summary"][key]["num_checked"] == 60 - sum(touched)
        for row in report["rows"]:
            apart = row["distance_same" if key == "normalized" else "distance_other"]
            if row["bounds"][key]["value"] is not None:
                assert row["bounds"][key]["value"] == pytest.approx(apart)
    assert count_violations(report) == 0
    assert len(report["loss_bounds"]) > 0  # the item without a direction is left out of these, too


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_embeddings_does_not_matter(scale):
    dataset = make_dataset()
    aggregator = NormalizedAggregator(CentroidAggregator(DIM))
    report = verify_bounds(
        embeddings_of(dataset).double() * scale, dataset, aggregator, max_triples=30
    )
    assert report["summary"]["normalized"]["num_checked"] == 30
    assert count_violations(report) == 0
    assert all(math.isfinite(row["value"]) for row in report["loss_bounds"])


def test_triples_are_shared_among_the_sizes_that_can_be_drawn():
    told: list[tuple[int, int]] = []
    dataset = make_dataset()
    report = verify(
        dataset, sizes=(2, 50, 3), max_triples=9, on_progress=lambda *done: told.append(done)
    )
    assert [len(row["items"][0]) for row in report["rows"]] == [2] * 5 + [3] * 4
    assert report["sampling"]["sizes"] == [2, 3]
    assert told[-1] == (9, 9)


def test_labels_that_are_too_small_are_named(caplog):
    dataset = make_dataset().subset(range(45))  # the third label keeps 5 items
    with caplog.at_level(logging.ERROR):
        report = verify(dataset, sizes=(2, 4), max_triples=10)
    assert report["sampling"]["dropped"] == {"2": [], "4": ["three"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["karimof"]}, "Did you mean 'karimov'"),
        ({"names": ["gem", "max"]}, r"\(gem, max\), none is of the aggregator 'centroid'; these"),
        ({"names": [""]}, "Unknown bound ''"),
        ({"sizes": ()}, "at least one size"),
        ({"sizes": (1, 2), "max_triples": 1}, "one triple for each"),
        ({"sizes": (0,)}, "at least one item"),
        ({"sizes": (11,)}, "too few items"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        verify(make_dataset(), **options)
    assert "\n" not in str(caught.value)


def test_embeddings_that_do_not_fit_are_refused():
    dataset = make_dataset()
    aggregator = CentroidAggregator(DIM)
    with pytest.raises(InputError, match="one row for each of the 60 items"):
        verify_bounds(torch.zeros(59, DIM), dataset, aggregator)
    with pytest.raises(InputError, match="NaN"):
        verify_bounds(torch.full((60, DIM), torch.nan), dataset, aggregator)


def test_only_the_bounds_asked_for_are_checked():
    report = verify(make_dataset(), names=["chamfer"], max_triples=5)
    assert list(report["summary"]) == list(report["rows"][0]["bounds"]) == ["chamfer"]
    assert report["loss_bounds"] is report["retrieval_certificates"] is None


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_is_judged_by_the_bounds_that_are_of_it(name):
    torch.manual_seed(0)
    dataset = make_dataset()
    aggregator = build_aggregator(name, DIM)
    report = verify_bounds(
        embeddings_of(dataset), dataset, aggregator, sizes=(2, 5), max_triples=40
    )
    expected = {*APPLIES.get(name, ()), *(OF_CONVEX if aggregator.is_convex else ())}
    assert {key for key, row in report["summary"].items() if row["applies"]} == expected
    assert count_violations(report) == 0
    for row in report["rows"]:
        assert set(row["bounds"]) == expected
        assert (row["hull"] is not None) == aggregator.is_convex
        assert all(entry["bound"] > 0 for key, entry in row["bounds"].items() if key in NAMES)
        for key, entry in row["bounds"].items():
            if report["summary"][key]["kind"] == "upper":
                other = key in ("hull_upper", "weighted", "gem", "normalized", "total_variation")
                value = row["distance_other" if key == "hull_upper" else "distance_same"]
                assert entry["value"] == pytest.approx(value, rel=1e-4 if other else 1e-9), key


@pytest.mark.parametrize("name", ["centroid", "geometric_median", "nan"])
def test_directions_of_weighted_means_are_judged(name):
    torch.manual_seed(0)
    dataset = make_dataset()
    aggregator = build_aggregator(name, DIM, normalize=True)
    report = verify_bounds(embeddings_of(dataset), dataset, aggregator, max_triples=40)
    applies = {key for key, row in report["summary"].items() if row["applies"]}
    assert applies == {"normalized", "normalized_lower"}
    assert count_violations(report) == 0
    assert report["rows"][0]["aggregator"] == f"{name}, normalized"
    for row in report["rows"]:
        assert row["bounds"]["normalized"]["value"] == pytest.approx(row["distance_same"])
        assert row["bounds"]["normalized_lower"]["value"] == pytest.approx(row["distance_other"])


def test_the_margin_of_the_loss_enters_the_bounds_from_losses():
    dataset = make_dataset()
    report = verify(dataset, max_triples=20, loss_margin=0.7, sizes=(3,))
    assert report["sampling"]["loss_margin"] == 0.7
    drawn = draw_disjoint_triples(dataset, 3, 20, seed=0)
    items = embeddings_of(dataset)
    triples = bounds.measure(*(items[x] for x in (drawn.first, drawn.second, drawn.other)))
    for name in ("mean_loss", "batch_hard"):
        expected = getattr(bounds, name)(triples, 0.7).bound.tolist()
        assert [row["bounds"][name]["bound"] for row in report["rows"]] == pytest.approx(expected)


def test_a_second_collection_of_another_label_tightens_the_bound():
    report = verify(make_dataset(), max_triples=50)
    gains = [
        row["bounds"]["q12"]["bound"] - row["bounds"]["multi_negative"]["bound"]
        for row in report["rows"]
    ]
    assert min(gains) >= -1e-9
    assert max(gains) > 0


def test_items_of_a_row_are_those_that_were_measured():
    dataset = make_dataset(has_keys=True)
    embeddings = embeddings_of(dataset).double()
    for row in verify(dataset, sizes=(4,), max_triples=100)["rows"]:  # more than one batch
        a, b, w = (embeddings[items] for items in row["items"])
        assert len({item for items in row["items"] for item in items}) == 12
        assert row["distance_same"] == pytest.approx(float((a.mean(0) - b.mean(0)).norm()))
        assert row["distance_other"] == pytest.approx(float((a.mean(0) - w.mean(0)).norm()))


def test_constants_of_aggregators_are_those_of_the_module():
    dataset, items = make_dataset(), embeddings_of(make_dataset()).double()
    torch.manual_seed(0)
    built = {name: build_aggregator(name, DIM).eval() for name in ("quantiles", "deep_sets")}
    attention = NormalizedAggregator(build_aggregator("attention", DIM)).eval()
    for parameter in attention.parameters():  # it begins with even weights
        torch.nn.init.normal_(parameter)
    drawn = draw_disjoint_triples(dataset, 4, 9, seed=0)
    points = [items[x] for x in (drawn.first, drawn.second, drawn.other)]
    triples = bounds.measure(*points)

    def found(aggregator, name):
        report = verify_bounds(items, dataset, aggregator, sizes=(4,), max_triples=9)
        return [row["bounds"][name]["bound"] for row in report["rows"]]

    reach = bounds.convex(triples).bound * math.sqrt(built["quantiles"].dim_out)
    assert found(built["quantiles"], "coordinatewise") == pytest.approx(reach.tolist())
    with torch.no_grad():
        module = built["deep_sets"].double()
        layers = [*(x for x in module.rho if hasattr(x, "weight")), module.linear]
        *norms, linear = (float(torch.linalg.matrix_norm(x.weight, ord=2)) for x in layers)
        features = bounds.measure(*(module.phi(x.clone()) for x in points))
        expected = math.prod(norms) * bounds.q12(features).bound
        expected += linear * bounds.q12(triples).bound
        batches = [CollectionBatch.from_list(list(x)) for x in points[:2]]
        inner = attention.inner.double()
        weights = [inner.weigh(batch)[:, 0].view(9, 4) for batch in batches]
        weighted = bounds.weighted(triples, *weights)
        ends = bounds.normalized(weighted, *(inner(batch) for batch in batches))
    assert found(module, "deep_sets") == pytest.approx(expected.tolist())
    assert found(attention, "normalized") == pytest.approx(ends.bound.tolist())
    assert ends.bound.tolist() != pytest.approx(
        bounds.normalized(bounds.q12(triples), *(inner(batch) for batch in batches)).bound.tolist()
    )


@pytest.mark.parametrize(("num_errors", "is_calibrated"), [(230, True), (300, False)])
def test_an_error_is_above_its_bound_where_chance_does_not_explain_it(
    num_errors, is_calibrated, monkeypatch
):
    def certify(gallery, pools, sizes):
        bound = torch.full((3, 1), 0.1, dtype=torch.float64)
        of = {"half_space": bound, "chernoff": bound, "bound": bound, "delta": bound[0]}
        return SimpleNamespace(sizes=torch.tensor([2]), **of)

    def measure(*_, **__):
        counts = torch.tensor([[0], [0], [num_errors]])
        return bounds.RetrievalErrors(torch.tensor([2]), counts, 2000)

    monkeypatch.setattr(bounds, "certify_retrieval", certify)
    monkeypatch.setattr(bounds, "measure_errors", measure)
    report = verify(make_dataset(), sizes=(2,), max_triples=9)
    assert report["retrieval_certificates"]["sizes"][0]["is_calibrated"] is is_calibrated
    assert count_violations(report) == (0 if is_calibrated else 1)


def test_the_gallery_of_certificates_shares_no_item_with_the_pools(monkeypatch):
    seen = {}

    def certify(gallery, pools, sizes):
        seen["gallery"], seen["pools"] = gallery, pools
        return real(gallery, pools, sizes)

    real = bounds.certify_retrieval
    monkeypatch.setattr(bounds, "certify_retrieval", certify)
    dataset = make_dataset(items_per_label=30)
    verify(dataset, sizes=(2,), max_triples=9)
    items = embeddings_of(dataset).double()
    for label in range(3):
        own, pool = items[dataset.labels == label], seen["pools"][label]
        assert len(pool) == 20
        rest = (own.sum(0) - pool.sum(0)) / 10
        torch.testing.assert_close(seen["gallery"][label], rest)


def test_progress_is_told_triple_by_triple():
    told: list[tuple[int, int]] = []
    verify(make_dataset(), max_triples=7, on_progress=lambda *done: told.append(done))
    assert told == [(n, 7) for n in range(1, 8)]


def test_retrieval_is_certified_and_measured_for_centroids():
    dataset = make_dataset(items_per_label=30)
    found = verify(dataset, sizes=(1, 5, 20), max_triples=9)["retrieval_certificates"]
    assert (found["gallery_size"], found["num_labels"], found["num_left_out"]) == (10, 3, 0)
    assert [row["size"] for row in found["sizes"]] == [1, 5, 20]
    assert found["sizes"][0]["delta"] > found["sizes"][1]["delta"] > found["sizes"][2]["delta"]
    for row in found["sizes"]:
        assert row["is_calibrated"]
        assert row["error"] <= row["worst_error"]
        assert row["error_ci95"][0] <= row["error"] <= row["error_ci95"][1]
        assert set(row["per_label"]) == {"one", "two", "three"}
        assert row["delta"] == max(of["bound"] for of in row["per_label"].values())
        for of in row["per_label"].values():
            assert of["bound"] == min(of["half_space"], of["chernoff"])
            assert of["error_ci95"][0] <= of["bound"]


def test_certificates_use_what_the_smallest_label_has():
    labels = [0] * 20 + [1] * 6 + [2]
    kept = [
        np.flatnonzero(make_dataset().labels == label)[: labels.count(label)] for label in range(3)
    ]
    dataset = make_dataset().subset(np.concatenate(kept))
    found = verify(dataset, sizes=(2, 3), max_triples=9)["retrieval_certificates"]
    assert (found["gallery_size"], found["num_labels"], found["num_left_out"]) == (3, 2, 1)
    assert [row["size"] for row in found["sizes"]] == [2, 3]
    few = make_dataset().subset(np.concatenate([of[:2] for of in kept[:2]]))
    assert verify(few, sizes=(1,), max_triples=5)["retrieval_certificates"]["gallery_size"] == 1


def test_only_the_nearest_centroid_is_certified():
    dataset = make_dataset()
    median = build_aggregator("median", DIM)
    report = verify_bounds(embeddings_of(dataset), dataset, median, max_triples=9)
    assert report["retrieval_certificates"] is None
