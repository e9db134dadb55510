import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from setrep.errors import InputError
from setrep.functional import Triplets
from setrep.losses import SupConLoss, TripletMarginLoss

VECTORS = json.loads((Path(__file__).parent / "vectors" / "loss_vectors.json").read_text())
PRECISIONS = {torch.float64: 1e-10, torch.float32: 2e-5}
SEEDS = st.integers(0, 2**16)
a_few_batches = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


def vector(name):
    return VECTORS["vectors"][name]


def batch(seed, num_labels=4, items=4, dim=5, dtype=torch.float64):
    """Random unit embeddings with shuffled labels, and two collections in each label."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_labels * items, dim, generator=generator, dtype=dtype)
    order = torch.randperm(num_labels * items, generator=generator)
    labels = torch.arange(num_labels).repeat_interleave(items)[order]
    collections = (
        2 * torch.arange(num_labels).repeat_interleave(items)
        + torch.arange(2).repeat(num_labels * items // 2)
    )[order]
    return normalize(embeddings, dim=1), labels, collections


def is_positive(i, j, labels, collections=None, positives="any"):
    if i == j or labels[i] != labels[j]:
        return False
    if positives == "same_collection":
        return bool(collections[i] == collections[j])
    if positives == "cross_collection":
        return bool(collections[i] != collections[j])
    return True


def loop_triplets(labels, collections=None, positives="any"):
    everyone = range(len(labels))
    return [
        (a, p, n)
        for a in everyone
        for p in everyone
        for n in everyone
        if is_positive(a, p, labels, collections, positives) and labels[a] != labels[n]
    ]


def loop_triplet_losses(embeddings, triplets, margin, squared=False, soft=False):
    losses = []
    for a, p, n in triplets:
        to_positive = math.dist(embeddings[a].tolist(), embeddings[p].tolist())
        to_negative = math.dist(embeddings[a].tolist(), embeddings[n].tolist())
        if squared:
            to_positive, to_negative = to_positive**2, to_negative**2
        violation = to_positive - to_negative
        losses.append(math.log1p(math.exp(violation)) if soft else max(violation + margin, 0.0))
    return losses


def loop_supcon(embeddings, labels, temperature, form, collections=None, positives="any"):
    """Return the loss of every anchor that has a positive, from the paper's formulas."""
    everyone = range(len(labels))
    losses = []
    for i in everyone:
        h = [math.exp(float(embeddings[i] @ embeddings[a]) / temperature) for a in everyone]
        ps = [p for p in everyone if is_positive(i, p, labels, collections, positives)]
        denominator = sum(h[a] for a in everyone if a in ps or labels[a] != labels[i])
        if ps and form == "out":
            losses.append(-sum(math.log(h[p] / denominator) for p in ps) / len(ps))
        elif ps:
            losses.append(-math.log(sum(h[p] / denominator for p in ps) / len(ps)))
    return losses


# --- published values -----------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["supcon_t0.07", "supcon_t0.1", "supcon_t0.5"])
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "expected_L_out"),
        ({"form": "in"}, "expected_L_in"),
        ({"base_temperature": 0.07}, "official_file_value_base_temperature_0.07"),
    ],
)
def test_supcon_gives_the_reference_values(name, options, key, dtype):
    case = vector(name)
    embeddings = torch.tensor(case["inputs"]["z"], dtype=dtype)
    loss = SupConLoss(case["hyper"]["temperature"], **options)
    found = loss(embeddings, torch.tensor(case["inputs"]["labels"]))
    assert found.item() == pytest.approx(case[key], abs=PRECISIONS[dtype])


def test_supcon_on_two_views_gives_the_reference_value_of_nt_xent(dtype):
    case = vector("supcon_unsupervised_equals_nt_xent")
    embeddings = torch.tensor(case["inputs"]["z"], dtype=dtype)
    loss = SupConLoss(case["hyper"]["temperature"])
    found = loss(embeddings, torch.tensor(case["inputs"]["labels"]))
    assert found.item() == pytest.approx(case["expected_L_out"], abs=PRECISIONS[dtype])


@pytest.mark.parametrize(
    ("singletons", "key"),
    [("skip", "mean_over_anchors_with_positive"), ("count", "mean_over_all")],
)
def test_supcon_leaves_singletons_out_or_counts_them_as_zero(singletons, key, dtype):
    case = vector("supcon_singletons")
    embeddings = torch.tensor(case["inputs"]["z"], dtype=dtype)
    loss = SupConLoss(case["hyper"]["temperature"], singletons=singletons)
    found, metrics = loss.with_metrics(embeddings, torch.tensor(case["inputs"]["labels"]))
    assert found.item() == pytest.approx(case["expected"][key], abs=PRECISIONS[dtype])
    assert metrics["num_anchors"] == 2


# --- loops written from the formulas --------------------------------------------------------


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
@given(
    seed=SEEDS,
    form=st.sampled_from(["out", "in"]),
    positives=st.sampled_from(["any", "same_collection", "cross_collection"]),
)
def test_supcon_equals_a_loop(seed, form, positives):
    embeddings, labels, collections = batch(seed)
    expected = loop_supcon(embeddings, labels, 0.2, form, collections, positives)
    loss = SupConLoss(0.2, form=form, positives=positives)
    found = loss(embeddings, labels, collections=collections)
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-10)


@a_few_batches
@given(seed=SEEDS, temperature=st.floats(0.05, 2))
def test_supcon_with_one_label_for_each_pair_of_views_is_nt_xent(seed, temperature):
    embeddings, labels, _ = batch(seed, num_labels=6, items=2)
    total = 0.0
    for i in range(12):
        h = [math.exp(float(embeddings[i] @ embeddings[k]) / temperature) for k in range(12)]
        (view,) = [k for k in range(12) if k != i and labels[k] == labels[i]]
        total += -math.log(h[view] / (sum(h) - h[i]))
    found = SupConLoss(temperature)(embeddings, labels)
    assert found.item() == pytest.approx(total / 12, rel=1e-9)


@pytest.mark.parametrize("positives", ["same_collection", "cross_collection"])
def test_supcon_neither_attracts_nor_repels_a_pair_that_positives_excludes(positives):
    """Items 0 and 1 are one collection, 2 another of their label, 3 another label."""
    labels, collections = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2])
    similarity = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    embeddings = torch.linalg.cholesky(similarity @ similarity.T).requires_grad_()
    loss = SupConLoss(1.0, positives=positives)(embeddings, labels, collections=collections)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    losses = []
    pairs = [(0, 1), (1, 0)] if positives == "same_collection" else [(0, 2), (1, 2)]
    z = embeddings.detach()
    for anchor, positive in pairs:
        h = [math.exp(float(z[anchor] @ z[other])) for other in (positive, 3)]
        losses.append(-math.log(h[0] / sum(h)))
    if positives == "cross_collection":  # anchor 2 has both others as positives
        h = [math.exp(float(z[2] @ z[other])) for other in (0, 1, 3)]
        losses.append(-(math.log(h[0] / sum(h)) + math.log(h[1] / sum(h))) / 2)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)
    if positives == "same_collection":
        assert not gradient[2].any()


# --- laws -----------------------------------------------------------------------------------

EVERY_LOSS = [
    TripletMarginLoss(0.3),
    TripletMarginLoss(0.3, distance="squared", reduction="mean_nonzero"),
    TripletMarginLoss(soft=True, reduction="sum"),
    TripletMarginLoss(0.3, positives="cross_collection"),
    SupConLoss(0.1),
    SupConLoss(0.3, form="in"),
    SupConLoss(0.3, positives="same_collection", base_temperature=0.07),
]
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=lambda loss: type(loss).__name__)


@every_loss
@a_few_batches
@given(seed=SEEDS)
def test_the_order_of_the_batch_does_not_matter(loss, seed):
    embeddings, labels, collections = batch(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed + 1))
    found = loss(embeddings[order], labels[order], collections=collections[order])
    torch.testing.assert_close(found, loss(embeddings, labels, collections=collections))


@every_loss
@a_few_batches
@given(seed=SEEDS)
def test_a_rotation_of_the_embeddings_does_not_matter(loss, seed):
    embeddings, labels, collections = batch(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    found = loss(embeddings @ rotation, labels, collections=collections)
    torch.testing.assert_close(found, loss(embeddings, labels, collections=collections))


@every_loss
def test_the_names_of_the_labels_do_not_matter(loss):
    embeddings, labels, collections = batch(0)
    found = loss(embeddings, 1000 - 7 * labels, collections=collections + 5)
    torch.testing.assert_close(found, loss(embeddings, labels, collections=collections))


@a_few_batches
@given(seed=SEEDS, temperature=st.floats(0.05, 2))
def test_l_in_is_at_most_l_out(seed, temperature):
    embeddings, labels, _ = batch(seed)
    inside = SupConLoss(temperature, form="in")(embeddings, labels)
    outside = SupConLoss(temperature, form="out")(embeddings, labels)
    assert inside <= outside + 1e-12


@a_few_batches
@given(seed=SEEDS, scale=st.floats(0.01, 100), power=st.sampled_from([1, 2]))
def test_scaling_embeddings_and_margin_scales_the_triplet_loss(seed, scale, power):
    embeddings, labels, _ = batch(seed)
    distance = "euclidean" if power == 1 else "squared"
    scaled = TripletMarginLoss(0.3 * scale**power, distance=distance)(embeddings * scale, labels)
    plain = TripletMarginLoss(0.3, distance=distance)(embeddings, labels)
    torch.testing.assert_close(scaled, plain * scale**power)


@a_few_batches
@given(seed=SEEDS, scale=st.floats(0.1, 10))
def test_scaling_embeddings_and_the_root_of_the_temperature_leaves_supcon(seed, scale):
    embeddings, labels, _ = batch(seed)
    scaled = SupConLoss(0.2 * scale**2)(embeddings * scale, labels)
    torch.testing.assert_close(scaled, SupConLoss(0.2)(embeddings, labels))


def test_supcon_stays_finite_where_exp_would_overflow():
    embeddings, labels, _ = batch(0, dtype=torch.float32)
    loss = SupConLoss(0.001)(100 * embeddings, labels)  # logits up to 1e7
    assert torch.isfinite(loss)


@every_loss
def test_the_gradient_is_the_slope_of_the_loss(loss):
    embeddings, labels, collections = batch(3)
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: loss(z, labels, collections=collections), embeddings, eps=1e-7, atol=1e-5
    )


@every_loss
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_gradient_is_finite_where_embeddings_coincide(loss, value):
    _, labels, collections = batch(0)
    embeddings = torch.full((len(labels), 5), value, requires_grad=True)
    loss(embeddings, labels, collections=collections).backward()
    assert torch.isfinite(embeddings.grad).all()


@every_loss
def test_the_gradient_is_finite_where_two_embeddings_coincide(loss):
    embeddings, labels, collections = batch(0)
    embeddings = embeddings[[0, 0, *range(2, len(labels))]].requires_grad_()
    loss(embeddings, labels, collections=collections).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert embeddings.grad.any()


@every_loss
@pytest.mark.parametrize("num_items", [0, 1, 4])
def test_a_batch_without_positives_gives_a_zero_that_can_be_differentiated(loss, num_items):
    embeddings = torch.randn(num_items, 3, requires_grad=True)
    everyone = torch.arange(num_items)
    found, metrics = loss.with_metrics(embeddings, everyone, collections=everyone)
    found.backward()
    assert found == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()
    assert all(torch.isfinite(value) for value in metrics.values())


def test_no_triplets_from_a_miner_give_a_zero_that_can_be_differentiated():
    embeddings = torch.randn(4, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss, metrics = TripletMarginLoss().with_metrics(
        embeddings, torch.tensor([0, 0, 1, 1]), Triplets(none, none, none)
    )
    loss.backward()
    assert loss == 0
    assert metrics["num_triplets"] == 0


# --- precision ------------------------------------------------------------------------------


@every_loss
def test_autocast_does_not_lower_the_precision(loss):
    embeddings, labels, collections = batch(0, dtype=torch.float32)
    expected = loss(embeddings, labels, collections=collections)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(embeddings, labels, collections=collections)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_raised_to_float32(loss, half):
    embeddings, labels, collections = batch(0, dtype=half)
    embeddings.requires_grad_()
    found = loss(embeddings, labels, collections=collections)
    expected = loss(embeddings.float(), labels, collections=collections)
    found.backward()
    assert found.dtype == torch.float32
    assert embeddings.grad.dtype == half
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_few_triplets_are_measured_in_float32(half):
    embeddings, labels, _ = batch(0, dtype=half)
    few = Triplets(*torch.tensor(loop_triplets(labels)[::40]).unbind(1))
    found = TripletMarginLoss(0.3)(embeddings, labels, few)
    expected = TripletMarginLoss(0.3)(embeddings.float(), labels, few)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_autocast_around_an_encoder_stays_near_float32():
    embeddings, labels, _ = batch(0, dtype=torch.float32)
    weight = torch.eye(5) + 0.1
    for loss in (TripletMarginLoss(0.3), SupConLoss(0.5)):
        expected = loss(embeddings @ weight, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(embeddings @ weight, labels)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


# --- metrics --------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_coinciding_embeddings_are_reported_as_collapsed(loss, scale, spread):
    embeddings, labels, collections = batch(0)
    metrics = loss.with_metrics(
        scale * (embeddings[:1] + spread * embeddings), labels, collections=collections
    )[1]
    assert metrics["collapsed"] == 1


@every_loss
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_embeddings_apart_are_not_reported_as_collapsed(loss, scale):
    embeddings, labels, collections = batch(0)
    metrics = loss.with_metrics(scale * embeddings, labels, collections=collections)[1]
    assert metrics["collapsed"] == 0


def test_one_embedding_apart_from_all_others_is_no_collapse():
    embeddings = torch.ones(8, 3)
    embeddings[5, 0] = 1.01
    metrics = TripletMarginLoss().with_metrics(embeddings, torch.arange(8) % 2)[1]
    assert metrics["collapsed"] == 0


def test_embeddings_at_the_origin_are_reported_as_collapsed():
    metrics = SupConLoss().with_metrics(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]))[1]
    assert metrics["collapsed"] == 1


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


def test_supcon_metrics_are_the_means_over_the_pairs_of_the_anchors():
    embeddings, labels, collections = batch(0)
    embeddings.requires_grad_()
    loss = SupConLoss(positives="cross_collection")
    metrics = loss.with_metrics(embeddings, labels, collections=collections)[1]
    similarities = (embeddings @ embeddings.T).tolist()
    positive, negative = [], []
    for i in range(len(labels)):
        for j in range(len(labels)):
            similarity = similarities[i][j]
            if is_positive(i, j, labels, collections, "cross_collection"):
                positive.append(similarity)
            elif labels[i] != labels[j]:
                negative.append(similarity)
    assert metrics["num_anchors"] == len(labels)
    assert metrics["positive_similarity"].item() == pytest.approx(sum(positive) / len(positive))
    assert metrics["negative_similarity"].item() == pytest.approx(sum(negative) / len(negative))
    assert not any(value.requires_grad for value in metrics.values())


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TripletMarginLoss(-0.1), "margin must be a finite number of at least 0, not -0.1"),
        (lambda: TripletMarginLoss(math.nan), "not nan"),
        (lambda: TripletMarginLoss(math.inf), "not inf"),
        (lambda: TripletMarginLoss(distance="euclid"), "Did you mean 'euclidean'"),
        (lambda: TripletMarginLoss(reduction="max"), "Known: mean, mean_nonzero, sum"),
        (lambda: TripletMarginLoss(positives="cross"), "Unknown positives 'cross'"),
        (lambda: SupConLoss(0.0), "temperature must be a finite number above 0, not 0.0"),
        (lambda: SupConLoss(math.nan), "not nan"),
        (lambda: SupConLoss(base_temperature=-1.0), "base_temperature must be"),
        (lambda: SupConLoss(form="sum"), "Known: out, in"),
        (lambda: SupConLoss(singletons="drop"), "Known: skip, count"),
        (lambda: SupConLoss(positives="none"), "Unknown positives 'none'"),
    ],
)
def test_an_unusable_option_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [TripletMarginLoss(), SupConLoss()])
def test_a_batch_that_does_not_belong_together_is_refused(loss):
    zeros = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"4 embeddings need labels of shape \(4,\), not \(3,\)"):
        loss(torch.zeros(4, 2), zeros[:3])
    with pytest.raises(InputError, match="need collections of shape"):
        loss(torch.zeros(4, 2), zeros, collections=zeros[:2])
    with pytest.raises(InputError, match=r"floating-point tensor \[n, dim\]"):
        loss(torch.zeros(4), zeros)


@pytest.mark.parametrize(
    "loss",
    [TripletMarginLoss(positives="cross_collection"), SupConLoss(positives="same_collection")],
)
def test_restricted_positives_without_collections_are_refused(loss):
    with pytest.raises(InputError, match="needs the collection of each item"):
        loss(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("lengths", [(2, 2, 2, 2), (2, 2), (2, 2, 1)])
def test_what_is_no_triplet_is_refused(lengths):
    indices = tuple(torch.zeros(length, dtype=torch.int64) for length in lengths)
    with pytest.raises(InputError, match="three index tensors of one length") as caught:
        TripletMarginLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), indices)
    assert "\n" not in str(caught.value)


def test_supcon_refuses_triplets():
    zeros = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InputError, match="takes no triplets"):
        SupConLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), Triplets(zeros, zeros, zeros))
