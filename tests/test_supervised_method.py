"""The supervised method: which triplets it takes the loss of, and when it begins to mine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from setrep.aggregators import CentroidAggregator
from setrep.config import EncoderConfig, resolve
from setrep.data.batch import Batch
from setrep.encoders import build_encoder
from setrep.item_format import ItemFormat
from setrep.losses.triplet import TripletMarginLoss
from setrep.methods.supervised import SupervisedMethod, embedding_spread
from setrep.miners import HardNegativeMiner
from setrep.training.methods import build_supervised

VECTORS = ItemFormat("vector", 6, 1)
LABELS = torch.arange(3).repeat_interleave(4)
COLLECTIONS = torch.arange(6).repeat_interleave(2)


def batch() -> Batch:
    items = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    offsets = torch.arange(0, 13, 2)
    return Batch([items], LABELS, offsets, torch.arange(12))


def method(start_step: int) -> SupervisedMethod:
    config = EncoderConfig(name="identity", projection="none", normalize=False)
    encoder = build_encoder(config, VECTORS)
    return SupervisedMethod(
        encoder,
        CentroidAggregator(6),
        TripletMarginLoss(1.0),
        HardNegativeMiner(),
        start_step=start_step,
    )


def test_mining_begins_at_its_step_after_every_triplet_of_the_own_collection() -> None:
    counts, losses = [], []
    tried = method(start_step=2)
    for step in range(4):
        loss, metrics = tried.step(batch())
        tried.after_step(step)
        counts.append(int(metrics["num_triplets"]))
        losses.append(float(loss))
    items, labels = batch().views[0], LABELS
    own = TripletMarginLoss(1.0, positives="same_collection")
    every = float(own(items, labels, collections=COLLECTIONS))
    mined = float(TripletMarginLoss(1.0)(items, labels, HardNegativeMiner()(items, labels)))
    assert counts == [12 * 1 * 8, 12 * 1 * 8, 12 * 3, 12 * 3]
    assert losses == pytest.approx([every, every, mined, mined])
    assert every != pytest.approx(mined)


def test_a_continued_run_begins_to_mine_where_an_unbroken_one_does() -> None:
    first, second = method(start_step=3), method(start_step=3)
    first.after_step(1)
    second.load_state_dict(first.state_dict())
    assert int(second.step(batch())[1]["num_triplets"]) == 12 * 1 * 8
    second.after_step(2)
    assert int(second.step(batch())[1]["num_triplets"]) == 12 * 3


def test_without_a_start_step_mining_begins_at_once() -> None:
    assert int(method(start_step=0).step(batch())[1]["num_triplets"]) == 12 * 3


@pytest.mark.parametrize(
    ("positives", "per_anchor"), [("any", 3), ("same_collection", 1), ("cross_collection", 2)]
)
def test_a_run_mines_the_positives_it_names_once_mining_begins(
    positives: str, per_anchor: int
) -> None:
    config = resolve(
        {
            "encoder": {"name": "identity", "projection": "none"},
            "loss": {"name": "triplet"},
            "miner": {"name": "hard_negative", "positives": positives, "start_step": 1},
        }
    )
    tried = build_supervised(config, VECTORS)
    assert int(tried.step(batch())[1]["num_triplets"]) == 12 * 1 * 8
    tried.after_step(0)
    assert int(tried.step(batch())[1]["num_triplets"]) == 12 * per_anchor


def test_embedding_spread_is_0_for_one_point_and_near_1_around_the_origin() -> None:
    assert float(embedding_spread(torch.ones(5, 3))) == 0
    points = nn.functional.normalize(torch.randn(4000, 3), dim=1)
    assert float(embedding_spread(points)) == pytest.approx(1, abs=0.01)
