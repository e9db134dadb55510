"""Pairs of collections: what a distance takes, and blocks of bounded memory to work through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.functional import at_least_float32

MAX_ELEMENTS = 2**20  # numbers in a block; 2**18 takes as long, 2**22 up to 1.7 times (2 cores)


@dataclass(frozen=True, eq=False)
class Block:
    """Hold positions of items of pairs of like sizes, a row for each pair or piece of one.

    A collection that is shorter than the longest of the block repeats its last item. So a minimum
    over a row is right without a mask, whatever the sign of what is compared.
    """

    pair: Int64[Tensor, " row"]
    x: Int64[Tensor, "row n"]
    y: Int64[Tensor, "row m"]
    x_sizes: Int64[Tensor, " row"]
    y_sizes: Int64[Tensor, " row"]


def checked_pairs(
    x: CollectionBatch, y: CollectionBatch
) -> tuple[CollectionBatch, CollectionBatch]:
    """Return the collections with items in one precision, float32 or better.

    Raises:
        InputError: `x` and `y` do not pair up, their items are not vectors of one length, or a
            collection is empty.
    """
    if len(x) != len(y):
        raise InputError(
            f"A set distance pairs collections one to one; found {len(x)} and {len(y)}. "
            f"Select as many from both, or use pairwise for all pairs."
        )
    check_items(x, y)
    dtype = torch.promote_types(x.values.dtype, y.values.dtype)
    x_values, y_values = (at_least_float32(c.values.to(dtype)) for c in (x, y))
    return x.with_values(x_values), y.with_values(y_values)


def check_items(x: CollectionBatch, y: CollectionBatch) -> None:
    """Refuse items that cannot be compared, and empty collections.

    Raises:
        InputError: items are not vectors of one length, or a collection is empty.
    """
    for values in (x.values, y.values):
        if values.ndim != 2 or not values.is_floating_point():
            raise InputError(
                f"Set distances compare items that are vectors of real numbers, "
                f"not {values.dtype} items of shape {tuple(values.shape[1:])}."
            )
    if x.values.shape[1] != y.values.shape[1]:
        raise InputError(
            f"Set distances need items of one width on both sides; found {x.values.shape[1]} and "
            f"{y.values.shape[1]} dimensions."
        )
    for name, batch in (("x", x), ("y", y)):
        is_empty = batch.sizes == 0
        if bool(is_empty.any()):
            raise InputError(
                f"An empty collection has no distance, and collection {int(is_empty.nonzero()[0])} "
                f"of {name} is empty. Leave empty ones out."
            )


def pair_blocks(x: CollectionBatch, y: CollectionBatch) -> Iterator[Block]:
    """Part pairs of collections into blocks of about `MAX_ELEMENTS` distances and coordinates.

    A pair that is too large alone is cut into pieces: some items of `x` with all of `y`. No block
    holds two pieces of one pair.
    """
    dim = x.values.shape[1]
    rows = (MAX_ELEMENTS // (y.sizes + dim)).clamp(min=1)
    num_pieces = (x.sizes + rows - 1) // rows
    pair = torch.arange(len(x), device=rows.device).repeat_interleave(num_pieces)
    before = (num_pieces.cumsum(0) - num_pieces)[pair]
    starts = x.offsets[pair] + (torch.arange(len(pair), device=pair.device) - before) * rows[pair]
    x_sizes = torch.minimum(rows[pair], x.offsets[pair + 1] - starts)
    y_sizes = y.sizes[pair]
    for group in like_sizes(x_sizes, y_sizes):
        n, m = int(x_sizes[group].max()), int(y_sizes[group].max())
        for part in torch.split(group, max(1, MAX_ELEMENTS // (n * m + (n + m) * dim))):
            yield Block(
                pair[part],
                padded_positions(starts[part], x_sizes[part]),
                padded_positions(y.offsets[pair[part]], y_sizes[part]),
                x_sizes[part],
                y_sizes[part],
            )


def like_sizes(*sizes: Int64[Tensor, " row"]) -> Iterator[Int64[Tensor, " like"]]:
    """Yield positions of rows whose sizes are alike: within a factor of 1.42, the root of two."""
    kind = torch.zeros_like(sizes[0])
    for size in sizes:
        kind = 128 * kind + (2 * size.double().log2()).ceil().long()
    order = kind.argsort(stable=True)
    counts = kind.bincount()
    yield from torch.split(order, counts[counts > 0].tolist())


def padded_positions(
    starts: Int64[Tensor, " row"], sizes: Int64[Tensor, " row"]
) -> Int64[Tensor, "row longest"]:
    """Return the positions of rows of items, the last one repeated up to the longest row."""
    within = torch.arange(int(sizes.max()), device=sizes.device)
    return starts.unsqueeze(1) + torch.minimum(within, sizes.unsqueeze(1) - 1)


def take(
    values: Float[Tensor, "item dim"], positions: Int64[Tensor, "row n"]
) -> Float[Tensor, "row n dim"]:
    """Return the items at the given positions."""
    # Indexing with a matrix gives the same; its backward is slower.
    return values.index_select(0, positions.flatten()).view(*positions.shape, -1)


def recomputed(
    function: Callable[[CollectionBatch, CollectionBatch], Tensor],
    x: CollectionBatch,
    y: CollectionBatch,
    is_large: bool,
) -> Tensor:
    """Call `function`; what is large keeps nothing for its gradients, and is called again then."""
    has_gradients = x.values.requires_grad or y.values.requires_grad
    if not (is_large and has_gradients and torch.is_grad_enabled()):
        return function(x, y)
    out: Tensor = checkpoint(function, x, y, use_reentrant=False, preserve_rng_state=False)
    return out
