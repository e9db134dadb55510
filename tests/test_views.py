"""Each change of a batch, with its strengths given, is torchvision's of each image alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from setrep.config import AugmentationConfig
from setrep.data.augmentation import Augmentation, affine_matrices, elastic_field
from setrep.data.colour import (
    OPERATIONS,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur_kernel_size,
    gaussian_blur,
    greyscale,
    jitter,
)
from setrep.data.crop import crop_grid

SIMCLR = AugmentationConfig(
    crop_scale=0.08, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2,
    blur=0.5,
)  # fmt: skip
NAMES = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")


@pytest.fixture(scope="module")
def tv() -> Any:
    """Import torchvision's functions, which takes seconds."""
    from torchvision.transforms import functional as functions

    return functions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 8, channels: int = 3, height: int = 16, width: int = 16, seed: int = 0):
    """Return random images whose upper rows hold few values: greys, ties, black and white."""
    x = torch.rand(n, channels, height, width, generator=seeded(seed))
    x[:, :, : height // 2] = (x[:, :, : height // 2] * 3).floor() / 2
    return x


def bytes_of(n: int = 8, channels: int = 3, side: int = 16) -> torch.Tensor:
    shape = (n, channels, side, side)
    return torch.randint(0, 256, shape, generator=seeded(), dtype=torch.uint8)


def strengths(n: int, seed: int) -> torch.Tensor:
    """Return factors from 0 to 2, and in the last column shifts of hue from -0.5 to 0.5."""
    drawn = torch.rand(n, 4, generator=seeded(seed))
    return torch.cat([drawn[:, :3] * 2, drawn[:, 3:] - 0.5], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", range(4))
def test_each_operation_is_that_of_torchvision(tv, number: int, channels: int) -> None:
    for seed in range(5):
        x = images(channels=channels, seed=seed)
        factors = strengths(len(x), seed)[:, number]
        theirs = getattr(tv, NAMES[number])
        expected = torch.stack([theirs(i, float(f)) for i, f in zip(x, factors, strict=True)])
        torch.testing.assert_close(OPERATIONS[number](x, factors), expected, atol=4e-6, rtol=0)


def test_jitter_applies_the_operations_of_each_image_in_its_own_order(tv) -> None:
    x = images(40)
    factors, orders = strengths(40, 1), torch.rand(40, 4, generator=seeded()).argsort(dim=1)
    orders[::5] = -1
    orders[1::5, 2:] = -1
    found = jitter(x, factors, orders)
    for image, row, order, view in zip(x, factors, orders.tolist(), found, strict=True):
        for number in order:
            if number >= 0:
                image = getattr(tv, NAMES[number])(image, float(row[number]))
        torch.testing.assert_close(view, image, atol=1e-5, rtol=0)
    assert torch.equal(found[::5], x[::5])
    assert torch.equal(x, images(40))  # not changed in place


def test_grey_is_that_of_torchvision(tv) -> None:
    torch.testing.assert_close(
        greyscale(images()), tv.rgb_to_grayscale(images()), atol=1e-6, rtol=0
    )
    assert torch.equal(greyscale(images(channels=1)), images(channels=1))


@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_blur_is_that_of_torchvision(tv, kernel_size: int) -> None:
    x = images(12, 3, 16, 11)
    sigmas = torch.linspace(0.1, 2, 12)
    expected = [
        tv.gaussian_blur(i, [kernel_size] * 2, [float(s)] * 2)
        for i, s in zip(x, sigmas, strict=True)
    ]
    found = gaussian_blur(x, sigmas, kernel_size)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


def test_the_kernel_is_the_odd_number_next_to_a_tenth_of_the_side() -> None:
    sides = {8: 3, 28: 3, 32: 3, 64: 7, 96: 9, 105: 11, 224: 23}
    assert {side: blur_kernel_size(side, 2 * side) for side in sides} == sides


def boxes_within(height: int, width: int, n: int, seed: int = 0) -> torch.Tensor:
    limits = torch.tensor([height, width])
    sides = (torch.rand(n, 2, generator=seeded(seed)) * limits).floor().long() + 1
    starts = (torch.rand(n, 2, generator=seeded(seed + 1)) * (limits - sides + 1)).floor().long()
    return torch.cat([starts, sides], dim=1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (12, 25)])
def test_a_crop_is_that_of_torchvision(tv, height: int, width: int) -> None:
    """No box is larger than the image, so nothing shrinks, and antialiasing changes nothing."""
    x, boxes = images(60, 3, height, width), boxes_within(height, width, 60)
    flips = torch.arange(60) % 2 == 1
    found = functional.grid_sample(x, crop_grid(boxes, flips, height, width), align_corners=False)
    for image, box, flip, view in zip(x, boxes.tolist(), flips, found, strict=True):
        expected = tv.resized_crop(image, *box, [height, width], antialias=True)
        expected = tv.hflip(expected) if flip else expected
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)


def test_a_warped_crop_is_the_warp_of_the_crop_where_it_shows_nothing_else() -> None:
    """On ramps, which interpolation does not change, away from the edges."""
    ramp = torch.arange(32, dtype=torch.uint8)
    x = torch.stack(
        [ramp.expand(32, 32) * 4, ramp.unsqueeze(1).expand(32, 32) * 3, ramp + ramp[:, None]]
    )
    x = x.expand(50, 3, 32, 32)
    config = AugmentationConfig(crop_scale=0.3, flip=0.5)
    generator = seeded()
    crops = Augmentation(config)(x, generator)
    matrices = affine_matrices(AugmentationConfig(degrees=15, translate=0.1), 50, generator)
    grid = functional.affine_grid(matrices, [50, 1, 32, 32], align_corners=False)
    expected = functional.grid_sample(crops, grid, align_corners=False)
    both = config.model_copy(update={"degrees": 15.0, "translate": 0.1})
    found = Augmentation(both)(x, seeded())
    middle = (..., slice(9, 23), slice(9, 23))
    torch.testing.assert_close(found[middle], expected[middle], atol=1e-4, rtol=0)


def test_a_flip_comes_before_a_warp() -> None:
    x = bytes_of(40)
    generator = seeded()
    flips = torch.rand(40, generator=generator) < 0.5
    flipped = torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
    expected = Augmentation(AugmentationConfig(degrees=30, shear=10))(flipped, generator)
    found = Augmentation(AugmentationConfig(degrees=30, shear=10, flip=0.5))(x, seeded())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_without_the_new_changes_draws_and_views_are_those_of_before() -> None:
    config = AugmentationConfig(degrees=20, scale=0.2, translate=0.1, elastic=0.05)
    x, before, now = bytes_of(10), seeded(3), seeded(3)
    grid = functional.affine_grid(
        affine_matrices(config, 10, before), [10, 1, 16, 16], align_corners=False
    ) + elastic_field(0.05, 10, 16, 16, before)
    expected = functional.grid_sample(x.float() / 255, grid, align_corners=False)
    assert torch.equal(Augmentation(config)(x, now), expected)
    assert torch.equal(now.get_state(), before.get_state())


def test_images_of_one_channel_have_no_colour_to_change() -> None:
    config = AugmentationConfig(saturation=0.9, hue=0.5, jitter=1, grey=1)
    x = bytes_of(20, channels=1)
    assert torch.equal(Augmentation(config)(x, seeded()), x / 255)


seeds = st.integers(0, 2**20)


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_a_factor_of_one_no_turn_of_hue_and_two_flips_change_nothing(seed: int) -> None:
    x = images(seed=seed)
    for operation in (adjust_brightness, adjust_contrast, adjust_saturation):
        assert torch.equal(operation(x, torch.ones(len(x))), x)
    torch.testing.assert_close(adjust_hue(x, torch.zeros(len(x))), x, atol=4e-6, rtol=0)
    whole = torch.tensor([[0, 0, 16, 16]]).expand(len(x), 4)
    grid = crop_grid(whole, torch.ones(len(x), dtype=torch.bool), 16, 16)
    once = functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(once, x.flip(-1), atol=4e-6, rtol=0)
    twice = functional.grid_sample(once, grid, align_corners=False)
    torch.testing.assert_close(twice, x, atol=8e-6, rtol=0)
    always = Augmentation(AugmentationConfig(flip=1))
    assert torch.equal(always(bytes_of(), seeded()), (bytes_of() / 255).flip(-1))


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_an_image_is_changed_the_same_alone_and_in_a_batch(seed: int) -> None:
    x, factors = images(6, seed=seed), strengths(6, seed)
    orders = torch.rand(6, 4, generator=seeded(seed)).argsort(dim=1)
    sigmas, boxes = factors[:, 0] + 0.1, boxes_within(16, 16, 6, seed)
    flips = factors[:, 1] < 1

    def changed(i: slice) -> list[torch.Tensor]:
        grid = crop_grid(boxes[i], flips[i], 16, 16)
        return [
            jitter(x[i], factors[i], orders[i]),
            gaussian_blur(x[i], sigmas[i], 5),
            functional.grid_sample(x[i], grid, align_corners=False),
        ]

    together = changed(slice(None))
    for i in range(6):
        for one, all_ in zip(changed(slice(i, i + 1)), together, strict=True):
            torch.testing.assert_close(one, all_[i : i + 1], atol=1e-6, rtol=0)


@given(seed=seeds, channels=st.sampled_from([1, 3]), warp=st.booleans())
@settings(max_examples=25, deadline=None)
def test_views_stay_in_range_and_follow_the_seed(seed: int, channels: int, warp: bool) -> None:
    strong = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5, "erase": 0.3}
    augment = Augmentation(SIMCLR.model_copy(update=strong | {"degrees": 30.0 * warp}))
    x = bytes_of(8, channels)
    x[:2] = 255
    views = augment(x, seeded(seed))
    assert views.dtype == torch.float32
    assert views.shape == x.shape
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    assert torch.equal(views, augment(x, seeded(seed)))
    assert not torch.equal(views, augment(x, seeded(seed + 1)))


def test_each_image_has_draws_of_its_own() -> None:
    views = Augmentation(SIMCLR)(bytes_of(1).repeat(64, 1, 1, 1), seeded())
    distances = torch.cdist(views.flatten(1), views.flatten(1))
    assert bool((distances[~torch.eye(64, dtype=torch.bool)] > 1e-3).all())


def test_a_second_call_gives_other_views() -> None:
    generator, x = seeded(), bytes_of()
    augment = Augmentation(SIMCLR)
    assert not torch.equal(augment(x, generator), augment(x, generator))
