"""Random changes of whole batches of images, drawn for each image on its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from setrep.config import AugmentationConfig
from setrep.data.dataset import ItemDataset


class Augmentation:
    """Apply affine maps, elastic deformation and erasing to a batch of byte images.

    All draws come from `generator` on the CPU, so a seed gives the same views on every device.
    Pixels that enter from outside are 0.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        c = config
        self.warps = any((c.degrees, c.scale, c.shear, c.translate, c.elastic))

    def __call__(
        self, images: UInt8[Tensor, "n channel h w"], generator: torch.Generator
    ) -> Float[Tensor, "n channel h w"]:
        """Return one view of each image, in [0, 1]."""
        views = images.float() / 255
        if self.warps:
            grid = self._grid(len(views), views.shape[-2], views.shape[-1], generator)
            views = functional.grid_sample(views, grid.to(views.device), align_corners=False)
        if self.config.erase:
            views = views.masked_fill(self._erased(views, generator).to(views.device), 0)
        return views

    def _grid(
        self, n: int, height: int, width: int, generator: torch.Generator
    ) -> Float[Tensor, "n h w 2"]:
        grid = functional.affine_grid(
            affine_matrices(self.config, n, generator), [n, 1, height, width], align_corners=False
        )
        if self.config.elastic:
            grid = grid + elastic_field(self.config.elastic, n, height, width, generator)
        return grid

    def _erased(self, views: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = views.shape
        share = torch.rand(n, 2, generator=generator) * 0.25 + 0.1
        start = torch.rand(n, 2, generator=generator) * (1 - share)
        chosen = torch.rand(n, generator=generator) < self.config.erase
        rows = (torch.arange(height) + 0.5) / height
        columns = (torch.arange(width) + 0.5) / width
        in_rows = (rows >= start[:, :1]) & (rows < start[:, :1] + share[:, :1])
        in_columns = (columns >= start[:, 1:]) & (columns < start[:, 1:] + share[:, 1:])
        erased = in_rows.unsqueeze(2) & in_columns.unsqueeze(1) & chosen.view(-1, 1, 1)
        return erased.unsqueeze(1)


def affine_matrices(
    config: AugmentationConfig, n: int, generator: torch.Generator
) -> Float[Tensor, "n 2 3"]:
    """Draw maps from output to input coordinates: rotation, shear, scale of each axis, shift."""

    def uniform(limit: float, columns: int = 1) -> Tensor:
        return (torch.rand(n, columns, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(config.degrees))[:, 0]
    shear = uniform(math.radians(config.shear), 2).tan()
    scale = 1 + uniform(config.scale, 2)
    shift = uniform(config.translate, 2) * 2
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    shears = torch.eye(2).repeat(n, 1, 1)
    shears[:, 0, 1], shears[:, 1, 0] = shear[:, 0], shear[:, 1]
    linear = rotation @ shears @ torch.diag_embed(1 / scale)
    return torch.cat([linear, shift.unsqueeze(2)], dim=2)


def elastic_field(
    limit: float, n: int, height: int, width: int, generator: torch.Generator, cells: int = 4
) -> Float[Tensor, "n h w 2"]:
    """Draw smooth displacements of at most about `limit` of a side (Simard et al. 2003)."""
    coarse = (torch.rand(n, 2, cells, cells, generator=generator) * 2 - 1) * 2 * limit
    fine = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def add_rotated_classes(dataset: ItemDataset) -> ItemDataset:
    """Add quarter turns of every image as labels (and collection keys) of their own."""
    turned = [np.rot90(dataset.items, turns, axes=(2, 3)) for turns in range(4)]
    names = [tuple(f"{name}@{90 * turns}" for name in dataset.label_names) for turns in range(4)]
    keys = dataset.keys
    if keys is not None:
        keys = np.concatenate([keys + turns * len(dataset.key_names) for turns in range(4)])
    return replace(
        dataset,
        items=np.concatenate(turned),
        labels=np.concatenate(
            [dataset.labels + turns * len(dataset.label_names) for turns in range(4)]
        ),
        label_names=sum(names, ()),
        keys=keys,
        key_names=sum(
            (tuple(f"{k}@{90 * turns}" for k in dataset.key_names) for turns in range(4)), ()
        ),
        source_note=f"{dataset.source_note}; quarter turns as classes of their own",
    )
