"""Items with their labels and natural collections: what every data set is read into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from setrep.item_format import ItemFormat


@dataclass(frozen=True, eq=False)
class ItemDataset:
    """Hold all items of one split in one array, with a label and perhaps a collection key each.

    `labels` and `keys` index `label_names` and `key_names`. `keys` is none when collections are
    sampled at random; items with one key share one label.
    """

    name: str
    split: str
    items: NDArray[np.generic]  # uint8 [N, C, H, W] (may be memory-mapped) or float32 [N, D]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    item_format: ItemFormat
    label_level: str
    collection_level: str = "sampled"
    keys: NDArray[np.int64] | None = None
    key_names: tuple[str, ...] = ()
    source_note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Shaped[Tensor, "..."], int]:
        """Return one item and its label, as torch's `DataLoader` asks for them."""
        return self.gather([index])[0], int(self.labels[index])

    def gather(self, indices: Sequence[int] | Int64[Tensor, " n"]) -> Shaped[Tensor, "n ..."]:
        """Copy the named items into a tensor on the CPU."""
        return torch.from_numpy(np.ascontiguousarray(self.items[np.asarray(indices)]))

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ItemDataset:
        """Keep the named items; names, and so label numbers, stay as they are."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            items=self.items[chosen],
            labels=self.labels[chosen],
            keys=None if self.keys is None else self.keys[chosen],
        )


__all__ = ["ItemDataset", "ItemFormat"]
