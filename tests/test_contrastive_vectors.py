"""Every contrastive loss gives the published formulas' values."""

import pytest
import torch

from setrep.losses import (
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DebiasedTripletLoss,
    DifficultyWeightedLoss,
    HardNegativesLoss,
    NPairLoss,
    NTXentLoss,
)
from tests.loss_reference import PRECISIONS, VECTORS, vector

NEGATIVES, POSITIVES = DebiasedNegativesLoss, DebiasedPositivesLoss
SUM = {"estimator": "sum"}
COMBINED = {"views": "combination"}
PUBLISHED = {"drop_false_negatives": "published"}
# vector, its key, loss, options, number of views
CASES = [
    ("nt_xent", "expected", NTXentLoss, {}, 2),
    ("nt_xent_t0.1", "expected", NTXentLoss, {}, 2),
    ("dcl_M1", "expected", NEGATIVES, {}, 2),
    ("dcl_M1_tau0_equals_nt_xent", "expected", NEGATIVES, {}, 2),
    ("dcl_M1_clamp_active", "expected", NEGATIVES, {}, 2),
    ("dcl_M2", "expected", NEGATIVES, {}, 3),
    ("dcl_M2_loss_combination", "expected", NEGATIVES, COMBINED, 3),
    ("hcl_beta0_equals_dcl", "expected", HardNegativesLoss, {}, 2),
    ("hcl_beta0.5", "expected", HardNegativesLoss, {}, 2),
    ("hcl_beta1", "expected", HardNegativesLoss, {}, 2),
    ("hcl_beta2", "expected", HardNegativesLoss, {}, 2),
    *(
        (
            f"hcl_beta{beta}",
            "paper_sec3_beta_not_divided_by_t",
            HardNegativesLoss,
            {"tilt": "paper"},
            2,
        )
        for beta in ("0.5", "1", "2")
    ),
    ("debiased_pos_M1", "expected", POSITIVES, {}, 2),
    ("debiased_pos_M1", "closed_form_check", POSITIVES, {}, 2),
    ("debiased_pos_M1", "with_clamp", POSITIVES, {}, 2),
    ("debiased_pos_M1", "variant_sum_v2_used_for_published_M1", POSITIVES, SUM, 2),
    ("debiased_pos_M2_pos_grouping", "expected", POSITIVES, {}, 3),
    ("debiased_pos_M2_loss_combination", "expected", POSITIVES, COMBINED, 3),
    (
        "debiased_pos_M2_loss_combination",
        "variant_sum_v2_used_for_published_M2",
        POSITIVES,
        COMBINED | SUM,
        3,
    ),
    (
        "debiased_pos_drop_fn",
        "expected_exclude",
        POSITIVES,
        {"drop_false_negatives": "exclude"},
        2,
    ),
    (
        "debiased_pos_drop_fn",
        "expected_consistent",
        POSITIVES,
        {"estimator": "consistent"},
        2,
    ),
    ("debiased_pos_drop_fn", "official_v3_zero_fill", POSITIVES, PUBLISHED, 2),
    ("debiased_pos_drop_fn", "official_v2_published", POSITIVES, PUBLISHED | SUM, 2),
    ("debiased_pos_clamp_active_silent", "expected_with_clamp", POSITIVES, {}, 2),
    ("debiased_pos_clamp_active_nan", "expected_with_clamp", POSITIVES, {}, 2),
]


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize(("name", "key", "loss", "options", "num_views"), CASES)
def test_a_loss_gives_the_reference_value(name, key, loss, options, num_views, dtype):
    case = vector(name)
    knobs = {k: v for k, v in case["hyper"].items() if k in ("temperature", "tau_plus", "beta")}
    inputs = case["inputs"]
    views = [torch.tensor(inputs[f"view{i + 1}"], dtype=dtype) for i in range(num_views)]
    labels = torch.tensor(inputs["labels"]) if "labels" in inputs else None
    found = loss(**knobs, **options)(*views, labels=labels)
    assert found.dtype == dtype
    assert found.item() == pytest.approx(case[key], abs=PRECISIONS[dtype])


def test_no_contrastive_vector_is_left_out():
    ours = ("nt_xent", "dcl", "hcl", "debiased_pos", "n_pair", "wcl")
    known = {name for name in VECTORS["vectors"] if name.startswith(ours)}
    assert known == {case[0] for case in CASES} | {"n_pair", "wcl"}


def test_the_typo_of_the_pseudo_code_is_not_what_hard_negatives_computes():
    case = vector("hcl_beta0.5")
    wrong = case["wrong_value_if_figure13_pseudocode_typo_is_implemented"]
    views = [torch.tensor(case["inputs"][f"view{i}"]) for i in (1, 2)]
    found = HardNegativesLoss(temperature=0.5, tau_plus=0.1, beta=0.5)(*views)
    assert abs(found.item() - wrong) > 0.1


@pytest.mark.parametrize("name", ["dcl_M1", "dcl_M1_clamp_active"])
def test_the_share_of_clamped_anchors_is_reported(name):
    case = vector(name)
    views = [torch.tensor(case["inputs"][f"view{i}"]) for i in (1, 2)]
    loss = DebiasedNegativesLoss(0.5, tau_plus=case["hyper"]["tau_plus"])
    clamped = [anchor["clamped"] for anchor in case["per_anchor"]]
    found = loss.with_metrics(*views)[1]["clamped_share"]
    assert found.item() == pytest.approx(sum(clamped) / len(clamped))


@pytest.mark.parametrize(
    ("l2_weight", "key"), [(0.0, "expected_no_reg"), (0.002, "expected_tf_reg_0.25_l2")]
)
def test_n_pair_gives_the_reference_values(l2_weight, key, dtype):
    case = vector("n_pair")
    views = [torch.tensor(case["inputs"][name], dtype=dtype) for name in ("anchors", "positives")]
    found = NPairLoss(l2_weight=l2_weight)(*views)
    assert found.item() == pytest.approx(case[key], abs=PRECISIONS[dtype])


def test_the_two_losses_of_difficulty_give_the_reference_values(dtype):
    case = vector("wcl")
    own, biased = (
        [torch.tensor(case["inputs"][f"{encoder}_view{i}"], dtype=dtype) for i in (1, 2)]
        for encoder in ("Ed", "Eb")
    )
    expected, tolerance = case["expected"], PRECISIONS[dtype]
    loss = DifficultyWeightedLoss(0.5, tau_plus=0.1)
    assert loss(*own, biased=biased).item() == pytest.approx(expected["loss_crt_Ed"], abs=tolerance)
    terms = [loss._terms(tuple(views), None, None) for views in (own, biased)]
    weights = loss.weights(*terms)[terms[0].is_negative].view(len(own[0]) * 2, -1)
    wanted = torch.tensor(expected["weights"], dtype=dtype)
    torch.testing.assert_close(
        weights.sort(dim=1).values, wanted.sort(dim=1).values, atol=tolerance, rtol=0
    )
    for reduction, key in (("sum", "sum_over_negatives"), ("mean", "mean_over_negatives")):
        found = DebiasedTripletLoss(tau_plus=0.1, reduction=reduction)(*biased)
        wanted_value = expected[f"loss_tri_Eb_{key}"]
        assert found.item() == pytest.approx(wanted_value, abs=tolerance, rel=tolerance)
