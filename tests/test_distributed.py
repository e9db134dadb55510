"""Two processes give the gradients, statistics and decisions of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from setrep import distributed
from setrep.aggregators import CentroidAggregator
from setrep.data.batch import Batch
from setrep.errors import InputError
from setrep.losses.supcon import SupConLoss
from setrep.losses.triplet import TripletMarginLoss
from setrep.methods.supervised import SupervisedMethod
from setrep.miners import BatchAllMiner, BatchHardMiner, HardNegativeMiner, SemiHardMiner


class WholeBatchLoss(nn.Module):
    """A loss that knows of no processes: each has the whole batch."""

    def with_metrics(self, embeddings, labels, triplets=None, *, collections=None):
        distance = torch.cdist(embeddings, embeddings)
        return distance[labels[:, None] == labels].mean(), {"farthest": distance.detach().max()}


class PenalisedLoss(TripletMarginLoss):
    """A loss of somebody's own, of which processes cannot each compute a part."""

    def with_metrics(self, embeddings, labels, triplets=None, *, collections=None):
        loss, metrics = super().with_metrics(embeddings, labels, triplets)
        return loss + embeddings.square().mean(), metrics


WORLD = 2
NUM_ITEMS = 24
SHARE = 14  # of the first process; the other has the rest
SIZE = 2  # items of a collection
ALONE = ", nobody to compare with on one rank"
CASES = {
    "supcon": (SupConLoss(0.5), None),
    "supcon, other collections": (SupConLoss(0.5, positives="cross_collection"), None),
    "batch-all": (TripletMarginLoss(0.5), BatchAllMiner()),
    "batch-all, mean of nonzero": (
        TripletMarginLoss(0.5, reduction="mean_nonzero"),
        BatchAllMiner(),
    ),
    "batch-all, same collection": (
        TripletMarginLoss(0.5, distance="squared", reduction="sum"),
        BatchAllMiner(positives="same_collection"),
    ),
    "batch-hard": (TripletMarginLoss(soft=True), BatchHardMiner()),
    "batch-hard, other collections": (
        TripletMarginLoss(soft=True),
        BatchHardMiner(positives="cross_collection"),
    ),
    "semi-hard": (TripletMarginLoss(1.0), SemiHardMiner(1.0)),
    "semi-hard, squared": (
        TripletMarginLoss(1.0, distance="squared"),
        SemiHardMiner(1.0, distance="squared", fallback="farthest"),
    ),
    "hard negatives": (TripletMarginLoss(0.5), HardNegativeMiner()),
    "a loss of another class": (WholeBatchLoss(), None),
    "a loss of a subclass": (PenalisedLoss(0.5), BatchHardMiner()),
    "all triplets, summed": (TripletMarginLoss(0.5, reduction="sum"), None),
    "same collection at first": (TripletMarginLoss(0.5, reduction="sum"), BatchHardMiner()),
    "supcon, same collection": (SupConLoss(0.5, positives="same_collection"), None),
    "supcon, every anchor counts": (SupConLoss(0.5, form="in", singletons="count"), None),
}
CASES |= {
    f"{name}{ALONE}": case
    for name, case in CASES.items()
    if name in ("supcon", "supcon, every anchor counts", "batch-all", "batch-hard", "semi-hard")
}


def build_method(name: str) -> SupervisedMethod:
    """Build the same small float64 network each time."""
    loss, miner = CASES[name]
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
    start_step = 5 if "at first" in name else 0
    return SupervisedMethod(network, CentroidAggregator(3), loss, miner, start_step=start_step)


def draw_batch(rank: int | None, is_alone: bool) -> Batch:
    """Draw the batch of one rank, or that of all ranks together; both hold every label.

    Or the second rank's items have labels of their own: no anchor of its gives a triplet.
    """
    generator = torch.Generator().manual_seed(1)
    items = torch.randn(NUM_ITEMS, 5, generator=generator, dtype=torch.float64)
    labels = (torch.arange(NUM_ITEMS) // (2 * SIZE)) % 3
    if is_alone:
        labels[SHARE:] = 100 + torch.arange(NUM_ITEMS - SHARE)
    part = slice(None) if rank is None else (slice(SHARE), slice(SHARE, None))[rank]
    offsets = torch.arange(0, len(items[part]) + 1, SIZE)
    return Batch([items[part]], labels[part], offsets, torch.arange(NUM_ITEMS)[part])


def gradients(name: str, rank: int | None) -> dict[str, Tensor]:
    """Return the loss and the gradient of every parameter after one step's collectives."""
    method = build_method(name)
    loss, metrics = method.step(draw_batch(rank, name.endswith(ALONE)))
    loss.backward()
    distributed.average_gradients(method.parameters())
    found = {key: p.grad for key, p in method.named_parameters()}
    found |= {"loss": distributed.total(loss.detach()) / distributed.world_size()}
    return {f"{name}/{key}": x.contiguous() for key, x in (found | metrics).items()}


def refuse(rank: int) -> None:
    raise InputError(f"of rank {rank}")


def statistics(rank: int) -> dict[str, Tensor]:
    """Return what the other collectives do; what is no tensor is asserted here."""
    norm = nn.BatchNorm1d(2)
    norm.running_mean += torch.tensor([1.0, 3.0]) * rank
    norm.num_batches_tracked += 5 * rank
    distributed.average_buffers(norm)

    only_first = nn.Parameter(torch.ones(2))
    if rank == 0:
        only_first.grad = torch.tensor([2.0, 4.0])
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    distributed.average_gradients([only_first, frozen])
    assert frozen.grad is None

    unequal = torch.full((1 + 2 * rank, 2), float(rank), requires_grad=True)
    rows = distributed.gather(unequal)
    assert rows.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]
    (rows * torch.arange(8.0).view(4, 2)).sum().backward()

    cpu = torch.device("cpu")
    assert distributed.rank() == rank
    assert distributed.world_size() == WORLD
    assert distributed.any_rank(rank == 1, cpu)
    assert not distributed.any_rank(False, cpu)
    assert distributed.from_rank_0(lambda: Path(f"run-{rank}")) == Path("run-0")
    with pytest.raises(InputError, match="of rank 0"):
        distributed.from_rank_0(lambda: refuse(rank))
    distributed.barrier()
    return {
        "running_mean": norm.running_mean,
        "num_batches_tracked": norm.num_batches_tracked,
        "only_first": only_first.grad,
        "unequal": unequal.grad / WORLD,
        "gathered": distributed.gather(torch.tensor([[rank, 10 + rank], [rank, 20 + rank]])),
    }


def main(folder: Path) -> None:
    """Be one of the two processes."""
    with distributed.process_group():
        rank = distributed.rank()
        found = statistics(rank)
        for name in CASES:
            found |= gradients(name, rank)
        save_file(found, folder / f"{rank}.safetensors")
    assert distributed.world_size() == 1


def run_two(command: list[str], cwd: Path, *, status: int = 0) -> list[str]:
    """Run a command as `torchrun` would, twice, see how both end, and return what they print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    group |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    group |= {"PYTHONPATH": str(Path(__file__).parent.parent), "SETREP_CACHE": str(cwd / "cache")}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [status] * WORLD, "\n".join(outputs)
    return outputs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    code = "from pathlib import Path; from tests.test_distributed import main; main(Path.cwd())"
    run_two(["-c", code], folder)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one_on_the_whole_batch(name, ranks):
    whole = gradients(name, None)
    assert len(whole) > 5
    assert float(whole[f"{name}/encoder.0.weight"].norm()) > 1e-3
    for key, expected in whole.items():
        for rank in ranks:
            torch.testing.assert_close(rank[key], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_rows_are_gathered_in_the_order_of_ranks(ranks):
    expected = torch.tensor([[0, 10], [0, 20], [1, 11], [1, 21]])
    assert all(torch.equal(rank["gathered"], expected) for rank in ranks)


@pytest.mark.slow
def test_unequally_many_rows_are_gathered_with_their_gradient(ranks):
    assert ranks[0]["unequal"].tolist() == [[0, 1]]
    assert ranks[1]["unequal"].tolist() == [[2, 3], [4, 5], [6, 7]]


@pytest.mark.slow
def test_batch_statistics_are_averaged_and_counters_left(ranks):
    for number, rank in enumerate(ranks):
        assert rank["running_mean"].tolist() == [0.5, 1.5]
        assert int(rank["num_batches_tracked"]) == 5 * number


@pytest.mark.slow
def test_a_parameter_that_one_rank_did_not_use_gets_the_mean_gradient_on_all(ranks):
    assert all(rank["only_first"].tolist() == [1.0, 2.0] for rank in ranks)


def test_one_process_needs_no_group():
    x = torch.ones(2, requires_grad=True)
    norm = nn.BatchNorm1d(2)
    distributed.average_buffers(norm)
    distributed.average_gradients(norm.parameters())
    distributed.barrier()
    assert norm.weight.grad is None
    assert distributed.gather(x) is x
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.from_rank_0(lambda: Path("run")) == Path("run")
    assert distributed.any_rank(True, x.device)
    assert not distributed.any_rank(False, x.device)


def test_no_group_is_joined_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group():
        assert distributed.world_size() == 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.process_group():
        assert distributed.world_size() == 1


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(tmp_path / "vectors.npz", values=values, labels=np.repeat(np.arange(6), 10))
    options = [
        "--dataset=vectors",
        f"--data-root={tmp_path / 'vectors.npz'}",
        "--output-dir=run",
        "--max-steps=3",
        "--classes-per-episode=2",
        "--set=evaluation.sizes=[2]",
    ]
    run_two(["-m", "setrep", "train", *options], tmp_path)
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    outputs = run_two(["-m", "setrep", "train", *options], tmp_path, status=2)
    assert all("already holds a run" in output for output in outputs)
    assert not any("Traceback" in output for output in outputs)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["run", "vectors.npz"]
