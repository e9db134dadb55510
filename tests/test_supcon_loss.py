import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.functional import Triplets
from setrep.losses import SupConLoss
from tests.loss_reference import (
    PRECISIONS,
    SEEDS,
    a_few_batches,
    batch,
    is_positive,
    loop_supcon,
    vector,
)


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


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


@a_few_batches
@given(seed=SEEDS, temperature=st.floats(0.05, 2))
def test_l_in_is_at_most_l_out(seed, temperature):
    embeddings, labels, _ = batch(seed)
    inside = SupConLoss(temperature, form="in")(embeddings, labels)
    outside = SupConLoss(temperature, form="out")(embeddings, labels)
    assert inside <= outside + 1e-12


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


def test_supcon_refuses_triplets():
    zeros = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InputError, match="takes no triplets"):
        SupConLoss()(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), Triplets(zeros, zeros, zeros))
