"""What an index refuses to hold or to be asked, in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.retrieval import CollectionIndex
from tests.indexes import batch, make_encoder, make_full_index, make_index


def test_an_empty_query_is_refused():
    nothing = CollectionBatch(torch.zeros(1, 3), torch.tensor([0, 1, 1]), allow_empty=True)
    for rerank in (None, "chamfer"):
        with pytest.raises(InputError) as caught:
            make_full_index().query(nothing, rerank=rerank)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is empty"):
        make_full_index().query([])


def test_an_index_of_bare_vectors_takes_vectors_only():
    index = make_index()
    for act in (
        lambda: index.query(torch.zeros(2, 3)),
        lambda: index.query_many([torch.zeros(2, 3)]),
        lambda: index.add([torch.zeros(2, 3)], ["new"]),
        lambda: index.certify({"x": torch.zeros(2, 3)}),
    ):
        with pytest.raises(
            InputError, match=r"built from bare vectors|the nearest centroid"
        ) as caught:
            act()
        assert "\n" not in str(caught.value)
    for act in (
        lambda: index.query_embeddings(torch.zeros(2, 3)),
        lambda: index.add_embeddings(batch(np.zeros((2, 3), np.float32)), ["new"]),
    ):
        with pytest.raises(InputError, match="has no aggregator"):
            act()
    with pytest.raises(InputError, match="added as a vector, without members"):
        index.update("id 1", torch.zeros(2, 3))
    assert index.ids == make_index().ids


def test_vectors_of_another_model_or_dimension_are_refused():
    known = CollectionIndex.from_embeddings(np.eye(2), ["a", "b"], fingerprint="one")
    assert known.query_vector([1, 0], 1, fingerprint="one")[0].id == "a"
    for fingerprint in ("two", None):
        with pytest.raises(InputError, match=f"of model {fingerprint}.*model one"):
            known.query_vector([1, 0], fingerprint=fingerprint)
        with pytest.raises(InputError, match=f"of model {fingerprint}.*model one"):
            known.add_embeddings([[1, 0]], ["c"], fingerprint=fingerprint)
    with pytest.raises(InputError, match=r"of model one.*model None"):
        make_index().query_vector([1, 0, 0], fingerprint="one")
    for vector in ([1.0, 0.0], [[1.0, 0.0, 0.0]], 1.0):
        with pytest.raises(InputError, match="one vector of dimension 3"):
            make_index().query_vector(vector)
    for vector in ([1.0, np.nan, 0.0], [1.0, 0.0, 1e16]):
        with pytest.raises(InputError, match="NaN"):
            make_index().query_vector(vector)
    with pytest.raises(InputError, match="not finite, or too large"):
        make_full_index(1e14).query(torch.full((1, 3), 1e10))


BAD_QUESTIONS = {
    "no k": ({"k": 0}, "k must be an integer of at least 1, not 0"),
    "a negative k": ({"k": -1}, "k must be an integer of at least 1, not -1"),
    "half a k": ({"k": 1.5}, "k must be an integer of at least 1, not 1.5"),
    "a k in letters": ({"k": "3"}, "k must be an integer of at least 1, not '3'"),
    "a k that is none": ({"k": None}, "k must be an integer of at least 1, not None"),
    "no candidates": ({"num_candidates": 0, "rerank": "chamfer"}, "num_candidates must be"),
    "half a candidate": ({"num_candidates": 2.5}, "num_candidates must be an integer"),
    "a set distance of another name": ({"rerank": "chamfr"}, "Did you mean 'chamfer'"),
    "a list as filter": ({"filter": ["label"]}, "A filter must be a dict"),
    "a filter of numbers": ({"filter": {1: 2}}, "A filter must be a dict"),
    "an id of another type": ({"exclude": [1.5]}, "An id must be"),
    "a truth value for an id": ({"exclude": True}, "An id must be"),
    "a number for ids": ({"exclude": 1.5}, "An id must be"),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_what_cannot_be_asked_is_refused_in_one_line(name):
    options, message = BAD_QUESTIONS[name]
    index = make_full_index()
    for ask in (
        lambda: index.query(torch.zeros(1, 3), **options),
        lambda: index.neighbours("a", **options),
        lambda: index.query_embeddings(torch.zeros(1, 3), fingerprint=index.fingerprint, **options),
        lambda: index.query_vector(torch.zeros(3), fingerprint=index.fingerprint, **options),
    ):
        with pytest.raises(InputError, match=message) as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'reranked'"):
        index.query(torch.zeros(1, 3), reranked="chamfer")


def test_what_is_left_out_is_told_for_each_of_several_queries():
    index, two = make_full_index(), torch.zeros(2, 1, 3)
    for exclude in ([["a"]], ["a", "b"], "a", [["a"], "b"]):
        with pytest.raises(InputError, match="exclude") as caught:
            index.query_many(list(two), exclude=exclude)
        assert "\n" not in str(caught.value)
    found = index.query_many(list(two), exclude=[["a"], []])
    assert ["a" in {match.id for match in of} for of in found] == [False, True]
    for rerank in (None, "chamfer", "wasserstein"):
        found = index.query_many(list(two), exclude=[["a"], ["b"]], rerank=rerank)
        assert [{match.id for match in of} for of in found] == [{"b", 3}, {"a", 3}]
    for exclude in ("a", ["a"], ("a",), {"a"}, np.array(["a"]), [], "", None):
        found = index.query(two[0], exclude=exclude)
        assert len(found) == (3 if exclude is None or not len(exclude) else 2)


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
    "rows of several lengths": ([[1.0], [1.0, 2.0]], ["a", "b"], {}, "real numbers"),
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
    whole = CollectionIndex.from_embeddings([[0.0]], ["there"])
    with pytest.raises(InputError) as caught:
        whole.add_embeddings(vectors, names, **options)
    assert "\n" not in str(caught.value)
    assert whole.ids == ("there",)


def test_another_set_encoder_than_the_index_was_built_with_is_refused():
    index = make_full_index()
    items = torch.zeros(2, 3)
    before = index.query(items)
    index.set_encoder = make_encoder(scale=-1.0)
    calls = [
        lambda: index.query(items),
        lambda: index.add([items], ["new"]),
        lambda: index.update("a", items),
        index.certify,
    ]
    for call in calls:
        with pytest.raises(InputError, match="has changed since it embedded this index"):
            call()
    index.set_encoder = make_encoder()  # another object, of the same weights
    assert index.query(items) == before
    weight = index.set_encoder.encoder.projection.weight
    changes = [
        lambda: weight.data.mul_(-1.0),  # as averages of weights are swapped in
        lambda: weight.data.copy_(2 * weight.data),
        lambda: weight.detach().numpy().__setitem__((0, 0), 3.0),
        lambda: weight.detach().mul_(-1.0),
    ]
    for change in changes:
        kept = weight.detach().clone()
        change()
        for call in calls:
            with pytest.raises(InputError, match="has changed since it embedded this index"):
                call()
        weight.data.copy_(kept)
        assert index.query(items) == before


def test_collections_that_are_no_list_are_refused_and_columns_may_be_anything_in_order():
    items = [torch.eye(3), torch.zeros(1, 3)]
    for collections in ((one for one in items), {"a": items[0]}, None, items[0]):
        with pytest.raises(InputError, match=r"must be a list|is one item") as caught:
            CollectionIndex.build(make_encoder(), collections, ["a", "b"])
        assert "\n" not in str(caught.value)
    index = CollectionIndex.build(
        make_encoder(),
        items,
        (name for name in ("a", "b")),
        torch.tensor([3, 4]),
        ({"n": of} for of in (np.int64(7), np.float32(0.5))),
    )
    found = index.query(torch.eye(3), k=np.int64(2))
    assert [(match.id, match.label, match.metadata) for match in found] == [
        ("a", 3, {"n": 7}),
        ("b", 4, {"n": 0.5}),
    ]
    assert index.query(torch.eye(3), filter={"n": 7})[0].id == "a"
    for labels in (torch.tensor([1.5, 2.0]), torch.tensor([True, False]), torch.eye(2)):
        with pytest.raises(InputError, match="A label must be a string or an integer"):
            CollectionIndex.build(make_encoder(), items, ["a", "b"], labels)
    with pytest.raises(InputError, match="Metadata of a collection must be JSON: ndarray is not"):
        CollectionIndex.build(make_encoder(), items, ["a", "b"], metadata=[{"a": np.eye(2)}, None])
