"""`tau_plus="auto"`: the prior counted from the labels of a few hundred training items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from setrep.errors import InputError
from setrep.losses import DebiasedNegativesLoss
from setrep.methods.prior import LabelledPrior
from setrep.reports import runs


@pytest.mark.parametrize(("label", "share"), [(0, "all"), (None, "none")])
def test_a_prior_without_two_kinds_of_pairs_is_refused(label: int | None, share: str):
    labels = torch.arange(9) if label is None else torch.full((9,), label)
    with pytest.raises(InputError, match=f"{share} of the pairs of 9 random .* as a number"):
        LabelledPrior().prepare(labels)


def test_only_five_hundred_labels_are_looked_at_and_the_estimate_is_kept():
    prior = LabelledPrior(seed=3)
    labels = torch.arange(4000) % 100
    prior.prepare(labels)
    kept = float(prior.tau_plus)
    assert kept == pytest.approx(0.01, rel=0.2)
    assert kept * 500 * 499 / 2 == pytest.approx(round(kept * 500 * 499 / 2))  # a count of pairs
    prior.prepare(torch.zeros(4, dtype=torch.int64))
    assert float(prior.tau_plus) == kept


def test_a_loss_gets_the_prior_once_it_is_known_also_after_a_restart():
    loss = DebiasedNegativesLoss(tau_plus=0.3)
    prior = LabelledPrior()
    prior.apply_to(loss)
    assert loss.tau_plus == 0.3
    prior.prepare(torch.arange(40) % 4)
    prior.apply_to(loss)
    assert loss.tau_plus == pytest.approx(9 / 39)
    again, other = LabelledPrior(), DebiasedNegativesLoss(tau_plus=0.3)
    again.load_state_dict(prior.state_dict())
    again.apply_to(other)
    assert other.tau_plus == loss.tau_plus


def test_labels_that_tell_no_prior_are_refused_before_anything_is_written(tmp_path: Path):
    splits = np.where(np.arange(60) < 40, "train", "test")
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    path = tmp_path / "one.npz"
    np.savez(path, values=values, labels=np.zeros(60, dtype=np.int64), splits=splits)
    asked = {
        "data": {"dataset": "vectors", "data_root": str(path)},
        "augmentation": {"noise": 0.3},
        "loss": {"name": "debiased_negatives", "tau_plus": "auto"},
        "training": {"max_steps": 2, "batch_size": 20, "device": "cpu"},
        "evaluation": {"protocol": "train_bank"},
        "output_dir": str(tmp_path / "run"),
    }
    with pytest.raises(InputError, match="all of the pairs of 40 random training items are"):
        runs.train(runs.configure([asked]))
    assert not (tmp_path / "run").exists()
