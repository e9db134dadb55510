"""What holds for every loss."""

import math

import pytest
import torch
from hypothesis import given

from setrep.errors import InputError
from setrep.losses import SupConLoss, TripletMarginLoss
from tests.loss_reference import SEEDS, a_few_batches, batch

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


def test_autocast_around_an_encoder_stays_near_float32():
    embeddings, labels, _ = batch(0, dtype=torch.float32)
    weight = torch.eye(5) + 0.1
    for loss in (TripletMarginLoss(0.3), SupConLoss(0.5)):
        expected = loss(embeddings @ weight, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(embeddings @ weight, labels)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


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
    embeddings[5, 0] = 1.0005
    metrics = TripletMarginLoss().with_metrics(embeddings, torch.arange(8) % 2)[1]
    assert metrics["collapsed"] == 0


def test_a_single_embedding_is_no_collapse():
    metrics = SupConLoss().with_metrics(torch.ones(1, 3), torch.tensor([0]))[1]
    assert metrics["collapsed"] == 0


def test_embeddings_at_the_origin_are_reported_as_collapsed():
    metrics = SupConLoss().with_metrics(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]))[1]
    assert metrics["collapsed"] == 1


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
