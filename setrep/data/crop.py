"""Random resized crops and flips of whole batches, as grids for one `grid_sample`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TRIES = 10
ASPECTS = (3 / 4, 4 / 3)  # width to height


def crop_boxes(
    shapes: Float[Tensor, "n try 2"],
    places: Float[Tensor, "n 2"],
    height: int,
    width: int,
    least: float,
) -> Int64[Tensor, "n 4"]:
    """Return top, left, height and width of boxes for draws in [0, 1).

    The rule is that of torchvision's RandomResizedCrop: a share of the area from `least` to 1, an
    aspect ratio even in its logarithm, of all tries the first that fits, and the middle of the
    image where none does.
    """
    areas = height * width * (least + (1 - least) * shapes[..., 0].double())
    low, high = (math.log(aspect) for aspect in ASPECTS)
    aspects = (low + (high - low) * shapes[..., 1].double()).exp()
    sides = torch.stack([(areas / aspects).sqrt(), (areas * aspects).sqrt()], dim=2).round()
    limits = torch.tensor([height, width], dtype=torch.float64)
    fits = ((sides > 0) & (sides <= limits)).all(dim=2)
    first = fits.int().argmax(dim=1)
    sides = sides[torch.arange(len(sides)), first]
    starts = (places.double() * (limits - sides + 1)).floor()
    boxes = torch.cat([starts, sides], dim=1).long()
    boxes[~fits.any(dim=1)] = torch.tensor(middle_box(height, width))
    return boxes


def middle_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest box about the middle whose aspect ratio is allowed."""
    rows = min(height, round(width / ASPECTS[0]))
    columns = min(width, round(height * ASPECTS[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def crop_map(
    boxes: Int64[Tensor, "n 4"], flips: Bool[Tensor, " n"], height: int, width: int
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Return scale and shift (x, y) from coordinates of the crop to those of the image.

    Both run from -1 to 1 from edge to edge; a flip makes the scale of x negative.
    """
    starts, sides = boxes[:, [1, 0]], boxes[:, [3, 2]]
    limits = torch.tensor([width, height], device=boxes.device)
    scales = sides / limits
    shifts = (2 * starts + sides) / limits - 1
    scales[:, 0] *= 1 - 2 * flips.float()
    return scales, shifts


def crop_grid(
    boxes: Int64[Tensor, "n 4"], flips: Bool[Tensor, " n"], height: int, width: int
) -> Float[Tensor, "n h w 2"]:
    """Return where `grid_sample` finds the pixels of crops that are as large as the images.

    Coordinates end at the middle of the box's outermost pixels, as if the crop had been cut out.
    """
    scales, shifts = crop_map(boxes, flips, height, width)
    grid = torch.empty(len(boxes), height, width, 2, device=boxes.device)
    for axis, size in enumerate((width, height)):
        middles = (torch.arange(size, device=boxes.device) * 2 + 1) / size - 1
        scale, shift = scales[:, axis, None], shifts[:, axis, None]
        reach = scale.abs() - 1 / size
        along = shift + (scale * middles).clamp(-reach, reach)
        grid[..., axis] = along.unsqueeze(1 if axis == 0 else 2)
    return grid
