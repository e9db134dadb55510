"""Collections are added, removed and updated in any order, on any engine, and nothing is lost."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from setrep.errors import InputError
from setrep.retrieval import CollectionIndex
from setrep.retrieval.columns import with_sources
from tests.indexes import (
    Kept,
    batch,
    brute,
    centre,
    columns,
    draw_items,
    draw_model,
    everything,
    index_of,
    make_encoder,
    make_full_index,
    same_encoder,
)

needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
names = st.integers(0, 9) | st.sampled_from(["0", "1", "a"])
seeds = st.integers(0, 2**16)
LABELS = ("x", 7)


class Changes(RuleBasedStateMachine):
    """An index against a plain dict."""

    engine = "memory"

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.model, self.sources, self.is_certified = {}, {}, False
        self.index = CollectionIndex.create(self.new_address(), same_encoder(), root="root")

    def new_address(self):
        self.address = None
        if self.engine == "directory":
            self.address = f"faiss:{self.folder / secrets.token_hex(3)}"
        elif self.engine == "milvus":
            self.address = f"milvus:{self.folder / 'index.db'}#i{secrets.token_hex(3)}"
        return self.address

    @rule(new=st.lists(names, max_size=5), seed=seeds, has_sources=st.booleans())
    def add(self, new, seed, has_sources):
        model = {
            name: kept._replace(label=LABELS[i % 2])
            for i, (name, kept) in enumerate(
                zip(dict.fromkeys(new), draw_model(seed, len(new)).values(), strict=False)
            )
        }
        if not model:
            return
        collections, ids, labels, metadata = columns(model)
        sources = {name: [f"{name}/{i}" for i in range(len(model[name].members))] for name in model}
        is_fine = not set(model) & set(self.model)
        told = {"sources": [sources[name] for name in model]} if has_sources else {}
        if not is_fine:
            with pytest.raises(InputError, match="is in the index already"):
                self.index.add(collections, ids, labels, metadata, **told)
            return
        self.index.add(collections, ids, labels, metadata, **told)
        self.model |= model
        if has_sources:
            self.sources |= sources
        self.is_certified = False

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        gone = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=4))
        self.index.remove(gone[0] if len(gone) == 1 else gone)
        for name in set(gone):
            del self.model[name]
            self.sources.pop(name, None)
        self.is_certified = self.is_certified and not gone

    @rule(name=names)
    def remove_what_is_not_there(self, name):
        if name not in self.model:
            with pytest.raises(InputError, match="There is no collection"):
                self.index.remove([*list(self.model)[:1], name])
            with pytest.raises(InputError, match="There is no collection"):
                self.index.update(name, torch.zeros(1, 3))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), seed=seeds)
    def update(self, data, seed):
        name = data.draw(st.sampled_from(list(self.model)))
        kept, new = self.model.pop(name), draw_items(np.random.default_rng(seed), is_grid=True)
        self.index.update(name, torch.from_numpy(new))
        self.model[name] = kept._replace(members=np.concatenate([kept.members, new]))
        if name in self.sources:
            self.sources[name] = [*self.sources[name], *[""] * len(new)]
        self.is_certified = False

    @rule()
    def open_again(self):
        if self.address is None:
            self.index.save(self.folder / "saved")
            opened = CollectionIndex.open(self.folder / "saved")
            assert everything(opened) == everything(self.index)
            opened.close()
        else:
            self.index.save(self.address)  # is there already
            self.index.close()
            self.index = CollectionIndex.open(self.address)

    @rule()
    def move_to_another_address(self):
        if self.address is not None:
            self.index.save(self.new_address())
            self.index.close()
            self.index = CollectionIndex.open(self.address)

    @rule(max_size=st.integers(1, 3))
    def certify(self, max_size):
        counts = [sum(kept.label == label for kept in self.model.values()) for label in LABELS]
        if min(counts) < 2:
            with pytest.raises(InputError, match=r"tells labels apart|only one collection"):
                self.index.certify(max_size=max_size)
        else:
            self.found = self.index.certify(max_size=max_size)
            self.is_certified = True

    @invariant()
    def it_holds_what_the_dict_does(self):
        held, origin, *dims, certificate = everything(self.index)
        assert (self.index.ids, len(self.index)) == (tuple(self.model), len(self.model))
        assert [name for name, *_ in held] == list(self.model)
        for name, vector, members, payload in held:
            kept = self.model[name]
            told = {"label": kept.label}
            told |= {f"metadata.{field}": value for field, value in kept.metadata.items()}
            told |= {"sources": self.sources[name]} if name in self.sources else {}
            assert payload == told
            assert members == kept.members.tolist()
            assert vector == centre(kept.members).astype(np.float32).tolist()
        assert (origin.root, dims) == ("root", [3, 3])
        assert origin.fingerprint == self.index.fingerprint == same_encoder().fingerprint
        if self.is_certified:
            assert certificate == self.found
        else:
            assert certificate.startswith("the index is not certified, or was changed since")

    @invariant()
    def it_finds_what_brute_force_does(self):
        found = self.index.query(torch.ones(1, 3), 4)
        ranked = brute(self.model, np.ones((1, 3), np.float32))[:4]
        assert [name for name, _ in ranked] == [match.id for match in found]
        scores = [match.score for match in found]
        np.testing.assert_allclose(scores, [score for _, score in ranked], rtol=1e-6)
        assert [match.sources for match in found] == [
            tuple(self.sources.get(name, ())) for name, _ in ranked
        ]

    def teardown(self):
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)


class ChangesOfADirectory(Changes):
    engine = "directory"


class ChangesOfMilvus(Changes):
    engine = "milvus"


TestInMemory, TestInADirectory = Changes.TestCase, ChangesOfADirectory.TestCase
TestInMemory.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestInADirectory.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestInMilvus = needs_milvus(ChangesOfMilvus.TestCase)
TestInMilvus.settings = settings(max_examples=2, stateful_step_count=10, deadline=None)


@given(seeds, st.integers(1, 6), st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("aggregator", ["centroid", "median"])
def test_an_updated_collection_is_as_if_all_had_come_together(aggregator, seed, count, data):
    """Bit for bit of members; embeddings off the grid but for rounding in float32."""
    encoder = make_encoder(aggregator=aggregator)
    model = draw_model(seed, count, is_grid=False)
    cuts = {name: data.draw(st.integers(1, len(kept.members))) for name, kept in model.items()}
    first = {n: kept._replace(members=kept.members[: cuts[n]]) for n, kept in model.items()}
    index = index_of(first, encoder)
    for name, kept in model.items():
        if cuts[name] < len(kept.members):
            index.update(name, torch.from_numpy(kept.members[cuts[name] :]))
    order = [n for n in model if cuts[n] == len(model[n].members)]
    order += [n for n in model if n not in order]
    whole = index_of({name: model[name] for name in order}, encoder)
    assert index.ids == whole.ids
    for one, other in zip(everything(index)[0], everything(whole)[0], strict=True):
        assert (one[0], one[2], one[3]) == (other[0], other[2], other[3])
        np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-6)
        if aggregator == "centroid":
            assert one[1] == other[1]


def test_names_of_items_stay_beside_them():
    index = CollectionIndex.create(None, make_encoder())
    index.add([torch.zeros(2, 3), torch.ones(1, 3)], ["a", "b"], sources=[["1", "2"], []])
    index.update("a", torch.full((1, 3), 2.0))
    index.update("b", torch.full((1, 3), 3.0))
    found = {match.id: match.sources for match in index.query(torch.zeros(1, 3))}
    assert found == {"a": ("1", "2", ""), "b": ()}
    with pytest.raises(InputError, match="'c' has 2 items, but 1 sources"):
        index.add([torch.zeros(2, 3)], ["c"], sources=[["1"]])
    with pytest.raises(InputError, match="1 collections, but 2 sources"):
        index.add([torch.zeros(2, 3)], ["c"], sources=[["1", "2"], ["3"]])
    assert index.ids == ("a", "b")
    bare, named = {"label": "x"}, {"label": "x", "sources": ["1", "2"]}
    assert with_sources(bare, 2, (), 1) == bare
    assert with_sources(bare, 2, ("new",), 1)["sources"] == ["", "", "new"]
    assert with_sources(named, 2, (), 2)["sources"] == ["1", "2", "", ""]
    assert with_sources(named, 2, ("new",), 1) == {"label": "x", "sources": ["1", "2", "new"]}
    assert named["sources"] == ["1", "2"]


@pytest.mark.parametrize(
    "engine", ["memory", "directory", pytest.param("milvus", marks=needs_milvus)]
)
def test_an_id_is_a_name_and_no_truth_value(engine, tmp_path):
    index = index_of(
        {
            1: Kept(np.ones((1, 3), np.float32), "x", {}),
            "1": Kept(np.zeros((2, 3), np.float32), "y", {}),
        }
    )
    if engine != "memory":
        address = (
            f"faiss:{tmp_path / 'i'}" if engine == "directory" else f"milvus:{tmp_path / 'i.db'}"
        )
        index.save(address)
        index = CollectionIndex.open(address)
    for act in (index.remove, index.neighbours, lambda name: index.update(name, torch.ones(1, 3))):
        for name in (True, 1.0, None):
            with pytest.raises(InputError, match="An id must be a string or an integer"):
                act(name)
    with pytest.raises(InputError, match="An id must be"):
        index.remove(["1", True])
    assert [match.id for match in index.neighbours(np.int64(1))] == ["1"]
    index.update(np.int64(1), torch.full((1, 3), 2.0))
    assert [type(name) for name in index.ids] == [str, int]
    index.remove(np.int64(1))
    index.remove(np.array(["1"]))
    index.remove([])
    assert index.ids == ()
    index.close()


def test_what_cannot_be_added_changes_nothing():
    index = make_full_index()
    before = everything(index)
    good = torch.zeros(2, 3)
    for collections, ids, options, message in (
        ([good, good], ["c", "c"], {}, "given twice"),
        ([good, good], ["c", "a"], {}, "'a' is in the index already"),
        ([good, good], ["c"], {}, "2 collections, but 1 ids"),
        ([good, torch.zeros(0, 3)], ["c", "d"], {}, "is empty"),
        ([good, torch.zeros(2, 2)], ["c", "d"], {}, None),
        ([good, torch.full((1, 3), torch.nan)], ["c", "d"], {}, None),
        ([], [], {}, "no collection"),
        (torch.zeros(2, 2, 3), ["c", "d"], {}, "must be a list"),
        ([good], ["c"], {"labels": [True]}, "A label must be"),
        ([good], ["c"], {"metadata": [{1j: 2}]}, "must be JSON"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            index.add(collections, ids, **options)
        assert "\n" not in str(caught.value)
        assert everything(index) == before
    for items, message in (
        (torch.zeros(0, 3), "is empty"),
        (torch.zeros(3), "is one item"),
        (torch.zeros(2, 2), None),
        (3, "must be an array"),
    ):
        with pytest.raises(InputError, match=message):
            index.update("a", items)
        assert everything(index) == before
    for embeddings, ids, message in (
        (np.zeros((1, 4)), ["c"], "dimension 3"),
        (batch(np.zeros((2, 4), np.float32)), ["c"], "dimension 3"),
        (np.full((1, 3), np.inf), ["c"], "NaN"),
        (np.zeros((1, 3)), ["a"], "in the index already"),
    ):
        with pytest.raises(InputError, match=message):
            index.add_embeddings(embeddings, ids, fingerprint=index.fingerprint)
        assert everything(index) == before


def test_members_embedded_elsewhere_are_added_and_updated():
    model = draw_model(0, 5)
    items = batch(*(kept.members for kept in model.values()))
    labels = [kept.label for kept in model.values()]
    first = CollectionIndex.from_embeddings(items.select([0, 1]), list(model)[:2], labels[:2])
    first.add_embeddings(items.select([2, 3, 4]), list(model)[2:], labels[2:])
    whole = CollectionIndex.from_embeddings(items, list(model), labels)
    assert everything(first) == everything(whole)
    name = list(model)[-1]
    first.update(name, torch.ones(2, 3))
    members = np.concatenate([model[name].members, np.ones((2, 3), np.float32)])
    held = {one[0]: one for one in everything(first)[0]}[name]
    assert held[1:3] == (centre(members).astype(np.float32).tolist(), members.tolist())
    first.add_embeddings([[1.0, 2.0, 3.0]], ["bare"])
    with pytest.raises(InputError, match="added as a vector, without members"):
        first.update("bare", torch.ones(2, 3))
