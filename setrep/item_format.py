"""How a file becomes an item."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Literal

from setrep.errors import InputError

MAX_CHANNELS, MAX_SIDE = 2**24, 2**14  # beyond them a file was tampered with


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

    def __post_init__(self) -> None:
        if self.kind not in ("image", "vector"):
            raise InputError(f"An item is an 'image' or a 'vector', not {reprlib.repr(self.kind)}.")
        limits = {"channels": MAX_CHANNELS, "size": MAX_SIDE if self.kind == "image" else 1}
        for name, limit in limits.items():
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number <= limit:
                raise InputError(
                    f"{name} of a format of {self.kind}s must be a whole number from 1 to {limit}, "
                    f"not {reprlib.repr(number)}."
                )
        if not isinstance(self.is_inverted, bool):
            raise InputError(
                f"is_inverted must be true or false, not {reprlib.repr(self.is_inverted)}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        image = (self.channels, self.size, self.size)
        return image if self.kind == "image" else (self.channels,)
