"""What contrastive losses do with half precision, extremes and bad input."""

import math

import pytest
import torch

from setrep.errors import InputError
from setrep.losses import (
    DebiasedBothLoss,
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DifficultyWeightedLoss,
    HardNegativesLoss,
    NPairLoss,
    NTXentLoss,
)
from tests.contrastive_reference import LOSSES, random_views


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("t", [0.5, 0.01])
def test_a_loss_is_finite_and_of_float32_under_autocast(name, dtype, t):
    views, _ = random_views(0, items=40, dim=16, dtype=torch.float32)
    views = [view.to(dtype).requires_grad_() for view in views]
    with torch.autocast("cpu", dtype):
        loss = LOSSES[name](t)(*views)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(view.grad.isfinite().all() for view in views)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_views_give_finite_losses_and_gradients(name):
    """All alike, opposite, and of length 0."""
    one = torch.eye(4)[:1].repeat(4, 1)
    for first, second in ((one, one), (one, -one), (0 * one, one), (torch.eye(4), -torch.eye(4))):
        views = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        for t in (0.05, 0.5):
            loss = LOSSES[name](t)(*views)
            loss.backward()
            assert loss.isfinite()
            assert all(view.grad.isfinite().all() for view in views)


@pytest.mark.parametrize(
    "loss",
    [
        NTXentLoss(drop_false_negatives=True),
        DebiasedNegativesLoss(drop_false_negatives="exclude"),
        DebiasedNegativesLoss(drop_false_negatives="published"),
        HardNegativesLoss(drop_false_negatives="exclude"),
        DebiasedPositivesLoss(drop_false_negatives="exclude"),
        DebiasedPositivesLoss(drop_false_negatives="published"),
        DebiasedPositivesLoss(estimator="sum", drop_false_negatives="published"),
        DebiasedPositivesLoss(estimator="consistent"),
    ],
)
def test_a_batch_of_one_class_without_false_negatives_costs_nothing(loss):
    views = [view.requires_grad_() for view in random_views(0)[0]]
    found = loss(*views, labels=torch.zeros(5, dtype=torch.int64))
    assert found.item() == 0
    found.backward()
    assert all(view.grad.isfinite().all() for view in views)


BAD = {
    "temperature of 0": (lambda: NTXentLoss(0), "temperature"),
    "negative temperature": (lambda: DebiasedNegativesLoss(-1), "temperature"),
    "temperature that is no number": (lambda: HardNegativesLoss(math.nan), "temperature"),
    "prior of 1": (lambda: DebiasedNegativesLoss(tau_plus=1), "tau_plus"),
    "negative prior": (lambda: DebiasedPositivesLoss(tau_plus=-0.1), "tau_plus"),
    "prior of 0 to divide by": (lambda: DebiasedPositivesLoss(tau_plus=0), "above 0"),
    "negative beta": (lambda: HardNegativesLoss(beta=-1), "beta"),
    "unknown tilt": (lambda: HardNegativesLoss(tilt="kode"), "code"),
    "unknown estimator": (lambda: DebiasedPositivesLoss(estimator="men"), "mean"),
    "unknown views": (lambda: DebiasedPositivesLoss(views="pairs"), "grouping"),
    "unknown drop": (lambda: DebiasedNegativesLoss(drop_false_negatives="all"), "exclude"),
    "published of hard": (lambda: HardNegativesLoss(drop_false_negatives="published"), "Known"),
    "consistent and drop": (
        lambda: DebiasedPositivesLoss(estimator="consistent", drop_false_negatives="exclude"),
        "already",
    ),
    "one view": (lambda: NTXentLoss()(torch.rand(3, 2)), "two or more views"),
    "no view": (lambda: NTXentLoss()(), "two or more views"),
    "two shapes": (lambda: NTXentLoss()(torch.rand(3, 2), torch.rand(4, 2)), "one shape"),
    "one item": (lambda: NTXentLoss()(torch.rand(1, 2), torch.rand(1, 2)), "at least two items"),
    "integers": (lambda: NTXentLoss()(*[torch.ones(3, 2, dtype=torch.int64)] * 2), "floating"),
    "labels missing": (
        lambda: DebiasedPositivesLoss(estimator="consistent")(*[torch.rand(3, 2)] * 2),
        "label",
    ),
    "labels of other length": (
        lambda: NTXentLoss()(*[torch.rand(3, 2)] * 2, labels=torch.zeros(4)),
        "one for each item",
    ),
    "three views of a pair": (lambda: NPairLoss()(*[torch.rand(3, 2)] * 3), "two views"),
    "two pairs of a class": (
        lambda: NPairLoss()(*[torch.rand(3, 2)] * 2, labels=torch.tensor([0, 1, 1])),
        "share a label",
    ),
    "negative penalty": (lambda: NPairLoss(l2_weight=-1), "l2_weight"),
    "one encoder": (lambda: DifficultyWeightedLoss()(*[torch.rand(3, 2)] * 2), "two encoders"),
    "two temperatures": (
        lambda: DebiasedBothLoss(DebiasedPositivesLoss(0.1), DebiasedNegativesLoss(0.2), 0.5),
        "one temperature",
    ),
    "weight of 2": (
        lambda: DebiasedBothLoss(DebiasedPositivesLoss(), DebiasedNegativesLoss(), 2),
        "0..1",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
