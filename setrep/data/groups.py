"""Items sorted by group, and draws of others within a group and outside it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


class Groups:
    """Hold the items of each group in data set order."""

    def __init__(self, groups: Int64[Tensor, " item"]) -> None:
        _, number, counts = torch.unique(groups, return_inverse=True, return_counts=True)
        self.order = torch.from_numpy(np.argsort(number.numpy(), kind="stable"))
        starts = counts.cumsum(0) - counts
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(groups))
        self.starts, self.sizes = starts[number], counts[number]

    @property
    def is_one(self) -> bool:
        """Whether all items are of one group."""
        return bool(self.sizes.max() == len(self.order))

    def other(self, items: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
        """Draw another item of the same group; an item alone gives itself."""
        start, size = self.starts[items], self.sizes[items]
        step = 1 + _below(size - 1, generator)
        return self.order[start + (self.place[items] - start + step) % size]

    def next_to(
        self, items: Int64[Tensor, " n"], generator: torch.Generator
    ) -> Int64[Tensor, " n"]:
        """Take the item before or after; the first and the last have one neighbour."""
        first = self.starts[items]
        last = first + self.sizes[items] - 1
        forward = torch.rand(len(items), generator=generator) < 0.5
        place = self.place[items]
        forward = (forward | (place == first)) & (place < last)
        backward = ~forward & (place > first)
        return self.order[place + forward.long() - backward.long()]

    def outsider(
        self, items: Int64[Tensor, " n"], generator: torch.Generator
    ) -> Int64[Tensor, " n"]:
        """Draw an item of another group."""
        start, size = self.starts[items], self.sizes[items]
        place = _below(len(self.order) - size, generator)
        return self.order[place + (place >= start) * size]


def _below(limit: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Draw integers from 0 to below each limit; 0 where the limit is 0."""
    drawn = (torch.rand(len(limit), generator=generator, dtype=torch.float64) * limit).long()
    return drawn.clamp(max=(limit - 1).clamp(min=0))
