"""Losses and miners against pytorch-metric-learning, where it is installed."""

import pytest
import torch

from setrep.errors import InputError
from setrep.functional import all_triplets
from setrep.losses import SupConLoss, TripletMarginLoss
from setrep.miners import BatchAllMiner, BatchHardMiner, HardNegativeMiner, SemiHardMiner

pml_losses = pytest.importorskip("pytorch_metric_learning.losses")
pml_miners = pytest.importorskip("pytorch_metric_learning.miners")
pml_distances = pytest.importorskip("pytorch_metric_learning.distances")
pml_reducers = pytest.importorskip("pytorch_metric_learning.reducers")

PML_REDUCERS = {"mean": "MeanReducer", "mean_nonzero": "AvgNonZeroReducer"}


@pytest.fixture
def batch():
    embeddings = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return embeddings.requires_grad_(), torch.arange(16) % 4


def euclidean(power=1):
    return pml_distances.LpDistance(normalize_embeddings=False, power=power)


def peer(reduction="mean", power=1, **options):
    reducer = getattr(pml_reducers, PML_REDUCERS[reduction])()
    return pml_losses.TripletMarginLoss(distance=euclidean(power), reducer=reducer, **options)


def as_set(triplets):
    return set(zip(*(indices.tolist() for indices in triplets), strict=True))


def assert_same_value_and_gradient(ours, theirs, embeddings):
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, embeddings, retain_graph=True)
    (expected,) = torch.autograd.grad(theirs, embeddings, retain_graph=True)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("reduction", ["mean", "mean_nonzero"])
@pytest.mark.parametrize(("distance", "power"), [("euclidean", 1), ("squared", 2)])
def test_all_triplets_give_the_loss_of_the_peer(batch, reduction, distance, power):
    ours = TripletMarginLoss(0.4, distance=distance, reduction=reduction)(*batch)
    theirs = peer(reduction, power, margin=0.4)(*batch)
    assert_same_value_and_gradient(ours, theirs, batch[0])


def test_the_soft_loss_is_the_smooth_loss_of_the_peer_without_margin(batch):
    ours = TripletMarginLoss(soft=True)(*batch)
    assert_same_value_and_gradient(ours, peer(margin=0, smooth_loss=True)(*batch), batch[0])


@pytest.mark.parametrize("name", ["BatchHardMiner", "all", "hard", "semihard"])
def test_triplets_of_the_peers_miners_drop_in(batch, name):
    miner = (
        pml_miners.BatchHardMiner(distance=euclidean())
        if name == "BatchHardMiner"
        else pml_miners.TripletMarginMiner(0.4, name, distance=euclidean())
    )
    triplets = miner(*batch)
    assert len(triplets[0]) > 0
    ours = TripletMarginLoss(0.4)(*batch, triplets)
    assert_same_value_and_gradient(ours, peer(margin=0.4)(*batch, triplets), batch[0])


@pytest.mark.parametrize(
    "miner", [BatchAllMiner(), BatchHardMiner(), HardNegativeMiner(), SemiHardMiner(margin=0.4)]
)
def test_our_triplets_drop_into_the_peers_loss(batch, miner):
    triplets = miner(*batch)
    assert len(triplets.anchors) > 0
    ours = TripletMarginLoss(0.4)(*batch, triplets)
    assert_same_value_and_gradient(ours, peer(margin=0.4)(*batch, triplets), batch[0])


def test_batch_hard_is_the_peers_batch_hard(batch):
    theirs = pml_miners.BatchHardMiner(distance=euclidean())(*batch)
    assert as_set(BatchHardMiner()(*batch)) == as_set(theirs)


def test_semi_hard_takes_the_nearest_of_the_band_that_the_peer_returns_whole(batch):
    embeddings, labels = batch
    band = pml_miners.TripletMarginMiner(0.4, "semihard", distance=euclidean())(embeddings, labels)
    nearest = {}
    for a, p, n in as_set(band):
        best = nearest.setdefault((a, p), n)
        if (embeddings[a] - embeddings[n]).norm() < (embeddings[a] - embeddings[best]).norm():
            nearest[a, p] = n
    ours = SemiHardMiner(margin=0.4)(embeddings, labels)
    assert as_set(ours) == {(a, p, n) for (a, p), n in nearest.items()}


def test_pairs_of_the_peers_pair_miner_are_refused_in_one_line(batch):
    pairs = pml_miners.BatchEasyHardMiner(distance=euclidean())(*batch)
    assert len(pairs) == 4
    with pytest.raises(InputError, match="use a miner that returns triplets"):
        TripletMarginLoss()(*batch, pairs)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_is_the_peers_supcon(batch, temperature):
    embeddings = torch.nn.functional.normalize(batch[0], dim=1)
    ours = SupConLoss(temperature)(embeddings, batch[1])
    dot = pml_distances.DotProductSimilarity(normalize_embeddings=False)
    theirs = pml_losses.SupConLoss(temperature, distance=dot)(embeddings, batch[1])
    assert_same_value_and_gradient(ours, theirs, batch[0])


def test_supcon_skips_singletons_as_the_peer_does(batch):
    labels = batch[1].clone()
    labels[0] = 9
    dot = pml_distances.DotProductSimilarity(normalize_embeddings=False)
    theirs = pml_losses.SupConLoss(0.5, distance=dot)(batch[0], labels)
    assert_same_value_and_gradient(SupConLoss(0.5)(batch[0], labels), theirs, batch[0])


def test_all_valid_triplets_are_those_of_the_peer(batch):
    from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices

    assert as_set(all_triplets(batch[1])) == as_set(get_all_triplets_indices(batch[1]))
