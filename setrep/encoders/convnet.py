"""A small residual network for glyphs and CPUs."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)  # of the stem and of each block
SMALL = (16, 32, 64, 96)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to a shortcut (He et al. 2016)."""

    def __init__(self, dim_in: int, dim_out: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim_in, dim_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(dim_out)
        self.second = nn.Conv2d(dim_out, dim_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(dim_out)
        # Averaging before the 1x1 keeps the pixels that a strided 1x1 would skip.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True),
            nn.Conv2d(dim_in, dim_out, 1, bias=False),
            nn.BatchNorm2d(dim_out),
        )

    def forward(self, x: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n channel_out h w"]:
        """Halve the sides at stride 2, keep them at stride 1."""
        out = torch.relu(self.first_norm(self.first(x)))
        out = self.second_norm(self.second(out))
        return torch.relu(out + self.shortcut(x))


class ConvNet(nn.Module):
    """Stem and three residual blocks; global average pooling.

    About 0.9 M parameters, or 0.2 M with the widths `SMALL`.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.dim = widths[-1]
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, stride=2) for a, b in pairwise(widths)))

    def forward(self, images: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n dim"]:
        """Encode images of any size of at least 8 pixels."""
        x = torch.relu(self.stem_norm(self.stem(images)))
        features: Tensor = self.blocks(x)
        return features.mean(dim=(2, 3))
