"""Learning at group level: losses of collections, mixed with those of items, or without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from setrep.aggregators import CentroidAggregator, build_aggregator
from setrep.data.batch import Batch
from setrep.errors import InputError
from setrep.losses import DebiasedNegativesLoss, NTXentLoss, SupConLoss, TripletMarginLoss
from setrep.methods.collections import CollectionMethod, Objective, aggregate
from setrep.methods.method import TrainingItems
from setrep.methods.prior import LabelledPrior
from setrep.methods.subcollections import SubcollectionMethod, labels_of_collections
from setrep.miners import BatchHardMiner
from tests.loss_reference import loop_supcon, loop_triplet_losses, loop_triplets

DIM = 4
HARD = Objective(TripletMarginLoss(soft=True), BatchHardMiner())


class Identity(nn.Module):
    """An encoder that takes items for embeddings."""

    dim = DIM

    def forward(self, items):
        return items

    features = forward


def episode(sizes: list[int], labels: list[int], seed: int = 0) -> Batch:
    """Draw collections of the given sizes and labels."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(sum(sizes), DIM, generator=generator, dtype=torch.float64)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    of_items = torch.tensor(labels).repeat_interleave(torch.tensor(sizes))
    return Batch([items], of_items, offsets, torch.arange(len(items)))


def means(batch: Batch) -> torch.Tensor:
    """Average each collection in a loop."""
    pieces = torch.split(batch.views[0], batch.offsets.diff().tolist())
    return torch.stack([sum(piece) / len(piece) for piece in pieces])


RAGGED = episode([3, 1, 2, 5, 1, 4], [0, 0, 1, 1, 2, 2])
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_the_loss_of_an_episode_is_that_of_its_collections_by_a_loop():
    every = Objective(TripletMarginLoss(0.7))
    found, metrics = CollectionMethod(Identity(), CentroidAggregator(DIM), every).step(RAGGED)
    triplets = loop_triplets(LABELS)
    losses = loop_triplet_losses(means(RAGGED), triplets, 0.7)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert int(metrics["num_triplets"]) == len(triplets) == 6 * 1 * 4

    supcon = CollectionMethod(Identity(), CentroidAggregator(DIM), Objective(SupConLoss(0.5)))
    expected = np.mean(loop_supcon(means(RAGGED), LABELS, 0.5, "out"))
    assert float(supcon.step(RAGGED)[0]) == pytest.approx(expected, rel=1e-12)


def test_a_mixed_objective_weighs_the_loss_of_collections_and_that_of_items():
    aggregator = CentroidAggregator(DIM)
    every = Objective(TripletMarginLoss(0.7))
    mixed = CollectionMethod(Identity(), aggregator, every, every, weight=0.3)
    found, metrics = mixed.step(RAGGED)
    of_collections = CollectionMethod(Identity(), aggregator, every).step(RAGGED)[0]
    of_items = TripletMarginLoss(0.7)(RAGGED.views[0], RAGGED.labels)
    assert float(found) == pytest.approx(float(0.3 * of_collections + 0.7 * of_items), rel=1e-12)
    assert int(metrics["item_num_triplets"]) > int(metrics["num_triplets"])


@pytest.mark.parametrize("weight", [1.0, 1.5, -0.1])
def test_a_weight_that_leaves_no_loss_of_items_is_refused_beside_one(weight: float):
    with pytest.raises(InputError, match="weight"):
        CollectionMethod(Identity(), CentroidAggregator(DIM), HARD, HARD, weight=weight)
    with pytest.raises(InputError, match="weight"):
        CollectionMethod(Identity(), CentroidAggregator(DIM), HARD, weight=0.5)


@given(
    collections=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=8),
    aggregator=st.sampled_from(["centroid", "attention", "deep_sets"]),
    objective=st.sampled_from([HARD, Objective(SupConLoss(0.5)), Objective(TripletMarginLoss())]),
)
@settings(max_examples=40, deadline=None)
def test_ragged_singleton_and_unbalanced_episodes_train(collections, aggregator, objective):
    sizes, labels = (list(of) for of in zip(*collections, strict=True))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh()).double()
    pooled = build_aggregator(aggregator, DIM).double()
    method = CollectionMethod(encoder, pooled, objective, objective, weight=0.5)
    loss, _ = method.step(episode(sizes, labels))
    loss.backward()
    assert bool(loss.isfinite())
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    has_triplet = any(labels.count(x) > 1 for x in labels) and len(set(labels)) > 1
    if has_triplet:
        assert any(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_a_learned_aggregator_learns_from_the_loss_of_collections():
    """Only items with a large first coordinate tell the label."""
    torch.manual_seed(0)
    method = CollectionMethod(
        Identity(), build_aggregator("attention", DIM).double(), Objective(SupConLoss(0.2))
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    losses = []
    for step in range(120):
        batch = episode([6] * 8, [0, 0, 1, 1, 2, 2, 3, 3], seed=step)
        items = batch.views[0]
        is_marked = torch.arange(len(items)) % 3 == 0
        items[:, 0] = is_marked.double() * 2
        items[is_marked, 1:] = torch.eye(4, dtype=torch.float64)[batch.labels[is_marked]][:, 1:] * 3
        items[~is_marked, 1:] *= 3
        loss, _ = method.step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])


def parts_batch() -> Batch:
    """Four collections, two parts of each, of three and two items."""
    return episode([3, 2] * 4, [0, 0, 1, 1, 0, 0, 2, 2])


@pytest.mark.parametrize("loss", [NTXentLoss(0.5), DebiasedNegativesLoss(0.5, tau_plus=0.2)])
def test_parts_of_one_collection_are_the_views_of_a_contrastive_loss(loss):
    batch = parts_batch()
    method = SubcollectionMethod(Identity(), CentroidAggregator(DIM), nn.Identity(), loss)
    found, metrics = method.step(batch)
    first, second = means(batch)[0::2], means(batch)[1::2]
    assert float(found) == pytest.approx(float(loss(first, second)), rel=1e-12)
    assert float(found) != pytest.approx(float(loss(second.flip(0), first)), rel=1e-3)
    assert "embedding_spread" in metrics


def test_labels_of_collections_reach_a_loss_that_asks_for_them():
    batch = parts_batch()
    loss = NTXentLoss(0.5, drop_false_negatives=True)
    method = SubcollectionMethod(Identity(), CentroidAggregator(DIM), nn.Identity(), loss)
    first, second = means(batch)[0::2], means(batch)[1::2]
    labels = torch.tensor([0, 1, 0, 2])
    expected = float(loss(first, second, labels=labels))
    assert float(method.step(batch)[0]) == pytest.approx(expected, rel=1e-12)
    assert expected != pytest.approx(float(NTXentLoss(0.5)(first, second)))


def test_items_mix_in_by_their_augmented_views():
    batch = parts_batch()
    views = [batch.views[0], batch.views[0] + 0.1]
    batch = Batch(views, batch.labels, batch.offsets, batch.index)
    loss = NTXentLoss(0.5)
    method = SubcollectionMethod(
        Identity(),
        CentroidAggregator(DIM),
        nn.Identity(),
        loss,
        item_head=nn.Identity(),
        weight=0.2,
    )
    assert method.num_views == 2
    of_parts = loss(means(batch)[0::2], means(batch)[1::2])
    expected = 0.2 * float(of_parts) + 0.8 * float(loss(*views))
    assert float(method.step(batch)[0]) == pytest.approx(expected, rel=1e-12)


def test_a_collection_is_compared_with_parts_of_itself():
    with pytest.raises(InputError, match="at least 2"):
        SubcollectionMethod(
            Identity(), CentroidAggregator(DIM), nn.Identity(), NTXentLoss(), num_parts=1
        )


def test_the_prior_of_collections_is_counted_from_one_label_for_each():
    # Three collections of label 0, of which one is large, and one each of 1 and 2.
    keys = torch.tensor([4] * 90 + [0, 1, 2, 3])
    labels = torch.tensor([0] * 90 + [0, 1, 0, 2])
    assert labels_of_collections(labels, keys).tolist() == [0, 1, 0, 2, 0]
    method = SubcollectionMethod(
        Identity(),
        CentroidAggregator(DIM),
        nn.Identity(),
        DebiasedNegativesLoss(0.5),
        prior=LabelledPrior(),
    )
    method.before_epoch(0, TrainingItems(lambda: torch.zeros(0), labels, keys))
    assert float(method.step(parts_batch())[1]["tau_plus"]) == pytest.approx(3 / 10)
    assert method.loss.tau_plus == pytest.approx(3 / 10)


def test_a_collection_has_the_label_of_its_first_item_and_not_of_strangers_after_it():
    offsets = torch.tensor([0, 3, 4, 6])
    labels = torch.tensor([7, 2, 2, 5, 2, 7])
    batch = Batch([torch.ones(6, DIM)], labels, offsets, torch.arange(6))
    _, found = aggregate(CentroidAggregator(DIM), batch.views[0], batch)
    assert found.tolist() == [7, 5, 2]
