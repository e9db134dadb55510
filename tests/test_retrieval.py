"""What an index finds, and what it refuses to hold or to be asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, Match
from tests.indexes import make_encoder, make_full_index, make_index


def draw_vectors(count: int, dim: int, is_lattice: bool, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if not is_lattice:
        return generator.normal(size=(count, dim))
    # Many equal distances, and a mean of zero, so that float32 holds every score exactly.
    half = generator.integers(-2, 3, size=(count, dim)).astype(float)
    return generator.permutation(np.concatenate([half, -half]))


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 30),
    st.sampled_from([-10, 0, 13]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_a_query_equals_brute_force(count, dim, k, exponent, is_lattice, seed):
    vectors = 2.0**exponent * draw_vectors(count, dim, is_lattice, seed).astype(np.float32)
    query = vectors[0] if is_lattice else vectors.mean(axis=0) + 2.0**exponent
    found = CollectionIndex.from_embeddings(vectors, range(len(vectors))).query_vector(query, k)
    expected = -((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
    order = sorted(range(len(vectors)), key=lambda place: (-expected[place], place))[:k]
    scores = [match.score for match in found]
    tolerance = 0 if is_lattice else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected[order], rtol=0, atol=tolerance)
    assert scores == sorted(scores, reverse=True)
    if is_lattice:
        assert [match.id for match in found] == order


def test_of_equal_scores_the_first_put_in_comes_first():
    index = CollectionIndex.from_embeddings([[1.0], [0.0], [1.0], [1.0]], ["c", "x", "a", "b"])
    assert [match.id for match in index.query_vector([1.0], 3)] == ["c", "a", "b"]
    assert [match.id for match in index.query_vector([1.0], 2)] == ["c", "a"]


def test_a_match_carries_all_that_was_given_with_it():
    index = CollectionIndex.from_embeddings(
        torch.eye(2, dtype=torch.bfloat16),
        np.array([7, 9]),
        np.array(["cat", "dog"]),
        [{"path": ("a", "b")}, None],
    )
    assert len(index) == 2
    assert index.query_vector(torch.tensor([1.0, 0.0])) == [
        Match(7, 0.0, "cat", {"path": ["a", "b"]}),
        Match(9, -2.0, "dog", None),
    ]
    assert type(index.ids[0]) is int
    assert repr(index) == "CollectionIndex(2 collections of dimension 2)"


def test_a_collection_of_items_finds_its_neighbours():
    index = make_full_index()
    assert index.query(torch.zeros(2, 3), k=2)[0].id == "a"
    assert index.query([torch.full((3,), 5.0), np.full(3, 6.0)])[0] == Match(
        "b", pytest.approx(-((5.5 - 16 / 3) ** 2) * 3, rel=1e-4), "y", None
    )
    one_item = index.query(torch.full((3,), -3.0), k=1)
    assert one_item == [Match(3, 0.0, None, None)]


def test_an_index_finds_its_own_collections_first():
    generator = torch.Generator().manual_seed(0)
    collections = [torch.randn(size, 3, generator=generator) for size in (1, 4, 2, 7)]
    index = CollectionIndex.build(make_encoder(), collections, range(4))
    for place, collection in enumerate(collections):
        best = index.query(collection, k=1)[0]
        assert (best.id, best.score) == (place, pytest.approx(0, abs=1e-6))


def test_an_index_of_bare_vectors_takes_vectors_only():
    with pytest.raises(InputError, match="built from bare vectors"):
        make_index().query(torch.zeros(2, 3))


def test_vectors_of_another_model_or_dimension_are_refused():
    known = CollectionIndex.from_embeddings(np.eye(2), ["a", "b"], fingerprint="one")
    assert known.query_vector([1, 0], 1, fingerprint="one")[0].id == "a"
    for fingerprint in ("two", None):
        with pytest.raises(InputError, match=f"of model {fingerprint}.*model one"):
            known.query_vector([1, 0], fingerprint=fingerprint)
    with pytest.raises(InputError, match=r"of model one.*model None"):
        make_index().query_vector([1, 0, 0], fingerprint="one")
    for vector in ([1.0, 0.0], [[1.0, 0.0, 0.0]], 1.0):
        with pytest.raises(InputError, match="one vector of dimension 3"):
            make_index().query_vector(vector)
    with pytest.raises(InputError, match="NaN"):
        make_index().query_vector([1.0, np.nan, 0.0])
    for k in (0, -1):
        with pytest.raises(InputError, match="k must be at least 1"):
            make_index().query_vector(np.zeros(3), k)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


BAD_INDEXES = {
    "no vectors": (np.zeros((0, 3)), [], {}, "at least one"),
    "one axis": (np.zeros(3), ["a", "b", "c"], {}, "shape"),
    "NaN": ([[np.nan]], ["a"], {}, "NaN"),
    "too large": ([[1e20]], ["a"], {}, "beyond"),
    "text": ([["x"]], ["a"], {}, "real numbers"),
    "too few ids": ([[1.0], [2.0]], ["a"], {}, "2 collections, but 1 ids"),
    "too many labels": ([[1.0]], ["a"], {"labels": [1, 2]}, "1 collections, but 2 labels"),
    "repeated ids": ([[1.0], [2.0]], ["a", "a"], {}, "'a' is given twice"),
    "an id of another type": ([[1.0]], [1.5], {}, "An id must be a string or an integer"),
    "a boolean id": ([[1.0]], [True], {}, "An id must be"),
    "a label of another type": ([[1.0]], ["a"], {"labels": [[1]]}, "A label must be"),
    "metadata of another type": ([[1.0]], ["a"], {"metadata": ["x"]}, "must be a dict"),
    "metadata that are not JSON": ([[1.0]], ["a"], {"metadata": [{"x": {1}}]}, "must be JSON"),
    "metadata with NaN": ([[1.0]], ["a"], {"metadata": [{"x": np.nan}]}, "must be JSON"),
    "metadata without an end": (
        [[1.0]],
        ["a"],
        {"metadata": [{"x": nested(5000)}]},
        "must be JSON",
    ),
}


@pytest.mark.parametrize("name", BAD_INDEXES)
def test_what_cannot_be_indexed_is_refused_in_one_line(name):
    vectors, names, options, message = BAD_INDEXES[name]
    with pytest.raises(InputError, match=message) as caught:
        CollectionIndex.from_embeddings(vectors, names, **options)
    assert "\n" not in str(caught.value)
