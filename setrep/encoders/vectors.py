"""Encoders of vectors."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Mlp(nn.Module):
    """Two hidden layers with batch normalisation, for items that are vectors already."""

    def __init__(self, dim_in: int, hidden: int = 256) -> None:
        super().__init__()
        self.dim = hidden
        self.layers = nn.Sequential(
            nn.Linear(dim_in, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
        )

    def forward(self, items: Float[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Encode vectors, or images taken as vectors."""
        encoded: Tensor = self.layers(items.flatten(1))
        return encoded


class IdentityEncoder(nn.Module):
    """Items as they are, flattened."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, items: Float[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Flatten."""
        return items.flatten(1)
