"""Two processes with unequal shares give the loss and gradient of one on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from setrep import distributed
from setrep.aggregators import CentroidAggregator
from setrep.config import EncoderConfig
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.losses import (
    DebiasedBothLoss,
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DebiasedTripletLoss,
    DifficultyWeightedLoss,
    HardNegativesLoss,
    NPairLoss,
    NTXentLoss,
)
from setrep.methods.contrastive import ContrastiveMethod
from setrep.methods.difficulty import DifficultyMethod
from setrep.methods.method import Method
from tests.test_distributed import WORLD, run_two

SHARES = (7, 5)  # items of each rank
LOSSES = {
    "nt_xent": NTXentLoss(),
    "nt_xent without false negatives": NTXentLoss(drop_false_negatives=True),
    "n_pair": NPairLoss(l2_weight=0.1),
    "debiased negatives": DebiasedNegativesLoss(),
    "debiased negatives of three views": DebiasedNegativesLoss(views="combination"),
    "hard negatives": HardNegativesLoss(),
    "debiased positives": DebiasedPositivesLoss(),
    "debiased positives of three views": DebiasedPositivesLoss(),
    "sums": DebiasedPositivesLoss(estimator="sum", drop_false_negatives="published"),
    "consistent": DebiasedPositivesLoss(estimator="consistent"),
    "both": DebiasedBothLoss(DebiasedPositivesLoss(), DebiasedNegativesLoss(), 0.3),
}
CASES = (*LOSSES, "difficulty", "batch statistics kept")


class Backbone(nn.Module):
    """A network of vectors, perhaps with batch normalisation."""

    def __init__(self, has_norm: bool) -> None:
        super().__init__()
        self.dim = 4
        norm = nn.BatchNorm1d(7) if has_norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(5, 7), norm, nn.Tanh(), nn.Linear(7, 4))

    def forward(self, items: Tensor) -> Tensor:
        return self.layers(items)


def network(*, has_norm: bool = False) -> tuple[ItemEncoder, nn.Module]:
    config = EncoderConfig(projection="none")
    return ItemEncoder(Backbone(has_norm), config), nn.Linear(4, 3)


def build(name: str) -> Method:
    """Build the same small float64 method each time."""
    aggregator = CentroidAggregator(4)
    if name == "difficulty":
        (encoder, head), (biased, biased_head) = network(), network()
        method: Method = DifficultyMethod(
            encoder,
            aggregator,
            head,
            DifficultyWeightedLoss(),
            biased,
            biased_head,
            DebiasedTripletLoss(),
        )
    else:
        has_norm = name == "batch statistics kept"
        loss = LOSSES.get(name, DebiasedPositivesLoss())
        method = ContrastiveMethod(*_first(network(has_norm=has_norm), aggregator), loss)
    method.double().train()
    if name == "batch statistics kept":
        method.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
    return method


def _first(parts: tuple[ItemEncoder, nn.Module], aggregator: nn.Module):
    encoder, head = parts
    return encoder, aggregator, head


def draw_batch(name: str, rank: int | None) -> Batch:
    """Draw the views of one rank, or those of all ranks together."""
    generator = torch.Generator().manual_seed(1)
    total = sum(SHARES)
    items = torch.randn(total, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, total, 5, generator=generator, dtype=torch.float64)
    num_views = 3 if "three views" in name else 2
    start = 0 if rank is None else sum(SHARES[:rank])
    part = slice(start, total if rank is None else start + SHARES[rank])
    views = [(items + noise[number] / 2)[part] for number in range(num_views)]
    return Batch(views, (torch.arange(total) % 4)[part], None, torch.arange(total)[part])


def gradients(name: str, rank: int | None) -> dict[str, Tensor]:
    """Return the loss and the gradient of every parameter after one step's collectives."""
    method = build(name)
    loss, metrics = method.step(draw_batch(name, rank))
    loss.backward()
    distributed.average_gradients(method.parameters())
    found = {key: parameter.grad for key, parameter in method.named_parameters()}
    found["loss"] = loss.detach()
    # Spreads are of the items at hand, and no means over anchors.
    found |= {key: value for key, value in metrics.items() if "spread" not in key}
    return {f"{name}/{key}": x.contiguous() for key, x in found.items()}


def main(folder: Path) -> None:
    """Be one of the two processes."""
    with distributed.process_group():
        rank = distributed.rank()
        start, total = distributed.share_of(SHARES[rank], torch.device("cpu"))
        assert (start, total) == (sum(SHARES[:rank]), sum(SHARES))
        found: dict[str, Tensor] = {}
        for name in CASES:
            found |= gradients(name, rank)
        save_file(found, folder / f"{rank}.safetensors")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    module = "tests.test_distributed_views"
    code = f"from pathlib import Path; from {module} import main; main(Path.cwd())"
    run_two(["-c", code], folder)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one(name, ranks):
    whole = gradients(name, None)
    assert any(value.abs().sum() > 1e-3 for key, value in whole.items() if "loss" not in key)
    for key, value in whole.items():
        if key.endswith("/loss"):  # each rank has its part; their mean is the loss
            mean = sum(found[key] for found in ranks) / WORLD
            torch.testing.assert_close(mean, value, atol=1e-10, rtol=0)
            continue
        for found in ranks:
            torch.testing.assert_close(found[key], value, atol=1e-10, rtol=0)


def test_without_a_group_a_process_has_all_rows():
    assert distributed.share_of(5, torch.device("cpu")) == (0, 5)
