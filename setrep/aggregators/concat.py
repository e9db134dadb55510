"""The embeddings of several aggregators, joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep.aggregators.aggregator import Aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError


class ConcatAggregator(Aggregator):
    r"""Embeddings by several aggregators, each with its default options, one after the other.

    $$ f(G) = [f_1(G); \dots; f_k(G)] $$

    `parts` are their names. It ignores copies, and is equivariant, where all parts are.
    """

    formula = "[f1; ...; fk]"

    def __init__(self, dim: int, *, parts: Sequence[str] = ("centroid", "max")) -> None:
        from setrep.aggregators import build_aggregator  # not above: the registry names this class

        if isinstance(parts, str) or not parts:
            raise InputError(f"Parts are a list of names of aggregators, not {parts!r}.")
        built = [build_aggregator(name, dim) for name in parts]
        super().__init__(dim, sum(part.dim_out for part in built))
        self.parts = nn.ModuleList(built)
        self.ignores_copies = all(part.ignores_copies for part in built)
        shared = set.intersection(*(set(part.equivariances) for part in built))
        self.equivariances = tuple(sorted(shared))

    def aggregate(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Join the embeddings by all parts."""
        return torch.cat([part(batch) for part in self.parts], dim=1)
