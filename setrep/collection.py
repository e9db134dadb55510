"""Batches of collections, and the disjoint draw that makes collections from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from setrep.errors import InputError


@dataclass(frozen=True, eq=False)
class CollectionBatch:
    """Hold the items of several collections end to end, with the offsets that part them.

    Collection `b` is `values[offsets[b]:offsets[b + 1]]`. `offsets` starts at 0, ends at the number
    of items, and strictly increases unless `allow_empty=True`.

    Raises:
        InputError: `offsets` do not describe `values`.
    """

    values: Shaped[Tensor, "item ..."]
    offsets: Int64[Tensor, " collection+1"]
    allow_empty: bool = False

    def __post_init__(self) -> None:
        offsets = self.offsets
        if offsets.dtype != torch.int64 or offsets.ndim != 1 or len(offsets) < 1:
            raise InputError(
                f"Offsets must be a one-dimensional int64 tensor of at least one element, "
                f"not {offsets.dtype} of shape {tuple(offsets.shape)}."
            )
        if self.values.ndim < 1:
            raise InputError("Values must have an item dimension; found a scalar tensor.")
        if int(offsets[0]) != 0:
            raise InputError(f"Offsets must start at 0, not at {int(offsets[0])}.")
        if int(offsets[-1]) != len(self.values):
            raise InputError(
                f"Offsets end at {int(offsets[-1])}, but there are {len(self.values)} items: "
                f"the last offset must be the number of items."
            )
        steps = offsets.diff()
        if bool((steps < 0).any()):
            where = int((steps < 0).nonzero()[0])
            raise InputError(f"Offsets decrease after position {where}; they must increase.")
        if not self.allow_empty and bool((steps == 0).any()):
            where = int((steps == 0).nonzero()[0])
            raise InputError(f"Collection {where} is empty. Pass allow_empty=True to allow that.")

    @classmethod
    def from_list(
        cls, collections: Sequence[Shaped[Tensor, "item ..."]], *, allow_empty: bool = False
    ) -> CollectionBatch:
        """Join a list of collections, each a tensor of items."""
        if not collections:
            raise InputError("A CollectionBatch needs at least one collection; the list is empty.")
        sizes = [0] + [len(collection) for collection in collections]
        offsets = torch.tensor(sizes, device=collections[0].device).cumsum(0)
        return cls(torch.cat(list(collections)), offsets, allow_empty)

    @classmethod
    def from_padded(
        cls,
        values: Shaped[Tensor, "collection longest ..."],
        mask: Bool[Tensor, "collection longest"],
        *,
        allow_empty: bool = False,
    ) -> CollectionBatch:
        """Keep the entries of a padded tensor where `mask` is true."""
        if mask.dtype != torch.bool or mask.shape != values.shape[:2]:
            raise InputError(
                f"The mask must be boolean of shape {tuple(values.shape[:2])}, "
                f"not {mask.dtype} of shape {tuple(mask.shape)}."
            )
        offsets = torch.zeros(len(mask) + 1, dtype=torch.int64, device=values.device)
        offsets[1:] = mask.sum(dim=1).cumsum(0)
        return cls(values[mask], offsets, allow_empty)

    def to_padded(
        self,
    ) -> tuple[Shaped[Tensor, "collection longest ..."], Bool[Tensor, "collection longest"]]:
        """Return the items padded with zeros to the longest collection, and where they are real."""
        longest = int(self.sizes.max()) if len(self) else 0
        mask = torch.arange(longest, device=self.values.device) < self.sizes.unsqueeze(1)
        padded = self.values.new_zeros(len(self), longest, *self.values.shape[1:])
        padded[mask] = self.values
        return padded, mask

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> Int64[Tensor, " collection"]:
        """Number of items of each collection."""
        return self.offsets.diff()

    @cached_property
    def index(self) -> Int64[Tensor, " item"]:
        """Position of the collection that each item belongs to."""
        positions = torch.arange(len(self), device=self.offsets.device)
        return positions.repeat_interleave(self.sizes, output_size=len(self.values))

    def with_values(self, values: Shaped[Tensor, "item ..."]) -> CollectionBatch:
        """Keep the offsets and replace the items, one for one."""
        return CollectionBatch(values, self.offsets, self.allow_empty)

    def select(self, collections: Sequence[int] | Int64[Tensor, " k"]) -> CollectionBatch:
        """Return the named collections, in the order asked."""
        asked = torch.as_tensor(collections)
        if len(asked) and (asked.dtype == torch.bool or asked.is_floating_point()):
            raise InputError(f"Collections are selected by position, not by {asked.dtype} values.")
        chosen = asked.to(self.offsets.device, torch.int64)
        if len(chosen) and not bool(((chosen >= 0) & (chosen < len(self))).all()):
            raise InputError(f"There are {len(self)} collections; asked for {chosen.tolist()}.")
        starts, sizes = self.offsets[chosen], self.sizes[chosen]
        offsets = torch.zeros(len(chosen) + 1, dtype=torch.int64, device=self.offsets.device)
        offsets[1:] = sizes.cumsum(0)
        within = torch.arange(int(offsets[-1]), device=self.offsets.device)
        items = within + (starts - offsets[:-1]).repeat_interleave(sizes)
        return CollectionBatch(self.values[items], offsets, self.allow_empty)

    def to(self, device: torch.device | str) -> CollectionBatch:
        """Move items and offsets to `device`."""
        return CollectionBatch(self.values.to(device), self.offsets.to(device), self.allow_empty)


def draw_disjoint(
    pool: Int64[Tensor, " item"], sizes: Sequence[int], generator: torch.Generator
) -> list[Int64[Tensor, " size"]]:
    """Draw disjoint collections of the given sizes from `pool`, uniformly without replacement.

    Raises:
        InputError: the pool holds fewer items than the sizes add up to.
    """
    needed = sum(sizes)
    if needed > len(pool):
        raise InputError(
            f"Disjoint collections of sizes {list(sizes)} need {needed} items, "
            f"but the pool holds {len(pool)}."
        )
    order = torch.randperm(len(pool), generator=generator)[:needed]
    return list(torch.split(pool[order], list(sizes)))
