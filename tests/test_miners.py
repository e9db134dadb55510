import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.functional import pairwise_distance
from setrep.losses import TripletMarginLoss
from setrep.miners import BatchAllMiner, BatchHardMiner, HardNegativeMiner, SemiHardMiner

VECTORS = json.loads((Path(__file__).parent / "vectors" / "loss_vectors.json").read_text())
KINDS = ["any", "same_collection", "cross_collection"]
MINERS = [BatchAllMiner, BatchHardMiner, HardNegativeMiner, SemiHardMiner]
every_miner = pytest.mark.parametrize("miner", MINERS)
some_batches = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def batches(draw):
    """Uneven labels and collections; embeddings on a coarse grid, so that distances tie."""
    n = draw(st.integers(0, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    labels = torch.randint(draw(st.integers(1, 4)), (n,), generator=generator)
    collections = 2 * labels + torch.randint(2, (n,), generator=generator)
    if draw(st.booleans()):
        embeddings = torch.randint(3, (n, 2), generator=generator).double()
    else:
        embeddings = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return embeddings, labels, collections


def as_set(triplets):
    rows = list(zip(*(indices.tolist() for indices in triplets), strict=True))
    assert len(rows) == len(set(rows))
    return set(rows)


def distance(embeddings, i, j):
    return math.dist(embeddings[i].tolist(), embeddings[j].tolist())


def loop_positives(a, labels, collections, positives):
    same = {"any": {True, False}, "same_collection": {True}, "cross_collection": {False}}[positives]
    return [
        p
        for p in range(len(labels))
        if p != a and labels[p] == labels[a] and bool(collections[p] == collections[a]) in same
    ]


def loop_negatives(a, labels):
    return [n for n in range(len(labels)) if labels[n] != labels[a]]


def first(candidates, key):
    """Return the candidate with the smallest key; of equal ones (up to rounding) the first."""
    smallest = min(key(candidate) for candidate in candidates)
    return next(c for c in candidates if key(c) <= smallest + 1e-12)


def loop(miner, embeddings, labels, collections):
    """Mine by the definitions, one anchor after another."""
    mined = set()
    for a in range(len(labels)):
        ps = loop_positives(a, labels, collections, miner.positives)
        ns = loop_negatives(a, labels)
        if ps and ns:
            mined |= loop_of_anchor(miner, a, ps, ns, lambda i, j: distance(embeddings, i, j))
    return mined


def loop_of_anchor(miner, a, ps, ns, d):
    def to(other):
        return d(a, other)

    if isinstance(miner, BatchAllMiner):
        return {(a, p, n) for p in ps for n in ns}
    if isinstance(miner, BatchHardMiner):
        return {(a, first(ps, lambda p: -to(p)), first(ns, to))}
    if isinstance(miner, HardNegativeMiner):
        return {(a, p, first(ns, to)) for p in ps}
    return loop_semi_hard(miner, a, ps, ns, to)


def loop_semi_hard(miner, a, ps, ns, to):
    mined = set()
    power = 2 if miner.distance == "squared" else 1
    for p in ps:
        end = to(p) ** power + miner.margin if miner.fallback == "none" else math.inf
        band = [n for n in ns if to(p) + 1e-12 < to(n) and to(n) ** power < end - 1e-12]
        if band:
            mined.add((a, p, first(band, to)))
        elif miner.fallback == "farthest":
            mined.add((a, p, first(ns, lambda n: -to(n))))
    return mined


@some_batches
@given(batch=batches(), positives=st.sampled_from(KINDS), index=st.integers(0, 2))
def test_batch_all_batch_hard_and_hard_negative_equal_their_loops(batch, positives, index):
    miner = MINERS[index](positives=positives)
    assert as_set(miner(*batch)) == loop(miner, *batch)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=batches(),
    positives=st.sampled_from(KINDS),
    margin=st.floats(0, 3),
    power=st.sampled_from(["euclidean", "squared"]),
    fallback=st.sampled_from(["none", "farthest"]),
)
def test_semi_hard_equals_its_loop(batch, positives, margin, power, fallback):
    miner = SemiHardMiner(positives=positives, margin=margin, distance=power, fallback=fallback)
    assert as_set(miner(*batch)) == loop(miner, *batch)


@every_miner
@some_batches
@given(batch=batches(), positives=st.sampled_from(KINDS))
def test_mined_triplets_are_valid(miner, batch, positives):
    embeddings, labels, collections = batch
    anchors, ps, ns = miner(positives=positives)(embeddings, labels, collections)
    assert anchors.dtype == ps.dtype == ns.dtype == torch.int64
    assert (anchors != ps).all()
    assert (labels[anchors] == labels[ps]).all()
    assert (labels[anchors] != labels[ns]).all()
    same = collections[anchors] == collections[ps]
    assert positives != "same_collection" or same.all()
    assert positives != "cross_collection" or not same.any()


@some_batches
@given(batch=batches())
def test_batch_hard_takes_the_largest_positive_and_the_smallest_negative_distance(batch):
    embeddings, labels, _ = batch
    hard = BatchHardMiner()(embeddings, labels)
    everything = as_set(BatchAllMiner()(embeddings, labels))
    assert set(hard.anchors.tolist()) == {a for a, _, _ in everything}
    hardest = {a: (p, n) for a, p, n in as_set(hard)}
    for a, p, n in everything:
        assert distance(embeddings, a, hardest[a][0]) >= distance(embeddings, a, p) - 1e-12
        assert distance(embeddings, a, hardest[a][1]) <= distance(embeddings, a, n) + 1e-12


@some_batches
@given(batch=batches(), scale=st.sampled_from([0.25, 8.0]))
def test_scaling_the_embeddings_leaves_the_hard_triplets(batch, scale):
    embeddings, labels, _ = batch
    for miner in (BatchHardMiner(), HardNegativeMiner(), SemiHardMiner(fallback="farthest")):
        assert as_set(miner(embeddings, labels)) == as_set(miner(scale * embeddings, labels))
    scaled = SemiHardMiner(margin=0.5 * scale)(scale * embeddings, labels)
    assert as_set(scaled) == as_set(SemiHardMiner(margin=0.5)(embeddings, labels))


@every_miner
def test_permuting_the_batch_permutes_the_triplets(miner):
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(12, 3, generator=generator), torch.arange(12) % 3
    order = torch.randperm(12, generator=generator)
    mined = as_set(miner()(embeddings, labels))
    permuted = miner()(embeddings[order], labels[order])
    assert mined == as_set(order[indices] for indices in permuted)
    assert mined


@pytest.mark.parametrize(
    "name", ["triplet_batch_hard", "triplet_batch_hard_squared", "triplet_batch_hard_unit_sphere"]
)
def test_batch_hard_finds_the_triplets_of_the_reference(name):
    case = VECTORS["vectors"][name]
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=torch.float64)
    mined = BatchHardMiner()(embeddings, torch.tensor(case["inputs"]["labels"]))
    assert torch.stack(mined, dim=1).tolist() == case["expected"]["triplets_a_p_n"]


@pytest.mark.parametrize(
    "name", ["triplet_semi_hard_unit_sphere_squared", "triplet_semi_hard_unit_sphere_squared_m1"]
)
def test_semi_hard_finds_the_triplets_and_losses_of_the_reference(name):
    case = VECTORS["vectors"][name]
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=torch.float64)
    labels = torch.tensor(case["inputs"]["labels"])
    margin, expected = case["hyper"]["margin"], case["expected"]
    loss = TripletMarginLoss(margin, distance="squared")
    strict = SemiHardMiner(margin=margin, distance="squared")(embeddings, labels)
    assert as_set(strict) == {tuple(row) for row in expected["strict_band_triplets"]}
    found = loss(embeddings, labels, strict)
    assert found.item() == pytest.approx(expected["strict_band_mean"], abs=1e-10)
    farthest = SemiHardMiner(margin=margin, distance="squared", fallback="farthest")
    found = loss(embeddings, labels, farthest(embeddings, labels))
    assert found.item() == pytest.approx(expected["tf_style_mean_over_pairs"], abs=1e-10)


def test_equal_distances_go_to_the_lowest_position():
    """All of one label coincide, and so do all of the other."""
    embeddings = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    lowest = {(0, 1, 3), (1, 0, 3), (2, 0, 3), (3, 4, 0), (4, 3, 0), (5, 3, 0)}
    assert as_set(BatchHardMiner()(embeddings, labels)) == lowest
    for miner in (HardNegativeMiner(), SemiHardMiner(margin=2.0)):
        _, _, negatives = miner(embeddings, labels)
        assert set(negatives.tolist()) == {0, 3}


@pytest.mark.parametrize("miner", [BatchHardMiner, HardNegativeMiner, SemiHardMiner])
def test_a_negative_is_chosen_among_the_allowed_though_all_are_infinitely_far(miner):
    """At 1e30 the squares of float32 overflow."""
    embeddings = torch.tensor([[0.0], [1e30], [-1e30], [-1e30]])
    labels = torch.tensor([0, 0, 1, 1])
    mined = miner(fallback="farthest") if miner is SemiHardMiner else miner()
    assert as_set(mined(embeddings, labels)) == {(0, 1, 2), (1, 0, 2), (2, 3, 0), (3, 2, 0)}


def test_collapsed_embeddings_leave_no_semi_hard_triplet_but_a_fallback():
    embeddings, labels = torch.ones(4, 2), torch.tensor([0, 0, 1, 1])
    assert len(SemiHardMiner()(embeddings, labels).anchors) == 0
    fallback = SemiHardMiner(fallback="farthest")(embeddings, labels)
    assert as_set(fallback) == {(0, 1, 2), (1, 0, 2), (2, 3, 0), (3, 2, 0)}


@every_miner
@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2]])
def test_a_batch_without_triplets_gives_three_empty_tensors(miner, labels):
    mined = miner()(torch.randn(len(labels), 2), torch.tensor(labels, dtype=torch.int64))
    assert [tuple(indices.shape) for indices in mined] == [(0,), (0,), (0,)]


@every_miner
def test_half_precision_embeddings_are_ranked_in_float32(miner):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(12, 3, generator=generator).bfloat16().requires_grad_()
    labels = torch.arange(12) % 3
    mined = miner()(embeddings, labels)
    assert as_set(mined) == as_set(miner()(embeddings.float(), labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = miner()(embeddings, labels)
    assert as_set(mined) == as_set(autocast)


@pytest.mark.parametrize("miner", [BatchHardMiner, HardNegativeMiner, SemiHardMiner])
def test_mining_takes_distances_without_a_graph(miner, monkeypatch):
    has_graph = []

    def spy(embeddings, others):
        distance = pairwise_distance(embeddings, others)
        has_graph.append(distance.requires_grad)
        return distance

    monkeypatch.setattr("setrep.miners.pairwise_distance", spy)
    miner()(torch.ones(4, 2, requires_grad=True), torch.tensor([0, 0, 1, 1]))
    assert has_graph == [False]


@every_miner
@pytest.mark.parametrize("positives", ["any", "same_collection", "cross_collection"])
def test_the_triplets_of_some_anchors_are_those_of_all_that_begin_there(miner, positives):
    miner = miner(positives=positives)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(20, 3, generator=generator)
    labels = torch.randint(4, (20,), generator=generator)
    collections = 2 * labels + torch.randint(2, (20,), generator=generator)
    anchors = torch.tensor([3, 4, 5, 11, 19])
    whole = torch.stack(miner(embeddings, labels, collections))
    assert whole.shape[1] > 0
    some = torch.stack(miner(embeddings, labels, collections, anchors))
    assert torch.equal(some, whole[:, torch.isin(whole[0], anchors)])
    assert miner(embeddings, labels, collections, anchors[:0]).anchors.shape == (0,)


@every_miner
def test_a_batch_that_does_not_belong_together_is_refused(miner):
    zeros = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"4 embeddings need labels of shape \(4,\), not \(3,\)"):
        miner()(torch.zeros(4, 2), zeros[:3])
    with pytest.raises(InputError, match="need collections of shape"):
        miner()(torch.zeros(4, 2), zeros, zeros[:3])
    with pytest.raises(InputError, match="needs the collection of each item"):
        miner(positives="cross_collection")(torch.zeros(4, 2), zeros)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchHardMiner(positives="cross"), "Unknown positives 'cross'"),
        (lambda: SemiHardMiner(positives="all"), "Unknown positives 'all'"),
        (lambda: SemiHardMiner(margin=-1.0), "at least 0, not -1.0"),
        (lambda: SemiHardMiner(margin=math.nan), "not nan"),
        (lambda: SemiHardMiner(distance="square"), "Did you mean 'squared'"),
        (lambda: SemiHardMiner(fallback="hardest"), "Known: none, farthest"),
    ],
)
def test_an_unusable_option_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
