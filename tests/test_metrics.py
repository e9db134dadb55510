import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from setrep.errors import InputError
from setrep.index.search import top_k
from setrep.metrics import (
    bootstrap_over_classes,
    class_means,
    map_at_r,
    recall_at_k,
    true_class_rank,
    weighted_knn_log_votes,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "loss_vectors.json").read_text())


def random_task(num_queries=40, num_bank=120, num_classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, 6, generator=generator)
    labels = torch.randint(0, num_classes, (num_queries + num_bank,), generator=generator)
    values = centres[labels] + 1.5 * torch.randn(len(labels), 6, generator=generator)
    values = torch.nn.functional.normalize(values)
    return values[:num_queries], labels[:num_queries], values[num_queries:], labels[num_queries:]


def test_weighted_knn_votes_equal_the_published_vector():
    vector = VECTORS["vectors"]["weighted_knn"]
    bank, query = (torch.tensor(vector["inputs"][name]).double() for name in ("bank", "query"))
    labels = torch.tensor(vector["inputs"]["bank_labels"])
    hyper = vector["hyper"]
    similarity, index = (query @ bank.T).topk(hyper["k"])
    votes = weighted_knn_log_votes(
        similarity, labels[index], hyper["num_classes"], hyper["temperature"]
    )
    expected = torch.tensor([row["scores"] for row in vector["expected"]]).double()
    torch.testing.assert_close(votes.exp(), expected, rtol=1e-6, atol=1e-6)
    right = torch.tensor([row["pred"] for row in vector["expected"]])
    assert true_class_rank(votes, right).tolist() == [0, 0, 0]


def test_weighted_knn_agrees_with_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    queries, query_labels, bank, bank_labels = random_task()
    similarity, index = top_k(queries, bank, 15)
    votes = weighted_knn_log_votes(similarity, bank_labels[index], 7, 0.2)
    classifier = KNeighborsClassifier(
        15, weights=lambda distance: np.exp((1 - distance) / 0.2), metric="cosine"
    )
    classifier.fit(bank.numpy(), bank_labels.numpy())
    predicted = torch.from_numpy(classifier.predict(queries.numpy()))
    assert (true_class_rank(votes, predicted) == 0).all()
    share = torch.from_numpy(classifier.predict_proba(queries.numpy()))
    torch.testing.assert_close(votes.softmax(dim=1), share.double(), rtol=1e-4, atol=1e-5)
    accuracy = float((true_class_rank(votes, query_labels) == 0).double().mean())
    assert accuracy == pytest.approx(classifier.score(queries.numpy(), query_labels.numpy()))


def test_the_top_5_of_scikit_learn_equals_ranks_below_5():
    from sklearn.metrics import top_k_accuracy_score

    queries, query_labels, bank, bank_labels = random_task(num_classes=9)
    similarity, index = top_k(queries, bank, len(bank))
    votes = weighted_knn_log_votes(similarity, bank_labels[index], 9, 0.1)
    assert bool(votes.isfinite().all())
    rank = true_class_rank(votes, query_labels)
    for n in (1, 2, 5):
        expected = top_k_accuracy_score(query_labels, votes, k=n, labels=range(9))
        assert float((rank < n).double().mean()) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 0.1, 100.0])
def test_no_temperature_overflows_or_loses_a_vote(temperature):
    similarity = torch.tensor([[1.0, 0.9, -0.9, -1.0]])
    labels = torch.tensor([[3, 1, 0, 1]])
    votes = weighted_knn_log_votes(similarity, labels, 5, temperature)
    assert votes.isfinite().tolist() == [[True, True, False, True, False]]
    assert votes[0, 3] == similarity[0, 0].double() / temperature
    assert votes[0, 0] == similarity[0, 2].double() / temperature
    assert true_class_rank(votes, torch.tensor([0])).item() == 2


def test_classes_without_a_vote_are_not_right():
    votes = weighted_knn_log_votes(torch.tensor([[0.5]]), torch.tensor([[2]]), 4, 0.1)
    ranks = [true_class_rank(votes, torch.tensor([label])).item() for label in range(4)]
    assert ranks[2] == 0
    assert min(ranks[:2] + ranks[3:]) >= 5  # not in the top 5 of four classes either


def test_of_equal_votes_the_lower_class_is_ahead():
    votes = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    assert [true_class_rank(votes, torch.tensor([c])).item() for c in range(4)] == [2, 0, 1, 3]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(InputError, match="must be positive"):
        weighted_knn_log_votes(torch.ones(1, 1), torch.zeros(1, 1).long(), 2, temperature)


def slow_map_at_r(is_relevant, num_relevant):
    if num_relevant == 0:
        return float("nan")
    total = 0.0
    for i in range(1, num_relevant + 1):
        if is_relevant[i - 1]:
            total += sum(is_relevant[:i]) / i
    return total / num_relevant


relevance = st.integers(1, 12).flatmap(
    lambda k: st.lists(
        st.tuples(st.lists(st.booleans(), min_size=k, max_size=k), st.integers(0, k)),
        min_size=1,
        max_size=8,
    )
)


@settings(deadline=None)
@given(relevance)
def test_map_at_r_equals_its_loop_and_is_1_only_for_a_perfect_start(rows):
    is_relevant = torch.tensor([row for row, _ in rows])
    num_relevant = torch.tensor([count for _, count in rows])
    found = map_at_r(is_relevant, num_relevant)
    expected = torch.tensor([slow_map_at_r(*row) for row in rows]).double()
    torch.testing.assert_close(found, expected, equal_nan=True)
    for value, (row, count) in zip(found.tolist(), rows, strict=True):
        if count:
            assert 0 <= value <= 1
            assert (value == 1) == all(row[:count])


@settings(deadline=None)
@given(relevance)
def test_recall_equals_its_loop_and_never_falls_with_k(rows):
    is_relevant = torch.tensor([row for row, _ in rows])
    recalls = [recall_at_k(is_relevant, k) for k in range(1, is_relevant.shape[1] + 1)]
    for k, recall in enumerate(recalls, start=1):
        assert recall.tolist() == [float(any(row[:k])) for row, _ in rows]
    for smaller, larger in pairwise(recalls):
        assert (smaller <= larger).all()


def test_a_full_ranking_gives_the_average_precision_of_scikit_learn():
    # Where all R relevant items fill the first R places or none of them, MAP@R is the AP of those
    # places; elsewhere AP also rewards relevant items below place R, so it is never smaller.
    from sklearn.metrics import average_precision_score

    queries, query_labels, bank, bank_labels = random_task(num_classes=4)
    similarity, index = top_k(queries, bank, len(bank))
    is_relevant = bank_labels[index] == query_labels.unsqueeze(1)
    num_relevant = bank_labels.bincount(minlength=4)[query_labels]
    values = map_at_r(is_relevant, num_relevant)
    for row in range(len(queries)):
        r = int(num_relevant[row])
        found = int(is_relevant[row, :r].sum())
        full = average_precision_score(is_relevant[row], similarity[row])
        assert values[row] <= full + 1e-9
        inside = (
            average_precision_score(is_relevant[row, :r], similarity[row, :r]) if found else 0.0
        )
        assert float(values[row]) == pytest.approx(inside * found / r)


def test_recall_at_1_is_the_accuracy_of_the_nearest_neighbour_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    queries, query_labels, bank, bank_labels = random_task()
    _, index = top_k(queries, bank, 1, metric="euclidean")
    recall = recall_at_k(bank_labels[index] == query_labels.unsqueeze(1), 1)
    classifier = KNeighborsClassifier(1).fit(bank.numpy(), bank_labels.numpy())
    assert float(recall.mean()) == pytest.approx(classifier.score(queries, query_labels))


def test_too_few_neighbours_for_map_at_r_are_refused():
    with pytest.raises(InputError, match="as many neighbours as relevant items, 4; found 3"):
        map_at_r(torch.ones(2, 3, dtype=torch.bool), torch.tensor([2, 4]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_the_gallery_leaves_every_metric_as_it_is(seed):
    queries, query_labels, bank, bank_labels = random_task(seed=seed)
    num_relevant = bank_labels.bincount(minlength=7)[query_labels]
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))
    results = []
    for chosen in (torch.arange(len(bank)), order):
        similarity, index = top_k(queries, bank[chosen], 60)
        labels = bank_labels[chosen][index]
        is_relevant = labels == query_labels.unsqueeze(1)
        votes = weighted_knn_log_votes(similarity[:, :9], labels[:, :9], 7, 0.1)
        rank = true_class_rank(votes, query_labels)
        results.append((rank, recall_at_k(is_relevant, 5), map_at_r(is_relevant, num_relevant)))
    for before, after in zip(*results, strict=True):
        assert before.equal(after)


def test_class_means_average_within_each_class_that_is_there():
    values = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    labels = torch.tensor([7, 7, 2, 7, 40])
    torch.testing.assert_close(class_means(values, labels), torch.tensor([1, 2 / 3, 0]).double())


def slow_bootstrap(values, labels, num_resamples, seed):
    classes = sorted({label for label, v in zip(labels, values, strict=True) if v == v})
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(num_resamples):
        drawn = torch.randint(len(classes), (len(classes),), generator=generator).tolist()
        kept = [
            value
            for i in drawn
            for value, label in zip(values, labels, strict=True)
            if label == classes[i] and value == value
        ]
        means.append(sum(kept) / len(kept))
    n = len(classes)
    level = 100 * norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    return np.percentile(means, [level, 100 - level]).tolist()


def test_the_bootstrap_equals_its_loop_and_leaves_queries_without_a_value_out():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(60, generator=generator).double()
    values[::7] = torch.nan
    labels = torch.randint(0, 8, (60,), generator=generator) * 3
    found = bootstrap_over_classes(values, labels, 200, seed=5)
    assert found == pytest.approx(slow_bootstrap(values.tolist(), labels.tolist(), 200, 5))
    assert found == bootstrap_over_classes(values, labels, 200, seed=5)
    assert found != bootstrap_over_classes(values, labels, 200, seed=6)
    assert found[0] < float(values.nanmean()) < found[1]


def test_the_bootstrap_knows_that_queries_of_one_class_move_together():
    labels = torch.arange(10).repeat_interleave(100)
    by_class = (labels % 2).double()
    low, high = bootstrap_over_classes(by_class, labels, 1000, seed=0)
    # The mean of ten coins: standard error 0.158, not the 0.016 of a thousand.
    # 2.38 of them either way, on a grid of tenths.
    assert 0.1 <= low <= 0.2
    assert 0.8 <= high <= 0.9


def test_the_bootstrap_covers_the_truth_with_five_classes():
    # Of these 300 samples the interval covers 0.893, and 0.84 between plain percentiles.
    generator = np.random.default_rng(0)
    labels = torch.arange(5).repeat_interleave(10)
    num_covered = 0
    for seed in range(300):
        chance = generator.beta(4, 2, 5).repeat(10)
        values = torch.from_numpy(generator.random(50) < chance).double()
        low, high = bootstrap_over_classes(values, labels, 200, seed)
        num_covered += low <= 4 / 6 <= high
    assert 0.87 <= num_covered / 300 <= 0.97


def test_fewer_than_five_classes_have_no_interval():
    values, labels = torch.arange(10).double(), torch.arange(10) % 5
    assert bootstrap_over_classes(values, labels, 10, 0) is not None
    values[labels == 3] = torch.nan  # a class without a value is none
    assert bootstrap_over_classes(values, labels, 10, 0) is None
    assert bootstrap_over_classes(values[:0], labels[:0], 10, 0) is None


def test_a_bootstrap_without_a_resample_is_refused():
    with pytest.raises(InputError, match="at least one resample; asked for 0"):
        bootstrap_over_classes(torch.ones(5), torch.arange(5), 0, 0)
