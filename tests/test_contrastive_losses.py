"""Laws of the contrastive losses: loops from the formulas, identities, symmetries, gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from setrep.losses import (
    DebiasedBothLoss,
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DebiasedTripletLoss,
    DifficultyWeightedLoss,
    HardNegativesLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
)
from tests.contrastive_reference import (
    LOSSES,
    loop_debiased_negatives,
    loop_debiased_positives,
    loop_debiased_triplet,
    loop_difficulty_weighted,
    loop_n_pair,
    loop_nt_xent,
    mean,
    pairs_of,
    random_views,
)
from tests.loss_reference import SEEDS, a_few_batches

TEMPERATURES = st.sampled_from([0.1, 0.5, 1.0])
PRIORS = st.sampled_from([0.01, 0.1, 0.4])
NUM_VIEWS = st.integers(2, 4)


@a_few_batches
@given(SEEDS, TEMPERATURES, NUM_VIEWS)
def test_nt_xent_equals_its_loop_over_all_pairs_of_views(seed, t, num_views):
    views, labels = random_views(seed, num_views)
    wanted = mean(loop_nt_xent(pair, t) for pair in pairs_of(views))
    assert NTXentLoss(t)(*views).item() == pytest.approx(wanted, abs=1e-10)
    wanted = mean(loop_nt_xent(pair, t, labels) for pair in pairs_of(views))
    found = NTXentLoss(t, drop_false_negatives=True)(*views, labels=labels)
    assert found.item() == pytest.approx(wanted, abs=1e-10)


@a_few_batches
@given(
    SEEDS,
    TEMPERATURES,
    PRIORS,
    NUM_VIEWS,
    st.sampled_from(["none", "exclude", "published"]),
    st.sampled_from(["grouping", "combination"]),
)
def test_debiased_negatives_equal_their_loop(seed, t, tau_plus, num_views, drop, how):
    views, labels = random_views(seed, num_views)
    groups = [views] if how == "grouping" else pairs_of(views)
    wanted = mean(loop_debiased_negatives(group, t, tau_plus, labels, drop) for group in groups)
    loss = DebiasedNegativesLoss(t, tau_plus=tau_plus, views=how, drop_false_negatives=drop)
    assert loss(*views, labels=labels).item() == pytest.approx(wanted, abs=1e-10)


@a_few_batches
@given(
    SEEDS,
    TEMPERATURES,
    PRIORS,
    NUM_VIEWS,
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from(["code", "paper"]),
    st.sampled_from(["none", "exclude"]),
)
def test_hard_negatives_equal_their_loop(seed, t, tau_plus, num_views, beta, tilt, drop):
    views, labels = random_views(seed, num_views)
    wanted = loop_debiased_negatives(views, t, tau_plus, labels, drop, beta, tilt)
    loss = HardNegativesLoss(t, tau_plus=tau_plus, beta=beta, tilt=tilt, drop_false_negatives=drop)
    assert loss(*views, labels=labels).item() == pytest.approx(wanted, abs=1e-10)


@a_few_batches
@given(
    SEEDS,
    TEMPERATURES,
    PRIORS,
    NUM_VIEWS,
    st.sampled_from(
        [
            ("mean", "none"),
            ("mean", "exclude"),
            ("mean", "published"),
            ("sum", "none"),
            ("sum", "exclude"),
            ("sum", "published"),
            ("consistent", "none"),
        ]
    ),
    st.sampled_from(["grouping", "combination"]),
)
def test_debiased_positives_equal_their_loop(seed, t, tau_plus, num_views, variant, how):
    estimator, drop = variant
    views, labels = random_views(seed, num_views)
    groups = [views] if how == "grouping" else pairs_of(views)
    wanted = mean(
        loop_debiased_positives(group, t, tau_plus, estimator, labels, drop) for group in groups
    )
    loss = DebiasedPositivesLoss(
        t, tau_plus=tau_plus, estimator=estimator, views=how, drop_false_negatives=drop
    )
    assert loss(*views, labels=labels).item() == pytest.approx(wanted, abs=1e-9)


@a_few_batches
@given(SEEDS, TEMPERATURES, PRIORS, st.booleans())
def test_the_losses_of_two_encoders_equal_their_loops(seed, t, tau_plus, normalized):
    views, _ = random_views(seed)
    biased, _ = random_views(seed + 1, dim=3)
    loss = DifficultyWeightedLoss(t, tau_plus=tau_plus, normalize_weights=normalized)
    wanted = loop_difficulty_weighted(views, biased, t, tau_plus, normalized)
    assert loss(*views, biased=biased).item() == pytest.approx(wanted, abs=1e-10)
    for reduction in ("sum", "mean"):
        wanted = loop_debiased_triplet(biased, tau_plus, reduction)
        found = DebiasedTripletLoss(tau_plus=tau_plus, reduction=reduction)(*biased)
        assert found.item() == pytest.approx(wanted, abs=1e-10)


@a_few_batches
@given(SEEDS, st.sampled_from([0.0, 0.002, 1.0]))
def test_n_pair_equals_its_loop(seed, l2_weight):
    views = [2 * view for view in random_views(seed)[0]]
    wanted = loop_n_pair(*views, l2_weight)
    assert NPairLoss(l2_weight=l2_weight)(*views).item() == pytest.approx(wanted, abs=1e-10)


@a_few_batches
@given(SEEDS, TEMPERATURES, PRIORS)
def test_one_loss_is_a_special_case_of_the_next(seed, t, tau_plus):
    views, _ = random_views(seed)
    plain = NTXentLoss(t)(*views)
    torch.testing.assert_close(DebiasedNegativesLoss(t, tau_plus=0)(*views), plain)
    alone = torch.arange(len(views[0])).repeat(2)
    torch.testing.assert_close(SupConLoss(t)(torch.cat(views), alone), plain)
    debiased = DebiasedNegativesLoss(t, tau_plus=tau_plus)(*views)
    torch.testing.assert_close(HardNegativesLoss(t, tau_plus=tau_plus, beta=0)(*views), debiased)
    positives = DebiasedPositivesLoss(t, tau_plus=tau_plus)(*views)
    for weight, wanted in ((0, debiased), (1, positives), (0.5, (debiased + positives) / 2)):
        both = DebiasedBothLoss(
            DebiasedPositivesLoss(t, tau_plus=tau_plus),
            DebiasedNegativesLoss(t, tau_plus=tau_plus),
            weight,
        )
        torch.testing.assert_close(both(*views), wanted)


@a_few_batches
@given(SEEDS, TEMPERATURES)
def test_debiased_positives_have_a_closed_form_in_one_ratio(seed, t):
    """L = log(1 + N / (1 + (q - 2) / (tau_plus (N + 2)))), q = (h(x, v) + h(x, x)) / mean h."""
    tau_plus, (views, _) = 0.3, random_views(seed, items=6)
    rows = torch.cat(views)
    h = (rows @ rows.T / t).exp()
    n = len(rows) - 2
    positive = h.gather(1, torch.arange(len(rows)).roll(len(rows) // 2).unsqueeze(1)).squeeze(1)
    q = (positive + math.exp(1 / t)) / ((h.sum(dim=1) - positive - math.exp(1 / t)) / n)
    wanted = (1 + n / (1 + (q - 2) / (tau_plus * (n + 2)))).log().mean()
    torch.testing.assert_close(DebiasedPositivesLoss(t, tau_plus=tau_plus)(*views), wanted)


@a_few_batches
@given(SEEDS, TEMPERATURES, st.integers(3, 5))
def test_grouped_positives_cost_at_most_what_their_combination_with_one_anchor_does(seed, t, m):
    """Jensen: the loss is convex in h(x, v), for the same anchors and negatives."""
    views, _ = random_views(seed, m)
    tau_plus = 0.25  # at least 2 / (N + 2), so that no floor holds
    grouped = loop_debiased_positives(views, t, tau_plus)
    one_by_one = []
    for extra in views[2:]:
        anchors = views[:2]
        one_by_one.append(_with_positives(anchors, [extra, extra], t, tau_plus))
    one_by_one.append(loop_debiased_positives(views[:2], t, tau_plus))
    found = DebiasedPositivesLoss(t, tau_plus=tau_plus)(*views).item()
    assert found == pytest.approx(grouped, abs=1e-9)
    assert found <= mean(one_by_one) + 1e-12


def _with_positives(views, positives, t, tau_plus):
    """The M = 1 loss with the positive of each anchor taken from elsewhere."""
    rows, wanted = torch.cat(views), torch.cat(positives)
    n = len(rows) - 2
    h = (rows @ rows.T / t).exp()
    twin = torch.arange(len(rows)).roll(len(rows) // 2)
    s = h.sum(dim=1) - h.diagonal() - h.gather(1, twin.unsqueeze(1)).squeeze(1)
    hv = ((rows * wanted).sum(dim=1) / t).exp()
    r = ((s + hv + math.exp(1 / t)) / (n + 2) - (1 - tau_plus) * s / n) / tau_plus
    return (1 + s / r.clamp(min=math.exp(-1 / t))).log().mean().item()


@pytest.mark.parametrize("name", LOSSES)
@a_few_batches
@given(seed=SEEDS, t=TEMPERATURES)
def test_symmetries_leave_a_loss_as_it_is(name, seed, t):
    views, _ = random_views(seed, items=6, dim=4)
    loss = LOSSES[name](t)
    value = loss(*views)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(loss(views[1], views[0]), value)
    torch.testing.assert_close(loss(*(view[order] for view in views)), value)
    torch.testing.assert_close(loss(*(view @ rotation for view in views)), value)
    torch.testing.assert_close(loss(*(3 * view for view in views)), value)


@pytest.mark.parametrize("name", LOSSES)
@a_few_batches
@given(seed=SEEDS, t=TEMPERATURES, share=st.integers(1, 5))
def test_the_loss_is_the_mean_over_shares_of_the_anchors(name, seed, t, share):
    views, _ = random_views(seed, items=6)
    loss = LOSSES[name](t)
    parts = torch.arange(6).split([share, 6 - share])
    found = sum(loss(*views, anchors=part) * len(part) for part in parts) / 6
    torch.testing.assert_close(found, loss(*views))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("num_views", [2, 3])
def test_gradients_are_those_of_finite_differences(name, num_views):
    views = [view.requires_grad_() for view in random_views(3, num_views, dim=3)[0]]
    assert torch.autograd.gradcheck(lambda *v: LOSSES[name](0.5)(*v), views)


def test_gradients_of_the_losses_with_labels_and_of_n_pair_and_of_two_encoders():
    views, labels = random_views(3, dim=3)
    views = [view.requires_grad_() for view in views]
    for loss in (
        DebiasedPositivesLoss(0.5, estimator="consistent"),
        DebiasedPositivesLoss(0.5, drop_false_negatives="exclude"),
        DebiasedNegativesLoss(0.5, drop_false_negatives="exclude"),
        HardNegativesLoss(0.5, beta=2, drop_false_negatives="exclude"),
    ):
        assert torch.autograd.gradcheck(lambda *v, loss=loss: loss(*v, labels=labels), views)
    assert torch.autograd.gradcheck(lambda *v: NPairLoss(l2_weight=0.1)(*v), views)


def test_the_similarity_that_difficulty_reports_is_that_of_the_plain_loss():
    views, biased = random_views(0)[0], random_views(1)[0]
    plain = NTXentLoss().with_metrics(*views)[1]
    found = DifficultyWeightedLoss().with_metrics(*views, biased=biased)[1]
    for name in ("positive_similarity", "negative_similarity"):
        torch.testing.assert_close(found[name], plain[name])


def test_weights_of_difficulty_carry_no_gradient():
    views, biased = random_views(0)[0], random_views(1)[0]
    for view in biased:
        view.requires_grad_()
    views[0].requires_grad_()
    DifficultyWeightedLoss()(*views, biased=biased).backward()
    assert views[0].grad.abs().sum() > 0
    assert all(view.grad is None for view in biased)


def test_in_batch_negatives_make_the_published_estimate_forget_the_class():
    """As N grows, R goes to the mean over all classes, not over the anchor's; `consistent` stays.

    Ten classes at the corners of a simplex, temperature 0.5: losses.md of the paper's analysis.
    """
    t, num_classes = 0.5, 10
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes)

    def estimates(n, repeats):
        found = {"mean": [], "consistent": []}
        for _ in range(repeats):
            labels = torch.randint(num_classes, (n,), generator=generator)
            views = (centres[labels], centres[labels])
            for name in found:
                loss = DebiasedPositivesLoss(t, tau_plus=1 / num_classes, estimator=name)
                found[name].append(loss.with_metrics(*views, labels=labels)[1]["estimate"])
        return {name: float(torch.stack(of).mean()) for name, of in found.items()}

    own = math.exp(1 / t)  # h of two items of one class
    other = math.exp(-1 / (num_classes - 1) / t)
    everyone = own / num_classes + other * (1 - 1 / num_classes)
    few, many = estimates(16, 40), estimates(1024, 6)
    assert many["mean"] == pytest.approx(everyone, rel=0.05)
    assert abs(few["mean"] - own) < abs(many["mean"] - own)
    assert many["consistent"] == pytest.approx(own, rel=0.1)
