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
from setrep.data.colour import blur_kernel_size, gaussian_blur, greyscale, jitter
from setrep.data.crop import TRIES, crop_boxes, crop_grid, crop_map
from setrep.data.dataset import ItemDataset


class Augmentation:
    """Crop, flip, warp, recolour, blur and erase a batch of byte images, in this order.

    All draws come from `generator` on the CPU, so a seed gives the same views on every device.
    Pixels that enter from outside are 0. A crop that is warped too is resampled once, and shows
    what lies beside it in the image.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        c = config
        self.warps = any((c.degrees, c.scale, c.shear, c.translate, c.elastic))
        self.crops = c.crop_scale < 1
        self.strengths = (c.brightness, c.contrast, c.saturation, c.hue)

    def __call__(
        self, images: UInt8[Tensor, "n channel h w"], generator: torch.Generator
    ) -> Float[Tensor, "n channel h w"]:
        """Return one view of each image, in [0, 1]."""
        views = images.float().div_(255)
        if self.crops or self.config.flip:
            views = self._cropped(views, generator)
        elif self.warps:
            grid = self._grid(len(views), views.shape[-2], views.shape[-1], generator)
            views = functional.grid_sample(views, grid.to(views.device), align_corners=False)
        if any((*self.strengths, self.config.grey, self.config.blur)):
            views = self._recoloured(views, generator)
        if self.config.erase:
            views = views.masked_fill(self._erased(views, generator).to(views.device), 0)
        return views

    def _cropped(self, views: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = views.shape
        boxes = torch.tensor([[0, 0, height, width]]).expand(n, 4)
        if self.crops:
            shapes = torch.rand(n, TRIES, 2, generator=generator)
            places = torch.rand(n, 2, generator=generator)
            boxes = crop_boxes(shapes, places, height, width, self.config.crop_scale)
        flips = torch.rand(n, generator=generator) < self.config.flip
        if self.warps:
            scales, shifts = crop_map(boxes, flips, height, width)
            grid = self._grid(n, height, width, generator)
            grid = grid * scales.view(n, 1, 1, 2) + shifts.view(n, 1, 1, 2)
        elif self.crops:
            grid = crop_grid(boxes.to(views.device), flips.to(views.device), height, width)
        else:
            chosen = flips.nonzero()[:, 0].to(views.device)
            return views.index_copy_(0, chosen, views[chosen].flip(-1))
        views = functional.grid_sample(views, grid.to(views.device), align_corners=False)
        return views.clamp_(0, 1)  # weights of four pixels may sum to a little over 1

    def _recoloured(self, views: Tensor, generator: torch.Generator) -> Tensor:
        c = self.config
        n, channels, height, width = views.shape

        def draw(probability: float) -> Tensor:
            return torch.rand(n, generator=generator) < probability

        if any(self.strengths):
            factors, orders = self._jitter_draws(n, generator)
            orders[~draw(c.jitter)] = -1
            views = jitter(views, factors.to(views.device), orders)
        if c.grey:
            chosen = draw(c.grey).nonzero()[:, 0].to(views.device)
            if channels == 3:
                views[chosen] = greyscale(views[chosen]).expand(-1, 3, -1, -1)
        if c.blur:
            chosen = draw(c.blur).nonzero()[:, 0]
            sigmas = 0.1 + 1.9 * torch.rand(n, generator=generator)[chosen]
            chosen, sigmas = chosen.to(views.device), sigmas.to(views.device)
            views[chosen] = gaussian_blur(views[chosen], sigmas, blur_kernel_size(height, width))
        return views.clamp_(0, 1)

    def _jitter_draws(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the strength of each operation and a random order of those that have any."""
        strengths = torch.tensor(self.strengths)
        factors = torch.tensor([1.0, 1.0, 1.0, 0.0]) + strengths * (
            torch.rand(n, 4, generator=generator) * 2 - 1
        )
        used = strengths.nonzero()[:, 0]
        return factors, used[torch.rand(n, len(used), generator=generator).argsort(dim=1)]

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
