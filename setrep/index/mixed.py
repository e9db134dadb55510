"""Search of a part that has an approximate index, and of others that have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from setrep.index.approximate import Approximate
from setrep.index.bank import Bank, check_values
from setrep.index.exact import Best, choose
from setrep.index.metric import Metric
from setrep.index.search import Neighbours, top_k_wide


@dataclass(frozen=True, eq=False)
class Mixed:
    """The vectors of an indexed part, which of them live, and a bank of all that come after.

    `whole` returns a bank of everything that lives, which most searches do not need.
    """

    index: Approximate
    vectors: Float[Tensor, "row dim"]
    live: Bool[NDArray[np.bool_], " row"]
    rest: Bank | None
    whole: Callable[[], Bank]
    metric: Metric

    def search(self, queries: Float[Tensor, "query dim"], k: int) -> Neighbours:
        """Return similarity and position of `k` of the nearest, among all that live.

        The scores are those of `top_k`, and so is the order. A query of which fewer than `k` are
        found is searched exactly.

        Raises:
            InputError: the queries hold NaN, infinity or values too large.
        """
        check_values("queries", queries)
        if self.index.fetched(k) >= np.count_nonzero(self.live):
            scores, places = top_k_wide(queries, self.whole(), k, self.metric)
        else:
            scores, places = self._search(queries, k)
            is_short = scores[:, -1] == -torch.inf
            if bool(is_short.any()):
                scores[is_short], places[is_short] = top_k_wide(
                    queries[is_short], self.whole(), k, self.metric
                )
        return scores.float() + 0, places  # -0 becomes 0

    def _search(self, queries: Tensor, k: int) -> Best:
        """Join what the index proposes with the nearest of the rest; -inf where there is none."""
        is_whole = bool(self.live.all())
        candidates = self.index.candidates(queries, k, None if is_whole else self.live)
        scores, rows = choose(queries, self.vectors, candidates, k, self.metric, has_gaps=True)
        if not bool((scores < torch.inf).all()):  # so for NaN, too
            check_values("vectors of the index", self.vectors)
        position = torch.from_numpy(np.cumsum(self.live)) - 1
        places = position[rows.clamp(min=0)]
        if self.rest is None:
            return scores, places
        more, items = top_k_wide(queries, self.rest, min(k, len(self.rest)), self.metric)
        scores, order = torch.cat([scores, more], 1).sort(dim=1, descending=True, stable=True)
        places = torch.cat([places, items + int(np.count_nonzero(self.live))], 1).gather(1, order)
        return scores[:, :k].contiguous(), places[:, :k].contiguous()
