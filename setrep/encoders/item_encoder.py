"""Backbone, projection and normalisation as one module."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from setrep.config import EncoderConfig


def build_mlp(width: int, hidden_dim: int, dim: int) -> nn.Sequential:
    """Build the projection of SimCLR: one hidden layer with batch normalisation."""
    return nn.Sequential(
        nn.Linear(width, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, dim),
    )


class ItemEncoder(nn.Module):
    """Turn items into embeddings of `dim` dimensions.

    Bytes are scaled to [0, 1]. `projection` is none, linear, or an MLP with one hidden layer as
    wide as the backbone (SimCLR); embeddings are L2-normalised where `normalize` asks for it.
    """

    def __init__(self, backbone: nn.Module, config: EncoderConfig) -> None:
        super().__init__()
        self.backbone = backbone
        width = int(backbone.dim)  # type: ignore[arg-type]
        self.dim = width if config.projection == "none" else config.projection_dim
        self.is_normalized = config.normalize
        self.projection: nn.Module = nn.Identity()
        if config.projection == "linear":
            self.projection = nn.Linear(width, self.dim)
        elif config.projection == "mlp":
            self.projection = build_mlp(width, width, self.dim)

    def forward(self, items: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Embed items in training or evaluation mode, as the module is set; float32 or better."""
        embeddings = self.features(items)
        return functional.normalize(embeddings, dim=-1) if self.is_normalized else embeddings

    def features(self, items: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Return embeddings before normalisation; a head above them takes these."""
        if items.dtype == torch.uint8:
            items = items.float() / 255
        if items.ndim == 4:  # a third faster for convolutions on CPUs
            items = items.contiguous(memory_format=torch.channels_last)
        embeddings: Tensor = self.projection(self.backbone(items))
        return embeddings.float() if embeddings.dtype != torch.float64 else embeddings
