"""The only door to torch.distributed: one process or many with the same code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from setrep.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """Return this process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that `torchrun` describes in the environment, and leave it at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Gather with a gradient: the sum over ranks of what each asks of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        own = torch.tensor([len(x)], device=x.device)
        counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, own)
        ctx.counts = [int(count) for count in counts]
        # Rows up to the largest count, because all ranks must send equally many.
        padded = x.new_zeros(max(ctx.counts), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return torch.split(total, ctx.counts)[dist.get_rank()].contiguous()


def gather(x: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "world_n ..."]:
    """Join the rows of every rank, perhaps unequally many, in rank order, with their gradient.

    After `average_gradients` there is the gradient of one process on the whole batch if the losses
    of the ranks average to that of the whole batch: each of its own anchors against all keys, or
    every rank that of all rows.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


def total(numbers: Tensor) -> Tensor:
    """Add numbers over the ranks, without gradient."""
    if world_size() == 1:
        return numbers
    numbers = numbers.detach().clone()
    dist.all_reduce(numbers)
    return numbers


def share_of(count: int, device: torch.device) -> tuple[int, int]:
    """Return where this rank's `count` rows begin among those of all ranks, and how many all are.

    The order is that of `gather`.
    """
    if world_size() == 1:
        return 0, count
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = count
    dist.all_reduce(counts)
    return int(counts[: rank()].sum()), int(counts.sum())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:  # every rank must take part in every collective
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def average_buffers(module: nn.Module) -> None:
    """Replace every floating-point buffer (batch statistics) by its mean over the ranks."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world_size()


def barrier() -> None:
    """Wait for every rank."""
    if world_size() > 1:
        dist.barrier()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank."""
    if world_size() == 1:
        return flag
    votes: Float[Tensor, ""] = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def from_rank_0(make: Callable[[], T]) -> T:
    """Call on rank 0 only, and return what it returned on every rank.

    Raises:
        InputError: on every rank, where the call raised it on rank 0.
    """
    if world_size() == 1:
        return make()
    shared: list[Any] = [None, None]
    if rank() == 0:
        try:
            shared[0] = make()
        except InputError as error:
            shared[1] = str(error)
    dist.broadcast_object_list(shared)
    if shared[1] is not None:
        raise InputError(shared[1])
    found: T = shared[0]
    return found
