"""Two processes learn collections, with labels or without, with the gradient of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from setrep import distributed
from setrep.aggregators import build_aggregator
from setrep.data.batch import Batch
from setrep.losses import (
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    NTXentLoss,
    SupConLoss,
    TripletMarginLoss,
)
from setrep.methods.collections import CollectionMethod, Objective
from setrep.methods.method import Method
from setrep.methods.subcollections import SubcollectionMethod
from setrep.miners import BatchHardMiner, SemiHardMiner
from tests.test_distributed import run_two

SIZES = [3, 1, 2, 4, 1, 1, 2, 5, 3, 2, 1, 2]
SHARE = 8  # collections of the first process; the other has the rest
TRIPLET = Objective(TripletMarginLoss(soft=True), BatchHardMiner())
CASES = {
    "triplet": (TRIPLET, None),
    "semi-hard": (Objective(TripletMarginLoss(1.0), SemiHardMiner(1.0)), None),
    "supcon": (Objective(SupConLoss(0.5)), None),
    "triplet and items": (TRIPLET, TRIPLET),
    "nt_xent": (NTXentLoss(0.5), None),
    "debiased negatives": (DebiasedNegativesLoss(0.5, tau_plus=0.2), None),
    "debiased positives": (DebiasedPositivesLoss(0.5, tau_plus=0.2), None),
    "nt_xent and items": (NTXentLoss(0.5), nn.Identity()),
}


class Encoder(nn.Module):
    """A small network without batch statistics."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))

    def forward(self, items):
        return self.layers(items)

    features = forward


def build(name: str) -> Method:
    """Build the same small float64 networks each time."""
    torch.manual_seed(0)
    encoder, aggregator = Encoder(), build_aggregator("attention", 4, hidden_dim=3)
    nn.init.normal_(aggregator.score.weight)
    objective, items = CASES[name]
    method: Method
    if isinstance(objective, Objective):
        weight = 1.0 if items is None else 0.3
        method = CollectionMethod(encoder, aggregator, objective, items, weight=weight)
    else:
        weight = 1.0 if items is None else 0.3
        method = SubcollectionMethod(
            encoder, aggregator, nn.Linear(4, 3), objective, item_head=items, weight=weight
        )
    return method.double()


def draw_batch(rank: int | None) -> Batch:
    """Draw the batch of one rank, or that of all ranks together."""
    generator = torch.Generator().manual_seed(1)
    items = torch.randn(sum(SIZES), 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(items.shape, generator=generator, dtype=torch.float64)
    bounds = torch.tensor([0, *SIZES]).cumsum(0)
    labels = (torch.arange(len(SIZES)) // 2 % 3).repeat_interleave(torch.tensor(SIZES))
    first, last = (0, len(SIZES)) if rank is None else ((0, SHARE), (SHARE, len(SIZES)))[rank]
    part = slice(int(bounds[first]), int(bounds[last]))
    offsets = bounds[first : last + 1] - bounds[first]
    views = [items[part], (items + 0.1 * noise)[part]]
    return Batch(views, labels[part], offsets, torch.arange(len(items))[part])


def gradients(name: str, rank: int | None) -> dict[str, Tensor]:
    """Return the loss and the gradient of every parameter after one step's collectives."""
    method = build(name)
    loss, metrics = method.step(draw_batch(rank))
    loss.backward()
    distributed.average_gradients(method.parameters())
    found = {key: p.grad for key, p in method.named_parameters()}
    found |= {"loss": distributed.total(loss.detach()) / distributed.world_size()}
    watched = {key: value for key, value in metrics.items() if "spread" not in key}
    return {f"{name}/{key}": x.detach().contiguous() for key, x in (found | watched).items()}


def main(folder: Path) -> None:
    """Be one of the two processes."""
    with distributed.process_group():
        rank = distributed.rank()
        found: dict[str, Tensor] = {}
        for name in CASES:
            found |= gradients(name, rank)
        save_file(found, folder / f"{rank}.safetensors")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    module = "tests.test_distributed_collections"
    run_two(
        ["-c", f"from pathlib import Path; from {module} import main; main(Path.cwd())"], folder
    )
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one_on_all_collections(name, ranks):
    whole = gradients(name, None)
    assert float(whole[f"{name}/aggregator.content.weight"].norm()) > 1e-4
    for key, expected in whole.items():
        for rank in ranks:
            torch.testing.assert_close(rank[key], expected, rtol=0, atol=1e-12)
