"""Nearest neighbours equal a loop over all pairs, on either backend."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.index import exact, search
from setrep.index.bank import Bank
from setrep.index.filters import Column
from setrep.index.records import matches
from setrep.index.search import top_k
from tests.embeddings import METRICS, random_vectors

every_metric = pytest.mark.parametrize("metric", METRICS)
every_backend = pytest.mark.parametrize("backend", ["faiss", "torch"])


def slow_top_k(queries, bank, k, metric):
    queries, bank = queries.double().numpy(), bank.double().numpy()
    similarities, indices = [], []
    for query in queries:
        scores = [
            query @ item if metric == "inner_product" else -((query - item) ** 2).sum()
            for item in bank
        ]
        order = sorted(range(len(bank)), key=lambda i: (-scores[i], i))[:k]
        similarities.append([scores[i] for i in order])
        indices.append(order)
    return torch.tensor(np.array(similarities)).float(), torch.tensor(indices)


@every_metric
@every_backend
def test_neighbours_equal_a_loop_over_all_pairs(metric, backend):
    queries, bank = random_vectors(30, 5, seed=0), random_vectors(70, 5, seed=1)
    similarity, index = top_k(queries, bank, 9, metric=metric, backend=backend)
    slow_similarity, slow_index = slow_top_k(queries, bank, 9, metric)
    assert index.equal(slow_index)
    assert index.dtype == torch.int64
    torch.testing.assert_close(similarity, slow_similarity, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_both_backends_order_ties_by_position_also_at_the_cut(data):
    # Small integers are exact in float32, so ties are plenty and the loop is exact.
    dim = data.draw(st.integers(1, 3))
    seed = data.draw(st.integers(0, 2**20))
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randint(0, 2, (data.draw(st.integers(1, 40)), dim), generator=generator) * 2.0
    queries = torch.randint(0, 3, (data.draw(st.integers(1, 30)), dim), generator=generator).float()
    k = data.draw(st.integers(1, len(bank)))
    for metric in METRICS:
        slow = slow_top_k(queries, bank, k, metric)
        for backend in ("faiss", "torch"):
            similarity, index = top_k(queries, bank, k, metric=metric, backend=backend)
            assert index.equal(slow[1]), (metric, backend)
            assert similarity.equal(slow[0])


@every_metric
def test_small_chunks_change_nothing(metric, monkeypatch):
    queries, bank = random_vectors(50, 4, seed=2), random_vectors(20, 4, seed=3)
    whole = top_k(queries, bank, 5, metric=metric, backend="torch")
    monkeypatch.setattr(search, "SCORES_AT_ONCE", 45)
    parts = top_k(queries, bank, 5, metric=metric, backend="torch")
    assert whole[1].equal(parts[1])
    assert whole[0].equal(parts[0])


@every_metric
@every_backend
def test_the_same_call_gives_the_same_bits(metric, backend):
    queries, bank = random_vectors(100, 16, seed=4), random_vectors(300, 16, seed=5)
    first = top_k(queries, bank, 10, metric=metric, backend=backend)
    second = top_k(queries, bank, 10, metric=metric, backend=backend)
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])


def tight_clusters(separation, spread, num_clusters=6, size=30, dim=24):
    """Points whose distances within a cluster are beneath the float32 rounding of their lengths."""
    centres = torch.nn.functional.normalize(random_vectors(num_clusters, dim, seed=20))
    noise = random_vectors(num_clusters * size, dim, seed=21) / dim**0.5
    return separation * centres.repeat_interleave(size, 0) + spread * noise


clusters = pytest.mark.parametrize(
    ("separation", "spread"),
    [(10, 1e-2), (30, 1e-2), (100, 1e-2), (1000, 0.1), (1, 1e-3), (1, 1e-5), (1e-10, 1e-12)],
)


@every_metric
@every_backend
@clusters
def test_tight_clusters_far_apart_are_searched_exactly(metric, backend, separation, spread):
    bank = tight_clusters(separation, spread)
    queries = torch.cat([bank[::9], bank[1::9] + 0.1 * spread * random_vectors(20, 24, seed=22)])
    similarity, index = top_k(queries, bank, 5, metric=metric, backend=backend)
    exact, slow_index = slow_top_k(queries, bank, 5, metric)
    assert index.equal(slow_index)
    torch.testing.assert_close(similarity, exact, rtol=1e-6, atol=1e-44)


@every_backend
@clusters
def test_every_item_finds_itself_at_distance_0(backend, separation, spread):
    bank = tight_clusters(separation, spread)
    similarity, index = top_k(bank, bank, 2, metric="euclidean", backend=backend)
    assert index[:, 0].equal(torch.arange(len(bank)))
    assert similarity[:, 0].eq(0).all()
    assert not similarity[:, 0].signbit().any()
    assert separation < 1e-5 or similarity[:, 1].lt(0).all()


@every_metric
@pytest.mark.parametrize("dim", [1, 3, 24, 129])
@pytest.mark.parametrize("spread", [1e-5, 1e-2, 10])
def test_one_query_gives_the_bits_of_many_on_either_backend(metric, dim, spread):
    bank = tight_clusters(10, spread, dim=dim)
    bank = torch.cat([bank, bank[:40]])
    together = top_k(bank, bank, 7, metric=metric, backend="torch")
    for backend in ("faiss", "torch"):
        again = top_k(bank, bank, 7, metric=metric, backend=backend)
        rows = [top_k(q[None], bank, 7, metric=metric, backend=backend) for q in bank[::5]]
        for whole, found, alone in zip(together, again, zip(*rows, strict=True), strict=True):
            assert found.equal(whole)
            assert torch.cat(alone).equal(whole[::5])


@every_metric
def test_an_ordinary_search_scans_nothing_and_a_scan_in_chunks_changes_nothing(metric, monkeypatch):
    bank = random_vectors(2000, 64, seed=23)
    close, expected = tight_clusters(100, 1e-3), []
    for chunk in (exact.SCANNED_AT_ONCE, 400):
        monkeypatch.setattr(exact, "SCANNED_AT_ONCE", chunk)
        expected.append(top_k(close, close, 5, metric=metric))
    assert expected[0][0].equal(expected[1][0])
    assert expected[0][1].equal(expected[1][1])
    monkeypatch.setattr(search, "scan", None)
    top_k(bank[:200], bank, 20, metric=metric)
    with pytest.raises(TypeError):
        top_k(close, close, 5, metric=metric)


@every_backend
def test_an_outlier_of_the_bank_makes_no_euclidean_search_scan(backend, monkeypatch):
    bank = random_vectors(500, 8, seed=24)
    bank[7] = 1e3
    expected = slow_top_k(bank[:50], bank, 5, "euclidean")[1]
    monkeypatch.setattr(search, "scan", None)
    assert top_k(bank[:50], bank, 5, metric="euclidean", backend=backend)[1].equal(expected)


@every_backend
def test_euclidean_neighbours_are_right_far_from_the_origin(backend):
    near = random_vectors(200, 8, seed=6)
    for far in (near + 1e4, near.double() + 1e8):
        _, index = top_k(far, far, 1, metric="euclidean", backend=backend)
        assert index.squeeze(1).tolist() == list(range(200))


@every_backend
def test_euclidean_similarity_is_never_above_zero(backend):
    bank = random_vectors(200, 32, seed=7)
    similarity, _ = top_k(bank, bank, 3, metric="euclidean", backend=backend)
    assert float(similarity.max()) <= 0


@every_backend
def test_identical_embeddings_come_in_order_of_position(backend):
    bank = torch.ones(100, 4)
    for metric in METRICS:
        _, index = top_k(bank[:30], bank, 7, metric=metric, backend=backend)
        assert index.equal(torch.arange(7).expand(30, 7))


@every_backend
def test_no_queries_give_no_rows(backend):
    similarity, index = top_k(torch.empty(0, 3), torch.ones(5, 3), 2, backend=backend)
    assert similarity.shape == index.shape == (0, 2)


def test_views_half_precision_and_gradients_are_taken():
    bank = random_vectors(6, 40, seed=8).T.requires_grad_()
    expected = top_k(bank.detach().contiguous(), bank.detach().contiguous(), 4)[1]
    assert top_k(bank, bank, 4)[1].equal(expected)
    half = bank.detach().half()
    assert top_k(half, half, 1, metric="euclidean")[1].squeeze(1).equal(torch.arange(40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 6}, "Asked for 6 neighbours in a bank of 5; use 1 to 5."),
        ({"k": 0}, "Asked for 0 neighbours"),
        ({"queries": torch.ones(2, 4)}, r"shapes \(2, 4\) and \(5, 3\)"),
        ({"queries": torch.ones(3)}, r"shapes \(3,\)"),
        ({"queries": torch.tensor([[0.0, 1.0, torch.nan]])}, "queries hold NaN"),
        ({"bank": torch.full((5, 3), -torch.inf)}, "bank hold NaN, infinity"),
        ({"bank": torch.full((5, 3), 1e20)}, "scale the embeddings"),
        ({"metric": "cosine"}, "Metric 'cosine' is unknown"),
        ({"backend": "annoy"}, "Backend 'annoy' is unknown"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(change, message):
    arguments = {"queries": torch.ones(2, 3), "bank": torch.ones(5, 3), "k": 2} | change
    with pytest.raises(InputError, match=message) as caught:
        top_k(**arguments)
    assert "\n" not in str(caught.value)


@every_metric
def test_training_precision_does_not_reach_the_search(metric):
    bank = random_vectors(200, 64, seed=9)
    expected = top_k(bank, bank, 5, metric=metric, backend="torch")
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = top_k(bank, bank, 5, metric=metric, backend="torch")
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])


@every_metric
@pytest.mark.parametrize("offset", [0, 100])
def test_a_prepared_bank_gives_the_same_bits_also_of_some_of_its_items(metric, offset):
    bank, queries = (random_vectors(n, 16, seed=n) + offset for n in (300, 40))
    prepared = Bank.of(bank, metric)
    assert (prepared.near is prepared.values) == (metric == "inner_product" or offset == 0)
    found = top_k(queries, prepared, 7, metric=metric)
    expected = top_k(queries, bank, 7, metric=metric)
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])
    rows = torch.arange(1, 300, 3)
    for backend in ("faiss", "torch"):
        some = top_k(queries, prepared.take(rows), 7, metric=metric, backend=backend)
        expected = top_k(queries, bank[rows], 7, metric=metric, backend=backend)
        assert some[0].equal(expected[0])
        assert some[1].equal(expected[1])


@every_backend
def test_a_bank_far_from_the_origin_is_moved_so_that_no_search_scans(backend, monkeypatch):
    far = random_vectors(500, 8, seed=32) + 1000
    monkeypatch.setattr(search, "scan", None)
    _, index = top_k(far[:50], far, 1, metric="euclidean", backend=backend)
    assert index.squeeze(1).equal(torch.arange(50))


def test_a_bank_of_the_other_metric_is_refused():
    with pytest.raises(InputError, match="prepared for 'euclidean', not 'inner_product'"):
        top_k(torch.ones(1, 3), Bank.of(torch.ones(5, 3), "euclidean"), 2)


NAN = float("nan")
scalars = st.sampled_from([0, 1, 2, True, False, 1.0, 0.5, NAN, None, "a", "1", "", b"a"])
values = st.one_of(
    scalars,
    st.sampled_from([1, True, 1.0, NAN]),
    st.lists(scalars, max_size=2),
    st.lists(scalars, max_size=2).map(tuple),
    st.sampled_from([frozenset({1}), {1}, {"a": 1}, {"a": True}, bytearray(b"a")]),
)
fields = st.sampled_from(["x", "y"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(fields, values, min_size=1), min_size=5, max_size=12),
    st.dictionaries(fields, st.lists(values, min_size=1), min_size=1, max_size=2),
)
def test_columns_choose_the_rows_that_match(payloads, where):
    is_chosen = np.ones(len(payloads), bool)
    for field, allowed in where.items():
        is_chosen &= Column(field, payloads).rows(allowed)
    assert is_chosen.tolist() == [matches(one, where) for one in payloads]
