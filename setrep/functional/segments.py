"""Sums, maxima, softmax and order over the items of each collection of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from setrep.collection import CollectionBatch
from setrep.functional.precision import at_least_float32

Interpolation = Literal["averaged", "linear"]

# Numbers that are padded and sorted at a time, so that the copies stay small beside the items.
_SORTED_AT_A_TIME = 2**22
# Numbers whose copies a processor's cache holds, and no more than torch gives to one thread: to
# wait for a second one at every step is slow where other programs run.
_CACHED_AT_A_TIME = 2**15


def segment_sum(
    values: Float[Tensor, "item dim"],
    batch: CollectionBatch,
    weights: Float[Tensor, " item"] | None = None,
) -> Float[Tensor, "collection dim"]:
    """Sum the items of each collection, each times its weight, in float32 or better.

    One after the other: in float32 the relative error grows with the items, to about 1e-5 at 1,000
    of one sign and 1e-3 at 100,000; float64 items leave none to speak of.
    An empty collection has the sum 0. On a GPU the order of additions varies from run to run,
    unless `torch.use_deterministic_algorithms` asks for a fixed one. The weighted sum has no
    second derivatives.
    """
    values = at_least_float32(values)
    if values.is_cuda and torch.are_deterministic_algorithms_enabled():
        return segment_sum_in_order(values, batch, weights)
    if weights is None:
        out = values.new_zeros(len(batch), *values.shape[1:])
        return out.index_add_(0, batch.index, values)
    # Never holds the weighted items: 1.3 times as fast as to multiply and add (2 cores, d = 256).
    places = torch.arange(len(values), device=values.device)
    return embedding_bag(
        places,
        values,
        batch.offsets,
        mode="sum",
        per_sample_weights=weights.to(values.dtype),
        include_last_offset=True,
    )


def segment_sum_in_order(
    values: Float[Tensor, "item dim"],
    batch: CollectionBatch,
    weights: Float[Tensor, " item"] | None = None,
) -> Float[Tensor, "collection dim"]:
    """Sum as `segment_sum`, always in the order of the items."""
    values = at_least_float32(values)
    if weights is not None:
        values = values * weights.to(values.dtype).unsqueeze(1)
    out: Tensor = torch.segment_reduce(values, "sum", offsets=batch.offsets, axis=0)
    return out


def segment_max(
    values: Float[Tensor, "item dim"], batch: CollectionBatch
) -> Float[Tensor, "collection dim"]:
    """Return the largest of each coordinate; minus infinity for an empty collection.

    Items that share the largest share its gradient equally. There are no second derivatives.
    """
    out: Tensor = torch.segment_reduce(values, "max", offsets=batch.offsets, axis=0)
    return out


def segment_softmax(
    scores: Float[Tensor, "item head"], batch: CollectionBatch
) -> Float[Tensor, "item head"]:
    """Return positive weights that sum to one over each collection, in float32 or better."""
    scores = at_least_float32(scores)
    largest = segment_max(scores.detach(), batch)  # which shifts all and changes nothing
    weights = (scores - largest.index_select(0, batch.index)).exp()
    total = scores.new_zeros(len(batch), *scores.shape[1:]).index_add(0, batch.index, weights)
    return weights / total.index_select(0, batch.index)


def row_pieces(first: Float[Tensor, "item dim"], *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors with one row for each item alike, into pieces that a processor's cache holds.

    A chain of operations by pieces is 2 to 3 times as fast as by whole tensors (1 core, d = 256).
    """
    rows = _CACHED_AT_A_TIME // first.shape[1] if first.device.type == "cpu" else len(first)
    yield from zip(*(torch.split(x, max(1, rows)) for x in (first, *others)), strict=True)


def segment_argsort(
    values: Float[Tensor, "item dim"], batch: CollectionBatch
) -> Int64[Tensor, "item dim"]:
    """Return which item holds the smallest of each coordinate, the next, and so on.

    Row `offsets[b] + r` names, for each coordinate, the row of `values` with the value of rank `r`
    in collection `b`, so `values.gather(0, order)` are the sorted values, with their gradients.
    Equal values keep the order of their items; NaN comes last.
    """
    values = values.detach()
    order = torch.empty(values.shape, dtype=torch.int64, device=values.device)
    for some in _of_like_size(batch.sizes, values.shape[1]):
        sizes = batch.sizes[some].unsqueeze(1)
        first = batch.offsets[some].unsqueeze(1)
        rank = torch.arange(int(sizes.max()), device=values.device)
        real = rank < sizes
        rows = first + rank.minimum(sizes - 1)
        # Not infinity, behind which a NaN of the collection would be lost.
        padded = values[rows].masked_fill(~real.unsqueeze(2), torch.nan)
        ranked = padded.sort(dim=1, stable=True).indices + first.unsqueeze(2)
        order[rows[real]] = ranked[real]
    return order


def _of_like_size(
    sizes: Int64[Tensor, " collection"], dim: int
) -> Iterator[Int64[Tensor, " some"]]:
    """Part the collections that are not empty so that padding at most doubles a part."""
    by_size = sizes.argsort(stable=True)
    by_size = by_size[sizes[by_size] > 0]
    power = torch.frexp((sizes[by_size] - 1).double()).exponent  # the least 2^power >= size
    powers, counts = torch.unique_consecutive(power, return_counts=True)
    for exponent, group in zip(powers.tolist(), torch.split(by_size, counts.tolist()), strict=True):
        yield from torch.split(group, max(1, _SORTED_AT_A_TIME // (dim * 2**exponent)))


def segment_quantiles(
    values: Float[Tensor, "item dim"],
    batch: CollectionBatch,
    probabilities: Sequence[float],
    interpolation: Interpolation = "averaged",
) -> Float[Tensor, "collection quantile dim"]:
    r"""Return quantiles of each coordinate over each collection; 0 for an empty one.

    $$ Q(p) = \tfrac12 \big(x_{(\lceil np \rceil)} + x_{(\lfloor np \rfloor + 1)}\big), \quad
       Q_{linear}(p) = (1 - g)\, x_{(j)} + g\, x_{(j + 1)}, \;\; (n - 1) p + 1 = j + g $$

    These are definitions 2 (averaged) and 7 (linear) of Hyndman & Fan 1996. Only the first keeps
    its value when every item is doubled. A coordinate with a NaN has NaN as its quantiles.
    """
    held = batch.sizes.nonzero().squeeze(1)
    lower, upper, share = _ranks(batch.sizes[held], probabilities, interpolation)
    order = segment_argsort(values, batch)

    def at(rank: Int64[Tensor, "some quantile"]) -> Float[Tensor, "some quantile dim"]:
        rows = order[(batch.offsets[held].unsqueeze(1) + rank).flatten()]
        return values.gather(0, rows).view(*rank.shape, values.shape[1])

    found = torch.lerp(at(lower), at(upper), share.to(values.dtype).unsqueeze(2))
    largest = at(batch.sizes[held].unsqueeze(1) - 1)  # which is NaN if any is
    found = torch.where(largest.isnan(), largest, found)
    out = values.new_zeros(len(batch), len(probabilities), values.shape[1])
    return out.index_copy(0, held, found)


def _ranks(
    sizes: Int64[Tensor, " some"], probabilities: Sequence[float], interpolation: Interpolation
) -> tuple[Tensor, Tensor, Float[Tensor, "some quantile"]]:
    """Return the two ranks that each quantile lies between, from 0, and how far on its way."""
    size = sizes.unsqueeze(1)
    chosen = torch.tensor(probabilities, dtype=torch.float64, device=sizes.device)
    if interpolation == "linear":
        place = (size - 1) * chosen
        lower = place.floor()
        upper, share = place.ceil(), place - lower
    else:
        place = size * chosen
        whole = place.round()
        place = torch.where((place - whole).abs() < 1e-9, whole, place)  # 100 * 0.07 is 7
        lower, upper, share = place.ceil() - 1, place.floor(), torch.full_like(place, 0.5)
    lower, upper = (rank.long().clamp(min=0).minimum(size - 1) for rank in (lower, upper))
    return lower, upper, share
