"""Items among items: neighbours equal to a loop over queries, at every scale."""

import numpy as np
import pytest
import torch

from setrep.errors import InputError
from setrep.protocols import items
from setrep.protocols.items import evaluate_items
from tests.embeddings import clustered


def slow_items(queries, labels, bank, bank_labels, knn_k, temperature, skip_self):
    """Measure one query at a time, from the formulas."""
    right1, right5, first, precisions = [], [], [], []
    for i, (query, label) in enumerate(zip(queries.double(), labels.tolist(), strict=True)):
        cosines = [
            (float(query @ item / query.norm() / item.norm()), -j)
            for j, item in enumerate(bank.double())
            if not (skip_self and i == j)
        ]
        order = [(s, int(bank_labels[-j])) for s, j in sorted(cosines, reverse=True)]
        votes = {}
        for s, c in order[:knn_k]:
            votes[c] = votes.get(c, 0.0) + np.exp(s / temperature)
        best = sorted(votes, key=lambda c: -votes[c])
        right1.append(best[0] == label)
        right5.append(label in best[:5])
        first.append(order[0][1] == label)
        r = sum(c == label for _, c in order)
        hits = [c == label for _, c in order]
        if r:
            precisions.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r)
    by_class = {c: [] for c in labels.tolist()}
    for c, value in zip(labels.tolist(), right1, strict=True):
        by_class[c].append(value)
    worst = min(np.mean(values) for values in by_class.values())
    return [np.mean(right1), np.mean(right5), worst, np.mean(first), np.mean(precisions)]


def numbers(result):
    names = ("knn_top1", "knn_top5", "worst_class_top1", "recall_at_1", "map_at_r")
    return [getattr(result, name) for name in names]


@pytest.mark.parametrize("knn_k", [3, 12])
@pytest.mark.parametrize("chunk", [2_000_000, 70])
def test_leave_one_out_equals_a_loop_over_queries_in_chunks_of_any_size(chunk, knn_k, monkeypatch):
    monkeypatch.setattr(items, "NEIGHBOURS_AT_ONCE", chunk)
    values, labels = clustered(60, 9)
    labels[3] = 77  # a label of one item: wrong everywhere but in MAP@R, which leaves it out
    result = evaluate_items(values, labels, knn_k=knn_k, knn_temperature=0.2)
    expected = slow_items(values, labels, values, labels, knn_k, 0.2, skip_self=True)
    assert numbers(result) == pytest.approx(expected)
    assert (result.num_queries, result.num_bank, result.num_classes) == (60, 59, 10)
    assert result.worst_class_top1 == 0


def test_a_train_bank_equals_a_loop_over_queries():
    bank, bank_labels = clustered(80, 7, seed=0)
    values, labels = clustered(30, 6, seed=0, noise=1.5)
    result = evaluate_items(values, labels, bank=bank, bank_labels=bank_labels, knn_k=15)
    expected = slow_items(values, labels, bank, bank_labels, 15, 0.1, skip_self=False)
    assert numbers(result) == pytest.approx(expected)
    assert (result.num_queries, result.num_bank, result.num_classes) == (30, 80, 6)


def test_items_agree_with_scikit_learn_and_pytorch_metric_learning():
    from sklearn.neighbors import KNeighborsClassifier

    values, labels = clustered(120, 6)
    bank, bank_labels = clustered(90, 6, noise=1.2)
    ours = evaluate_items(values, labels, bank=bank, bank_labels=bank_labels, knn_k=10)
    classifier = KNeighborsClassifier(
        10, weights=lambda distance: np.exp((1 - distance) / 0.1), metric="cosine"
    ).fit(bank.numpy(), bank_labels.numpy())
    assert ours.knn_top1 == pytest.approx(classifier.score(values.numpy(), labels.numpy()))

    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    calculator = accuracy.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    unit = torch.nn.functional.normalize(values)
    theirs = calculator.get_accuracy(unit, labels)
    result = evaluate_items(values, labels)
    assert result.recall_at_1 == pytest.approx(theirs["precision_at_1"])
    assert result.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"])


def test_items_depend_on_directions_alone_and_repeat_bit_for_bit():
    values, labels = clustered(100, 10)
    scales = 2.0 ** torch.randint(-3, 4, (100, 1), generator=torch.Generator().manual_seed(0))
    first = evaluate_items(values, labels)
    assert evaluate_items(values * scales, labels) == first
    assert evaluate_items(values, labels) == first


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-16, 1e-12, 1e12, 1e30, 1e36])
def test_items_are_ranked_by_cosine_at_every_scale_that_float32_holds(scale):
    values, labels = clustered(100, 10)
    values *= torch.rand(100, 1, generator=torch.Generator().manual_seed(1)).mul(4).exp()
    expected = numbers(evaluate_items(values, labels))
    assert numbers(evaluate_items(values * scale, labels)) == pytest.approx(expected)
    with_bank = evaluate_items(values, labels, bank=values * scale, bank_labels=labels)
    assert with_bank.recall_at_1 == 1
    wide = values.double() * scale**4  # float64 holds what float32 does not
    assert numbers(evaluate_items(wide, labels)) == pytest.approx(expected)


def test_more_neighbours_than_there_are_become_all_of_them():
    values, labels = clustered(12, 3)
    assert evaluate_items(values, labels, knn_k=200).knn_k == 11
    result = evaluate_items(values, labels, knn_k=200, bank=values, bank_labels=labels)
    assert result.knn_k == 12


def test_identical_embeddings_crowd_a_query_out_of_its_own_neighbours_without_harm():
    values, labels = torch.ones(50, 4), (torch.arange(50) % 7 > 0).long()
    result = evaluate_items(values, labels, knn_k=3)
    expected = slow_items(values, labels, values, labels, 3, 0.1, skip_self=True)
    assert numbers(result) == pytest.approx(expected)


def test_items_without_any_relevant_neighbour_have_no_map_at_r():
    result = evaluate_items(torch.eye(4), torch.arange(4))
    assert result.map_at_r is None
    assert result.recall_at_1 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(3).long()}, "one label; found 4 and 3"),
        ({"bank": torch.eye(4)}, "give both or none"),
        ({"bank_labels": torch.arange(4)}, "give both or none"),
        ({"knn_k": 0}, "knn_k must be at least 1"),
        ({"knn_temperature": 0.0}, "temperature must be positive"),
        ({"embeddings": torch.ones(1, 4), "labels": torch.zeros(1).long()}, "a larger split"),
        ({"embeddings": torch.full((4, 4), torch.nan)}, "NaN"),
    ],
)
def test_items_that_cannot_be_compared_are_refused(arguments, message):
    given = {"embeddings": torch.eye(4), "labels": torch.arange(4) % 2} | arguments
    with pytest.raises(InputError, match=message):
        evaluate_items(**given)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5])
def test_items_near_one_point_are_ranked_as_float64_ranks_them(spread):
    """Lengths in float32 differ by 1e-7, cosines here by spread squared."""
    generator = torch.Generator().manual_seed(0)
    centre, noise = torch.randn(16, generator=generator), torch.randn(300, 16, generator=generator)
    embeddings = torch.nn.functional.normalize(centre + spread * noise)
    labels = torch.arange(300) % 7
    wide = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
    distance = torch.stack([(wide - row).square().sum(dim=1) for row in wide])
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argmin(dim=1)
    expected = float((labels[nearest] == labels).double().mean())
    assert evaluate_items(embeddings, labels).recall_at_1 == pytest.approx(expected, abs=1e-12)
