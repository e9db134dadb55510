"""How a file becomes an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ItemFormat:
    """Say how a file becomes an item, so that a query is read as the training items were.

    `kind="image"`: uint8 `[channels, size, size]`; `is_inverted` turns dark ink on white into
    bright ink on black. `kind="vector"`: float32 `[channels]`, `size` is 1.
    """

    kind: Literal["image", "vector"]
    channels: int
    size: int
    is_inverted: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        image = (self.channels, self.size, self.size)
        return image if self.kind == "image" else (self.channels,)
