"""What a training step gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Views of the same items, with labels and collection offsets where they are known."""

    views: list[Shaped[Tensor, "item ..."]]
    labels: Int64[Tensor, " item"] | None
    offsets: Int64[Tensor, "collection+1"] | None
    index: Int64[Tensor, " item"]

    @property
    def collections(self) -> Int64[Tensor, " item"] | None:
        """Position of the collection that each item belongs to."""
        if self.offsets is None:
            return None
        sizes = self.offsets.diff()
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
