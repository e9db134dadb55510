"""Re-ranking by set distances, against brute force over candidates or over all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.retrieval import CollectionIndex, rerank
from setrep.set_distances import SET_DISTANCES
from tests.indexes import (
    Kept,
    batch,
    brute,
    brute_items,
    brute_margin,
    centre,
    draw_items,
    draw_model,
    index_of,
    make_encoder,
    make_index,
)

seeds = st.integers(0, 2**32 - 1)


def score(name, query, members):
    """Score one pair in float64; larger is better."""
    distance = SET_DISTANCES[name]
    x, y = (batch(one.astype(np.float64)) for one in (query, members))
    value = float(distance.function(x, y)[0])
    return value if distance.is_similarity else -value


def reranked(model, query, name, candidates):
    """Rank candidates, given by falling score of centroids."""
    scores = [(one, score(name, query, model[one].members)) for one in candidates]
    return sorted(scores, key=lambda pair: -pair[1])


def check(found, model, query, ranked, k, tolerance=1e-5):
    """Compare what was found with a ranking: the same ids, but for scores that rounding parts."""
    expected = dict(ranked)
    best = [of for _, of in ranked[:k]]
    assert len(found) == len(best)
    scale = max(1.0, float(np.abs(query).max())) ** 2
    assert [match.score for match in found] == pytest.approx(best, abs=tolerance * scale)
    assert len({match.id for match in found}) == len(found)
    for match in found:
        assert match.score == pytest.approx(expected[match.id], abs=tolerance * scale)
        assert match.label == model[match.id].label
        assert len(match.items) == len(query)
    margin = brute_margin(model, ranked) if ranked else None
    if margin is None:
        assert found.margin is None
    elif margin > 2 * tolerance * scale:  # else it may be that of another first
        assert found.margin == pytest.approx(margin, abs=2 * tolerance * scale)


@given(seeds, st.integers(1, 20), st.integers(1, 6), st.integers(1, 12), st.booleans(), st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", SET_DISTANCES)
def test_candidates_are_ordered_by_a_set_distance(name, seed, count, k, num, is_grid, data):
    model = draw_model(seed, count, is_grid=is_grid)
    query = draw_items(np.random.default_rng([seed, 1]), is_grid=is_grid)
    asked = data.draw(st.sampled_from([None, {"label": ["x", 7]}]))
    gone = set(data.draw(st.lists(st.sampled_from([*model, "no"]), max_size=3)))
    near = brute(
        model, query, lambda one, kept: one not in gone and (not asked or kept.label in ("x", 7))
    )
    wanted = max(k, num)
    is_whole = name == "wasserstein"
    candidates = [one for one, _ in near[: None if is_whole else wanted]]
    ranked = reranked(model, query, name, candidates)
    found = index_of(model).query(
        torch.from_numpy(query), k, rerank=name, num_candidates=num, filter=asked, exclude=gone
    )
    check(found, model, query, ranked, k)
    if is_grid and name in ("centroid", "wasserstein"):  # few ties are parted by rounding
        assert [match.score for match in found] == sorted(
            (match.score for match in found), reverse=True
        )
    if is_whole:
        assert found.is_exact
        assert min(k, len(near)) <= found.num_measured <= len(near)
    else:
        assert found.num_measured == len(candidates)
        assert found.is_exact == (len(near) <= wanted)
    assert (found.delta, found.num_items) == (None, len(query))
    assert "not for re-ranking" in found.delta_note


def test_of_equal_distances_the_one_whose_centroid_is_nearer_comes_first():
    one = np.array([[1.0, 0, 0], [9.0, 0, 0]], np.float32)
    model = {
        "far": Kept(one * np.float32([[1], [3]]), "x", {}),
        "near": Kept(one, "x", {}),
        "near too": Kept(one, "y", {}),
    }
    found = index_of(model).query(np.zeros((1, 3), np.float32), 4, rerank="hausdorff")
    assert [match.id for match in found][:2] == ["near", "near too"]
    directed = {
        "far": Kept(np.array([[1.0, 0, 0], [50.0, 0, 0]], np.float32), None, {}),
        "near": Kept(np.array([[1.0, 0, 0]], np.float32), None, {}),
    }
    query = np.array([[1.0, 0, 0]], np.float32)
    found = index_of(directed).query(query, 2, rerank="maxsim")
    assert {match.id for match in found} == {"far", "near"}
    same = {"b": directed["far"], "a": directed["near"], "c": directed["near"]}
    found = index_of(same).query(np.zeros((1, 3), np.float32), 3, rerank="maxsim")
    assert [(match.id, match.score) for match in found] == [("a", 0.0), ("c", 0.0), ("b", 0.0)]


def spread(seed, count, *, offset=0.0, sizes=(1, 5), width=1.0, apart=1.0, is_equal=False):
    """Draw collections whose centroids are apart, or all equal but for rounding."""
    generator = np.random.default_rng(seed)
    model = {}
    for place in range(count):
        items = width * generator.normal(size=(generator.integers(*sizes), 3))
        if is_equal:
            items -= items.mean(axis=0)
        else:
            items += apart * generator.normal(size=3)
        label = ("x", "y", None, 3)[generator.integers(4)]
        model[place] = Kept((items + offset).astype(np.float32), label, {})
    return model


HARD = {
    "apart": {},
    "far from the origin": {"offset": 1e3},
    "far from the origin and close": {"offset": 1e3, "width": 1e-2, "apart": 1e-2},
    "all centroids equal": {"is_equal": True},
    "all centroids equal and far": {"is_equal": True, "offset": 1e3},
    "single items": {"sizes": (1, 2)},
    "single items far from the origin": {"sizes": (1, 2), "offset": 1e3},
    "clusters": {"width": 0.1, "apart": 3.0},
    "wide": {"width": 1e3},
}


@given(seeds, st.integers(1, 70), st.integers(1, 7), st.sampled_from([1, 16]))
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("case", HARD)
def test_the_nearest_by_transport_are_those_of_the_whole_index(case, seed, count, k, at_once):
    model = spread(seed, count, **HARD[case])
    generator = np.random.default_rng([seed, 1])
    query = model[0].members + generator.normal(size=model[0].members.shape).astype(np.float32) / 9
    ranked = reranked(model, query, "wasserstein", [one for one, _ in brute(model, query)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "AT_ONCE", at_once)  # one at a time the bound is asked most often
        found = index_of(model).query(torch.from_numpy(query), k, rerank="wasserstein")
    check(found, model, query, ranked, k, tolerance=1e-6 if "far" in case else 1e-5)
    assert found.is_exact
    assert found.num_measured <= count


@given(seeds, st.integers(1, 40), st.sampled_from([0.0, 1e3, 1e6]), st.floats(1e-3, 1e2))
@settings(max_examples=200, deadline=None)
def test_no_rounding_hides_a_collection_that_is_as_near_as_its_centroid(seed, count, offset, shift):
    """Of collections that are moved as a whole, the bound is the distance itself."""
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(count, 3)) + offset).astype(np.float32)
    y = x + (shift * generator.normal(size=3)).astype(np.float32)
    aims = make_centres(x, y).astype(np.float64)
    near = float(np.float32(-((aims[0] - aims[1]) ** 2).sum()))
    kth = -float(np.float32(score("wasserstein", x, y)))
    scale = float(np.linalg.norm(x, axis=1).max())
    assert rerank.may_be_nearer(near, kth, scale)
    assert not rerank.may_be_nearer(near, kth / 1.1, scale) or kth < 1e-3 * scale


def make_centres(*collections):
    """Return embeddings as an index keeps them."""
    index = index_of({i: Kept(one, None, {}) for i, one in enumerate(collections)})
    return next(index.engine.iterate()).vectors


FAR = 2.0**20  # where float32 has steps of 1/8


def moved_along(generator, query, count, labels):
    """Move copies of a query's items along an axis, all one way: centroids move by the transport.

    On a grid of 1/8, which is all that float32 has far from the origin: what is kept of centroids
    must be rounded there. Of 1/64 along an axis where no item is far, for transports in between.
    """
    model, transports = {}, {}
    for place in range(count):
        axis, copies = generator.integers(3), np.repeat(query, 4, axis=0)
        parts = 8 if query[:, axis].any() else 64
        steps = generator.integers(parts, parts + parts // 4 + 1, len(copies)) / parts
        way = generator.choice([-1, 1]) * np.eye(3)[axis]
        label = labels[generator.integers(len(labels))]
        model[place] = Kept((copies + steps[:, None] * way).astype(np.float32), label, {})
        transports[place] = -float(steps.mean())
    return model, transports


@given(seeds, st.integers(1, 60), st.integers(1, 7), st.integers(0, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_centroids_that_float32_has_moved_away_hide_none(seed, count, k, log_size, data):
    """All distances are exact, so that the order is too; ties go to the nearer centroid kept."""
    generator = np.random.default_rng(seed)
    labels = data.draw(st.sampled_from([("x",), ("x", "y", None)]))
    query = FAR * generator.integers(0, 2, (2**log_size, 3)).astype(np.float32)
    model, transports = moved_along(generator, query, count, labels)
    aim = centre(query).astype(np.float32).astype(np.float64)
    apart = {
        name: np.float32(((centre(kept.members).astype(np.float32) - aim) ** 2).sum())
        for name, kept in model.items()
    }
    ranked = sorted(transports.items(), key=lambda pair: (-pair[1], apart[pair[0]], pair[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "AT_ONCE", data.draw(st.sampled_from([1, 16])))
        found = index_of(model).query(query, k, rerank="wasserstein")
    assert [(match.id, match.score) for match in found] == ranked[:k]
    assert found.margin == brute_margin(model, ranked)


@pytest.mark.parametrize("label", ["x", "y"])
def test_a_collection_is_first_although_float32_has_moved_its_centroid_behind_others(label):
    """At 1.25 by its centroid in float32, at 1.21875 in fact; the others are in between."""
    query = np.array([[0, FAR, 0]], np.float32)
    steps = np.array([10, 10, 10, 9], np.float32)[:, None] / 8
    model = {
        place: Kept(query + np.float32([1.22 + place / 1000, 0, 0]), "x", {}) for place in range(20)
    }
    model["moved"] = Kept(query + steps * np.float32([0, 1, 0]), label, {})
    index = index_of(model)
    assert [match.id for match in index.query(query, 30)][-1] == "moved"
    for k in (1, 2, 4, 21):
        found = index.query(query, k, rerank="wasserstein")
        assert [match.id for match in found] == ["moved", *range(20)][:k]
        assert found[0].score == -1.21875
        assert found.margin == (None if label == "x" else pytest.approx(0.00125, abs=1e-6))


@given(seeds, st.integers(1, 60), st.integers(1, 7), st.sampled_from([0.0, 1.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_transports_within_a_hundredth_are_told_apart(seed, count, k, length):
    """However near their centroids are: two items at one distance, apart by any angle."""
    generator = np.random.default_rng(seed)
    query = np.array([[length, 0, 0]])
    model = {}
    for place in range(count):
        one, other, _ = np.linalg.qr(generator.normal(size=(3, 3)))[0]
        angle = generator.choice([0.0, 0.1, generator.uniform(0, np.pi / 2)])
        radius = 1 + generator.uniform(0, 0.01)
        items = [np.cos(angle) * one + turn * np.sin(angle) * other for turn in (-1, 1)]
        label = ("x", "y", None)[generator.integers(3)]
        model[place] = Kept((query + radius * np.array(items)).astype(np.float32), label, {})
    query = query.astype(np.float32)
    ranked = reranked(model, query, "wasserstein", list(model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "AT_ONCE", 1)
        found = index_of(model).query(query, k, rerank="wasserstein")
    check(found, model, query, ranked, k, tolerance=1e-6 / max(1.0, length) ** 2)


def measured_one_by_one(model, query, ranked, k, slack):
    """Count the collections that must be measured, if each is asked for in turn.

    Those whose centroid is as near as the k-th best so far, or as the best of another label than
    the first, and then of another label; `slack` is what is allowed for rounding.
    """
    transport = {name: -of for name, of in ranked}
    measured = {}
    for name, of in brute(model, query):
        apart = (-of) ** 0.5 - slack
        best = sorted(measured, key=measured.get)
        others = [measured[one] for one in best if model[one].label != model[best[0]].label]
        is_near = len(best) < k or apart <= measured[best[k - 1]]
        is_other = bool(best) and model[name].label != model[best[0]].label
        if is_near or (is_other and apart <= min(others, default=np.inf)):
            measured[name] = transport[name]
    return len(measured)


@given(seeds, st.integers(1, 60), st.integers(1, 7), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_more_is_measured_than_has_to_be(seed, count, k, is_clustered):
    model = spread(seed, count, width=0.1 if is_clustered else 1.0, apart=2.0)
    model = {name: kept._replace(label=kept.label or "x") for name, kept in model.items()}
    query = model[0].members + np.float32(0.1)
    ranked = reranked(model, query, "wasserstein", list(model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "AT_ONCE", 1)
        found = index_of(model).query(query, k, rerank="wasserstein")
    check(found, model, query, ranked, k)
    least, most = (measured_one_by_one(model, query, ranked, k, slack) for slack in (0.0, 1e-3))
    assert least <= found.num_measured <= most


def test_most_of_the_index_is_not_measured(monkeypatch):
    model = spread(0, 300, width=0.1, apart=3.0)
    query = model[7].members
    ranked = reranked(model, query, "wasserstein", list(model))
    index, counts = index_of(model), []
    search = index.engine.search

    def counted(queries, k, **options):
        counts.append(k)
        return search(queries, k, **options)

    monkeypatch.setattr(index.engine, "search", counted)
    found = index.query(torch.from_numpy(query), 3, rerank="wasserstein")
    check(found, model, query, ranked, 3)
    assert found.num_measured <= 32
    assert counts == [64]  # nor are the rest put in order
    # All that the bound does not rule out is measured, and no more than one part beyond it.
    centroids = dict(brute(model, query))
    farthest = max(
        -ranked[2][1], -next(s for n, s in ranked if model[n].label != model[ranked[0][0]].label)
    )
    near = sum((-of) ** 0.5 <= farthest for of in centroids.values())
    assert found.num_measured <= near + 2 * rerank.AT_ONCE


def test_the_margin_of_transport_measures_no_more_of_the_same_label():
    far = Kept(np.full((1, 3), 1e3, np.float32), "y", {})
    model = {place: Kept(np.full((2, 3), place, np.float32), "x", {}) for place in range(400)}
    index = index_of(model | {"far": far, "farther": far._replace(members=far.members + 1)})
    query = torch.zeros(1, 3)
    found = index.query(query, 2, rerank="wasserstein")
    assert [match.id for match in found] == [0, 1]
    assert found.margin == pytest.approx(1e3 * 3**0.5)
    assert found.num_measured <= 2 * rerank.AT_ONCE + 2
    assert index.query(query, 2, rerank="wasserstein", exclude=["far", "farther"]).margin is None
    only_x = index.query(query, 2, rerank="wasserstein", filter={"label": "x"})
    assert only_x.margin is None
    assert only_x.num_measured <= 2 * rerank.AT_ONCE


def test_the_best_of_another_label_comes_after_more_of_the_same_in_one_part():
    model = {i: Kept(np.full((1, 3), i, np.float32), "x", {}) for i in range(20)}
    model |= {i: Kept(np.full((1, 3), i, np.float32), "y", {}) for i in (25, 40)}
    found = index_of(model).query(np.zeros((1, 3), np.float32), 1, rerank="wasserstein")
    assert found.margin == pytest.approx(25 * 3**0.5)


def test_the_best_of_another_label_may_have_a_far_centroid_and_the_first_a_later_one():
    """The first changes its label after nearer centroids of that label were passed over."""
    wide = np.array([[60.0, 0, 0], [-60.0, 0, 0]], np.float32)
    model = {i: Kept(wide + np.float32(i / 100), "x", {}) for i in range(20)}
    model |= {20 + i: Kept(np.full((1, 3), 20 + i / 10, np.float32), "y", {}) for i in range(30)}
    query = np.zeros((1, 3), np.float32)
    ranked = reranked(model, query, "wasserstein", list(model))
    for k in (1, 2, 7, 30, 50):
        found = index_of(model).query(query, k, rerank="wasserstein")
        check(found, model, query, ranked, k)
        assert found[0].label == "y"


def test_large_collections_far_from_the_origin_are_not_ruled_out_by_rounding():
    """Summed in float32 the centroids of these would be off by more than their distances."""
    generator = np.random.default_rng(0)
    many = np.float32(1e3) + np.zeros((20_000, 3), np.float32)
    model = {"many": Kept(many, "x", {})}
    for place in range(40):
        shift = generator.normal(size=3)
        shift *= (0.05 + place / 1000) / np.linalg.norm(shift)
        model[place] = Kept((1e3 + shift[None]).astype(np.float32), "y", {})
    found = index_of(model).query(np.full((1, 3), 1e3, np.float32), 1, rerank="wasserstein")
    assert [(match.id, match.score) for match in found] == [("many", 0.0)]


@pytest.mark.parametrize(
    "encoder",
    [make_encoder(aggregator="median"), make_encoder(normalize=True)],
    ids=["median", "normalised"],
)
def test_other_embeddings_of_collections_take_candidates_only(encoder):
    model = draw_model(5, 12, is_grid=False)
    index = index_of(model, encoder)
    query = torch.from_numpy(draw_items(np.random.default_rng(6), is_grid=False))
    near = [match.id for match in index.query(query, 12)]
    for num in (3, 11, 12, 13):
        found = index.query(query, 2, rerank="wasserstein", num_candidates=num)
        ranked = reranked(model, query.numpy(), "wasserstein", near[:num])
        assert [match.id for match in found] == [name for name, _ in ranked[:2]]
        assert (found.num_measured, found.is_exact) == (min(num, 12), num >= 12)
        margin = brute_margin(model, ranked)
        assert found.margin == (None if margin is None else pytest.approx(margin, rel=1e-4))


def test_what_is_left_out_but_not_there_makes_nothing_exact():
    model = draw_model(0, 20)
    query = draw_items(np.random.default_rng(1), is_grid=True)
    found = index_of(model).query(
        query, 2, rerank="chamfer", num_candidates=5, exclude=[f"no {i}" for i in range(30)]
    )
    assert (found.num_measured, found.is_exact) == (5, False)


def test_items_of_a_set_distance_are_those_nearest():
    model = draw_model(2, 5)
    query = draw_items(np.random.default_rng(3), is_grid=True)
    found = index_of(model).query(query, 5, rerank="energy")
    for match in found:
        pairs = [(one.query_item, one.member, one.similarity) for one in match.items]
        assert pairs == brute_items(model[match.id].members, query)
    found = index_of(model).query(query, 5, rerank="energy", matched_items=False)
    assert [match.items for match in found] == [()] * 5


def test_neighbours_are_reranked_too():
    model = draw_model(4, 9)
    index = index_of(model)
    name = list(model)[3]
    found = index.neighbours(name, 4, rerank="wasserstein")
    rest = {other: kept for other, kept in model.items() if other != name}
    query = model[name].members
    near = [one for one, _ in brute(rest, query)]
    check(found, model, query, reranked(model, query, "wasserstein", near), 4)


def test_vectors_without_items_are_refused_in_one_line():
    index = make_index()
    full = index_of(draw_model(0, 4))
    full.add_embeddings([[0.0, 0.0, 0.0]], ["bare"], fingerprint=full.fingerprint)
    for act, message in (
        (lambda name: index.query_vector(np.zeros(3), rerank=name), "has no items to re-rank by"),
        (lambda name: index.neighbours("id 1", rerank=name), "has no items to re-rank by"),
        (lambda name: full.query(torch.zeros(1, 3), rerank=name), "'bare' has no members"),
        (lambda name: full.neighbours("bare", rerank=name), "has no items to re-rank by"),
    ):
        for name in ("chamfer", "wasserstein"):
            with pytest.raises(InputError, match=message) as caught:
                act(name)
            assert "\n" not in str(caught.value)
    assert len(full.query(torch.zeros(1, 3), rerank="chamfer", exclude="bare")) == 4
    assert (
        CollectionIndex.create(None, make_encoder())
        .query(torch.zeros(1, 3), rerank="chamfer")
        .is_exact
    )


@pytest.mark.parametrize("name", SET_DISTANCES)
def test_candidates_are_measured_in_parts_as_they_are_at_once(name, monkeypatch):
    model = draw_model(5, 12, is_grid=False)
    query = draw_items(np.random.default_rng(9), is_grid=False)
    whole = index_of(model).query(query, 12, rerank=name)
    for weight in (1, 9, 30):
        monkeypatch.setattr(rerank, "WEIGHT_AT_ONCE", weight)
        found = index_of(model).query(query, 12, rerank=name)
        assert [match.id for match in found] == [match.id for match in whole]
        assert [match.score for match in found] == pytest.approx([one.score for one in whole])
