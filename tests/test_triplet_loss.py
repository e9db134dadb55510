import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.functional import Triplets
from setrep.losses import TripletMarginLoss
from tests.loss_reference import (
    PRECISIONS,
    SEEDS,
    a_few_batches,
    batch,
    loop_triplet_losses,
    loop_triplets,
    vector,
)


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "key", "options"),
    [
        ("triplet_batch_hard", "mean_over_anchors", {}),
        ("triplet_batch_hard", "mean_over_nonzero", {"reduction": "mean_nonzero"}),
        ("triplet_batch_hard_squared", "mean_over_anchors", {"distance": "squared"}),
        (
            "triplet_batch_hard_squared",
            "mean_over_nonzero",
            {"distance": "squared", "reduction": "mean_nonzero"},
        ),
        ("triplet_batch_hard_softplus", "mean_over_anchors", {"soft": True}),
        (
            "triplet_batch_hard_softplus",
            "mean_over_nonzero",
            {"soft": True, "reduction": "mean_nonzero"},
        ),
        ("triplet_batch_hard_unit_sphere", "mean_over_anchors", {}),
        ("triplet_batch_hard_unit_sphere", "mean_over_nonzero", {"reduction": "mean_nonzero"}),
    ],
)
def test_batch_hard_triplets_give_the_reference_values(name, key, options, dtype):
    case = vector(name)
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=dtype)
    labels = torch.tensor(case["inputs"]["labels"])
    triplets = torch.tensor(case["expected"]["triplets_a_p_n"]).unbind(1)
    loss = TripletMarginLoss(case["hyper"].get("margin", 0.2), **options)
    found = loss(embeddings, labels, triplets)
    assert found.item() == pytest.approx(case["expected"][key], abs=PRECISIONS[dtype])


@pytest.mark.parametrize(
    ("reduction", "key"),
    [("mean", "mean_over_valid"), ("mean_nonzero", "mean_over_positive"), ("sum", "sum")],
)
def test_all_triplets_give_the_reference_values(reduction, key, dtype):
    case = vector("triplet_batch_all")
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=dtype)
    loss = TripletMarginLoss(case["hyper"]["margin"], reduction=reduction)
    found, metrics = loss.with_metrics(embeddings, torch.tensor(case["inputs"]["labels"]))
    assert found.item() == pytest.approx(case["expected"][key], abs=PRECISIONS[dtype])
    assert metrics["num_triplets"] == case["expected"]["n_valid"]
    assert metrics["active_share"].item() == pytest.approx(14 / 36)


def test_semi_hard_triplets_give_the_reference_value(dtype):
    case = vector("triplet_semi_hard_unit_sphere_squared_m1")
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=dtype)
    triplets = torch.tensor(case["expected"]["strict_band_triplets"]).unbind(1)
    loss = TripletMarginLoss(case["hyper"]["margin"], distance="squared")
    found = loss(embeddings, torch.tensor(case["inputs"]["labels"]), triplets)
    expected = case["expected"]["strict_band_mean"]
    assert found.item() == pytest.approx(expected, abs=PRECISIONS[dtype])


def test_the_sum_of_karimov_gives_the_reference_value(dtype):
    case = vector("triplet_karimov_sum")
    embeddings = torch.tensor(case["inputs"]["embeddings"], dtype=dtype)
    triplets = torch.tensor(case["inputs"]["triplets_a_p_n"]).unbind(1)
    loss = TripletMarginLoss(case["hyper"]["margin"], reduction="sum")
    found = loss(embeddings, torch.tensor(case["inputs"]["labels"]), triplets)
    assert found.item() == pytest.approx(case["expected"], abs=PRECISIONS[dtype])


@a_few_batches
@given(
    seed=SEEDS,
    distance=st.sampled_from(["euclidean", "squared"]),
    soft=st.booleans(),
    positives=st.sampled_from(["any", "same_collection", "cross_collection"]),
)
def test_the_triplet_loss_equals_a_loop(seed, distance, soft, positives):
    embeddings, labels, collections = batch(seed)
    triplets = loop_triplets(labels, collections, positives)
    expected = loop_triplet_losses(embeddings, triplets, 0.3, distance == "squared", soft)
    nonzero = [value for value in expected if value > 0]
    for reduction, value in (
        ("mean", sum(expected) / len(expected)),
        ("mean_nonzero", sum(nonzero) / len(nonzero)),
        ("sum", sum(expected)),
    ):
        loss = TripletMarginLoss(
            0.3, distance=distance, soft=soft, reduction=reduction, positives=positives
        )
        found = loss(embeddings, labels, collections=collections)
        assert found.item() == pytest.approx(value, rel=1e-10)


@a_few_batches
@given(
    seed=SEEDS, distance=st.sampled_from(["euclidean", "squared"]), count=st.sampled_from([9, 900])
)
def test_few_and_many_triplets_equal_a_loop(seed, distance, count):
    embeddings, labels, _ = batch(seed)
    triplets = loop_triplets(labels)
    triplets = [triplets[seed * step % len(triplets)] for step in range(1, count + 1)]
    expected = loop_triplet_losses(embeddings, triplets, 0.3, distance == "squared")
    loss = TripletMarginLoss(0.3, distance=distance, reduction="sum")
    found = loss(embeddings, labels, torch.tensor(triplets).unbind(1))
    assert found.item() == pytest.approx(sum(expected), rel=1e-10)


@pytest.mark.parametrize("value", ["apart", "together"])
def test_few_and_many_triplets_have_the_same_gradient(value):
    """The loss of a few triplets is also their mean when each is given a hundred times."""
    embeddings, labels, _ = batch(0)
    if value == "together":
        embeddings[labels == 0] = 1.0
    embeddings.requires_grad_()
    few = Triplets(*torch.tensor(loop_triplets(labels)[::40]).unbind(1))
    many = Triplets(*(indices.repeat(100) for indices in few))
    loss = TripletMarginLoss(3.0)
    (expected,) = torch.autograd.grad(loss(embeddings, labels, many), embeddings)
    (found,) = torch.autograd.grad(loss(embeddings, labels, few), embeddings)
    torch.testing.assert_close(found, expected)
    assert torch.isfinite(found).all()
    assert found.any()


@a_few_batches
@given(seed=SEEDS, scale=st.floats(0.01, 100), power=st.sampled_from([1, 2]))
def test_scaling_embeddings_and_margin_scales_the_triplet_loss(seed, scale, power):
    embeddings, labels, _ = batch(seed)
    distance = "euclidean" if power == 1 else "squared"
    scaled = TripletMarginLoss(0.3 * scale**power, distance=distance)(embeddings * scale, labels)
    plain = TripletMarginLoss(0.3, distance=distance)(embeddings, labels)
    torch.testing.assert_close(scaled, plain * scale**power)


def test_no_triplets_from_a_miner_give_a_zero_that_can_be_differentiated():
    embeddings = torch.randn(4, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss, metrics = TripletMarginLoss().with_metrics(
        embeddings, torch.tensor([0, 0, 1, 1]), Triplets(none, none, none)
    )
    loss.backward()
    assert loss == 0
    assert metrics["num_triplets"] == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_few_triplets_are_measured_in_float32(half):
    embeddings, labels, _ = batch(0, dtype=half)
    few = Triplets(*torch.tensor(loop_triplets(labels)[::40]).unbind(1))
    found = TripletMarginLoss(0.3)(embeddings, labels, few)
    expected = TripletMarginLoss(0.3)(embeddings.float(), labels, few)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("soft", "plateau"), [(False, 0.3), (True, math.log(2))], ids=["hinge", "soft"]
)
def test_a_collapsed_batch_sits_on_the_plateau_of_the_triplet_loss(soft, plateau):
    loss = TripletMarginLoss(0.3, soft=soft)
    found, metrics = loss.with_metrics(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]))
    assert found.item() == pytest.approx(plateau)
    assert metrics["positive_distance"] == metrics["negative_distance"] == 0


def test_triplet_metrics_are_the_means_of_a_hand_made_batch():
    embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0], [0.0, 6.0]], requires_grad=True)
    triplets = Triplets(*torch.tensor([[0, 0], [1, 1], [2, 3]]))
    labels = torch.tensor([0, 0, 1, 1])
    metrics = TripletMarginLoss(0.5).with_metrics(embeddings, labels, triplets)[1]
    assert {name: value.item() for name, value in metrics.items()} == {
        "num_triplets": 2.0,
        "active_share": 0.5,  # 5 - 2 + 0.5 > 0, but 5 - 6 + 0.5 < 0
        "positive_distance": 5.0,
        "negative_distance": 4.0,
        "collapsed": 0.0,
    }
    assert not any(value.requires_grad for value in metrics.values())


def test_the_margin_does_not_change_the_soft_loss_or_its_active_share():
    embeddings, labels, _ = batch(0)
    narrow = TripletMarginLoss(0.0, soft=True).with_metrics(embeddings, labels)
    wide = TripletMarginLoss(9.0, soft=True).with_metrics(embeddings, labels)
    assert narrow == wide
    violations = loop_triplet_losses(embeddings, loop_triplets(labels), margin=0.0)
    share = sum(value > 0 for value in violations) / len(violations)
    assert narrow[1]["active_share"].item() == pytest.approx(share)


@pytest.mark.parametrize("lengths", [(2, 2, 2, 2), (2, 2), (2, 2, 1)])
def test_what_is_no_triplet_is_refused(lengths):
    indices = tuple(torch.zeros(length, dtype=torch.int64) for length in lengths)
    with pytest.raises(InputError, match="three index tensors of one length") as caught:
        TripletMarginLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), indices)
    assert "\n" not in str(caught.value)
