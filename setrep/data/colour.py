"""Changes of colour and sharpness, one strength for each image of a batch, values in [0, 1].

They are those of torchvision.transforms.functional, image by image. No comparison selects values:
`where`, `==` and `remainder` take several times as long as `sign`, `lerp` and `frac` on a CPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, in torchvision's digits


def greyscale(images: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n 1 h w"]:
    """Return the luma of images with three channels, and of others the mean of the channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.unbind(dim=1)
    grey = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return grey.unsqueeze(1)


def blend(
    images: Float[Tensor, "n channel h w"],
    others: Float[Tensor, "n #channel #h #w"],
    factors: Float[Tensor, " n"],
) -> Float[Tensor, "n channel h w"]:
    """Return `factor * image + (1 - factor) * other`, cut to [0, 1]."""
    shares = factors.view(-1, 1, 1, 1)
    return (images * shares).add_(others * (1 - shares)).clamp_(0, 1)


def adjust_brightness(
    images: Float[Tensor, "n channel h w"], factors: Float[Tensor, " n"]
) -> Float[Tensor, "n channel h w"]:
    """Blend images with black."""
    return (images * factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "n channel h w"], factors: Float[Tensor, " n"]
) -> Float[Tensor, "n channel h w"]:
    """Blend images with the mean of their luma."""
    means = greyscale(images.flatten(2).mean(dim=2)[:, :, None, None])
    return blend(images, means, factors)


def adjust_saturation(
    images: Float[Tensor, "n channel h w"], factors: Float[Tensor, " n"]
) -> Float[Tensor, "n channel h w"]:
    """Blend images with their luma; without three channels there is no colour to change."""
    if images.shape[1] != 3:
        return images
    return blend(images, greyscale(images), factors)


def adjust_hue(
    images: Float[Tensor, "n channel h w"], shifts: Float[Tensor, " n"]
) -> Float[Tensor, "n channel h w"]:
    r"""Turn the hue by a share of the circle; without three channels there is none.

    With the largest channel $V$ and the chroma $C$ (largest less smallest), a hue $H \in [0, 6)$
    gives $V - C + C \cdot (|H - 3| - 1,\; 2 - |H - 2|,\; 2 - |H - 4|)$, each clamped to [0, 1].
    """
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    smallest = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    is_not_red, is_not_green = (largest - red).sign_(), (largest - green).sign_()
    from_green = torch.add(blue - red, chroma, alpha=2)
    from_blue = torch.add(red - green, chroma, alpha=4)
    hue = (green - blue).lerp_(from_green.lerp_(from_blue, is_not_green), is_not_red)
    hue.div_(chroma.clamp_min(1e-12).mul_(6))  # a grey has chroma 0, and any hue
    hue.add_(1 + shifts.view(-1, 1, 1)).frac_().mul_(6)
    parts = [(hue - 3).abs_().sub_(1)]
    parts += [(hue - middle).abs_().neg_().add_(2) for middle in (2, 4)]
    return torch.stack(parts, 1).clamp_(0, 1).mul_(chroma.unsqueeze(1)).add_(smallest.unsqueeze(1))


OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def jitter(
    images: Float[Tensor, "n channel h w"],
    factors: Float[Tensor, "n 4"],
    orders: Int64[Tensor, "n position"],
) -> Float[Tensor, "n channel h w"]:
    """Apply to each image the `OPERATIONS` that its row of `orders` names, one after the other.

    Column `k` of `factors` is for operation `k`; -1 in `orders` stands for none. `orders` lies on
    the CPU, so that no GPU is waited for.
    """
    images = images.clone()
    for position in orders.unbind(dim=1):
        for number, operation in enumerate(OPERATIONS):
            which = (position == number).nonzero()[:, 0].to(images.device)
            if len(which):
                part = images.index_select(0, which)  # a third of the time of images[which]
                images.index_copy_(0, which, operation(part, factors[which, number]))
    return images


def gaussian_blur(
    images: Float[Tensor, "n channel h w"], sigmas: Float[Tensor, " n"], kernel_size: int
) -> Float[Tensor, "n channel h w"]:
    """Blur along both axes with a normal density cut to an odd size, reflecting at the edges."""
    reach = kernel_size // 2
    steps = torch.arange(reach + 1, device=images.device)
    weights = (-0.5 * (steps / sigmas.unsqueeze(1)).square()).exp()
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - 1)  # the middle one counts once
    views = functional.pad(images, [reach] * 4, mode="reflect")
    for axis in (2, 3):
        size = images.shape[axis]
        blurred = views.narrow(axis, reach, size) * weights[:, 0].view(-1, 1, 1, 1)
        for step in range(1, reach + 1):
            pair = views.narrow(axis, reach - step, size) + views.narrow(axis, reach + step, size)
            blurred.add_(pair.mul_(weights[:, step].view(-1, 1, 1, 1)))
        views = blurred
    return views


def blur_kernel_size(height: int, width: int) -> int:
    """Return the odd number next to a tenth of the shorter side, at least 3 (SimCLR)."""
    return max(3, 2 * (min(height, width) // 20) + 1)
