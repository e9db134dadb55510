"""Batches of single items, for methods that draw no episodes."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from setrep.data.collections import derive_generator
from setrep.errors import InputError


class ItemSampler:
    """Draw items in a random order, each at most once an epoch, in batches of one size.

    What is left over at the end of an epoch is not drawn in it. Ranks share each batch: it has
    `batch_size * world_size` items, all different. A batch depends on nothing but the number of
    items, the settings and `(seed, epoch, rank, world_size)`.

    Raises:
        InputError: a number is below 1, or there are fewer items than one batch takes.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 2:
            raise InputError(f"batch_size must be at least 2, not {batch_size}.")
        if not 0 <= rank < world_size:
            raise InputError(f"rank must lie in 0..{world_size - 1}, not be {rank}.")
        if num_items < batch_size * world_size:
            raise InputError(
                f"A batch takes {batch_size * world_size} items, but there are only {num_items}. "
                f"Lower training.batch_size."
            )
        self.num_items, self.batch_size = num_items, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self.num_items // (self.batch_size * self.world_size)

    def offsets(self, epoch: int, position: int) -> None:
        """Items of a batch form no collections."""

    def draw(self, epoch: int, position: int) -> Int64[Tensor, " item"]:
        """Return the items of this rank's share of any batch."""
        if epoch < 0 or not 0 <= position < len(self):
            raise InputError(
                f"There is no batch {position} of epoch {epoch}: positions run from 0 to "
                f"{len(self) - 1} and epochs from 0."
            )
        order = torch.randperm(self.num_items, generator=derive_generator(self.seed, epoch))
        start = (position * self.world_size + self.rank) * self.batch_size
        return order[start : start + self.batch_size]
