"""Measured errors of retrieval, to hold bounds on their probability against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from scipy.special import betaincinv
from torch import Tensor

from setrep.bounds.cells import depths, row_of_label, to_gallery
from setrep.bounds.change_factor import to_sizes
from setrep.bounds.points import Points, rounding
from setrep.bounds.triples import length
from setrep.errors import InputError

DRAWS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class RetrievalErrors:
    """How many of `num_queries` random queries were errors, for each label and size."""

    sizes: Int64[Tensor, " size"]
    num_errors: Int64[Tensor, "label size"]
    num_queries: int

    def limits(
        self, confidence: float = 0.95
    ) -> tuple[Float64[Tensor, "label size"], Float64[Tensor, "label size"]]:
        """Return limits between which the probability of error lies; see `clopper_pearson`."""
        return clopper_pearson(self.num_errors, self.num_queries, confidence)


def clopper_pearson(
    num_errors: Int64[Tensor, "*shape"], num_queries: int, confidence: float = 0.95
) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
    r"""Return the exact limits of a probability from counts (Clopper and Pearson 1934).

    $$ P\big(\mathrm{Bin}(n, p_{lower}) \ge k\big) = \tfrac\alpha2 =
       P\big(\mathrm{Bin}(n, p_{upper}) \le k\big), \qquad \alpha = 1 - \text{confidence}, $$
    0 for no error and 1 for nothing but errors. Each is wrong with probability at most
    $\alpha / 2$.

    Raises:
        InputError: the confidence is not between 0 and 1, or there are more errors than queries.
    """
    k = num_errors.cpu().double().numpy()
    if not 0 < confidence < 1 or k.min() < 0 or k.max() > num_queries or num_queries < 1:
        raise InputError(
            f"Limits need a confidence between 0 and 1 and counts from 0 to the number of queries; "
            f"found {confidence}, and {k.min():.0f} to {k.max():.0f} of {num_queries}."
        )
    half = (1 - confidence) / 2
    # The parameters of a beta distribution must be above 0; where they are not, limits are known.
    lower = betaincinv(k.clip(min=1), num_queries - k + 1, half)
    upper = betaincinv(k + 1, (num_queries - k).clip(min=1), 1 - half)
    lower[k == 0], upper[k == num_queries] = 0.0, 1.0
    return torch.from_numpy(lower), torch.from_numpy(upper)


def measure_errors(
    gallery: Points,
    pools: Sequence[Points],
    sizes: Sequence[int],
    *,
    generator: torch.Generator,
    num_queries: int = 2000,
    with_replacement: bool = False,
    labels: Sequence[int] | None = None,
) -> RetrievalErrors:
    """Count how many random queries have another label's centroid as near as their own.

    Each query holds n items of the pool of its label, every subset as likely as any other, and is
    drawn by itself. It is an error if it is not on its own side of the plane to each centroid of
    another label (`depths`, and for `labels` `measure_cells`); where rounding cannot tell, it
    counts as a tie, which is an error.

    Raises:
        InputError: as `measure_cells`, a size is no whole number of at least 1 or larger than a
            pool, or there are no queries.
    """
    centres, items, of, unit = to_gallery(gallery, pools, labels)
    itself = row_of_label(of, len(items))
    smallest = min(len(pool) for pool in items)
    n = to_sizes(smallest, sizes, None, with_replacement)[0].long().reshape(-1)
    if num_queries < 1:
        raise InputError(f"num_queries must be at least 1, not {num_queries}.")
    counts = torch.zeros(len(items), len(n), dtype=torch.int64)
    for label, pool in enumerate(items):
        is_rival = of != label
        is_rival[itself[label]] = True
        rivals, place = (centres / unit)[is_rival], int(is_rival[: itself[label]].sum())
        at_once = max(1, DRAWS_AT_ONCE // (len(pool) + len(centres) + pool.shape[1]))
        for column, size in enumerate(n.tolist()):
            for start in range(0, num_queries, at_once):
                count = min(at_once, num_queries - start)
                shares = draw_shares(len(pool), size, count, generator, with_replacement)
                is_wrong = is_error(shares.to(pool.device), pool / unit, rivals, place)
                counts[label, column] += int(is_wrong.sum())
    return RetrievalErrors(n, counts, num_queries)


def draw_shares(
    num_items: int, n: int, num_queries: int, generator: torch.Generator, with_replacement: bool
) -> Float64[Tensor, "query item"]:
    """Draw collections of n items from a pool and return the share of each item in them."""
    shape, device = (num_queries, num_items), generator.device
    if with_replacement:
        chosen = torch.randint(num_items, (num_queries, n), generator=generator, device=device)
    else:
        keys = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
        chosen = keys.argsort(1)[:, :n]
    counts = torch.zeros(shape, dtype=torch.float64, device=device)
    return counts.scatter_add_(1, chosen, counts.new_ones(chosen.shape)) / n


def is_error(
    shares: Float64[Tensor, "query item"],
    pool: Float64[Tensor, "item dim"],
    centres: Float64[Tensor, "label dim"],
    label: int,
) -> Bool[Tensor, " query"]:
    """Return which means of items are as near to another centroid as to that of their label."""
    offsets = pool - centres[label]
    reach = shares @ length(offsets)
    y = depths(shares @ offsets, reach, centres, label, rounding(*offsets.shape))
    return (y <= 0).any(0)
