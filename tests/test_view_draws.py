"""Over many draws, views of one image are distributed as torchvision's views of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from setrep.config import AugmentationConfig
from setrep.data.augmentation import Augmentation
from setrep.data.crop import TRIES, crop_boxes

DRAWS = 2500  # of torchvision; ours are four times as many, boxes twenty times
ERRORS = 5.0  # standard errors that two means may differ by: one in two million for one feature
SIDE = 10
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
CHANGES: dict[str, dict[str, float]] = {
    "crop": {"crop_scale": 0.08},
    "narrow crop": {"crop_scale": 0.8},
    "flip": {"flip": 0.3},
    **{name: {name: 0.7 * limit, "jitter": 1.0} for name, limit in
       (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5))},
    "jitter": COLOURS | {"jitter": 0.8},
    "strong jitter": dict.fromkeys(COLOURS, 1.0) | {"hue": 0.5, "jitter": 0.9},
    "grey": {"grey": 0.2},
    "blur": {"blur": 0.5},
    "all": {"crop_scale": 0.08, "flip": 0.5, **COLOURS, "jitter": 0.8, "grey": 0.2, "blur": 0.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def tv() -> Any:
    """Import torchvision's transforms, which takes seconds."""
    from torchvision import transforms

    return transforms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(height: int = SIDE, width: int = SIDE) -> Tensor:
    """Return one colourful image: a gradient, a square and noise."""
    x = torch.randint(0, 120, (3, height, width), generator=seeded(), dtype=torch.uint8)
    x[0] += torch.linspace(0, 130, width).byte()
    x[1, 2:6, 3:7] += 120
    return x


def one_by_one(tv: Any, change: dict[str, float], height: int, width: int) -> Callable[[], Tensor]:
    """Return torchvision's pipeline of an image, in SimCLR's order."""
    strengths = [change.get(name, 0.0) for name in COLOURS]
    steps = []
    if "crop_scale" in change:
        steps.append(
            tv.RandomResizedCrop((height, width), (change["crop_scale"], 1.0), antialias=True)
        )
    steps += [
        tv.RandomHorizontalFlip(change.get("flip", 0.0)),
        tv.RandomApply([tv.ColorJitter(*strengths)], change.get("jitter", 0.0)),
        tv.RandomGrayscale(change.get("grey", 0.0)),
        tv.RandomApply([tv.GaussianBlur(3, (0.1, 2.0))], change.get("blur", 0.0)),
    ]
    pipeline, x = tv.Compose(steps), image(height, width).float() / 255
    return lambda: pipeline(x)


def features(views: Tensor) -> Tensor:
    """Return what has the wanted means: pixels, their squares, and products with neighbours."""
    parts = [views, views.square(), views * views.roll(1, dims=1)]
    parts += [views * views.roll(1, dims=3), views * views.roll(3, dims=2)]
    return torch.cat([part.flatten(1) for part in parts], dim=1).double()


def assert_same_means(found: Tensor, expected: Tensor) -> None:
    """Compare the means of columns, by the standard error of their difference."""
    errors = (found.var(dim=0) / len(found) + expected.var(dim=0) / len(expected)).sqrt()
    difference = (found.mean(dim=0) - expected.mean(dim=0)).abs()
    assert float((difference - ERRORS * errors - 1e-5).max()) <= 0


@pytest.mark.parametrize(
    ("name", "height"),
    [*((name, SIDE) for name in CHANGES), ("crop", 2 * SIDE), ("narrow crop", 2 * SIDE)],
)
def test_moments_of_views_are_those_of_torchvision(tv, name: str, height: int) -> None:
    change = CHANGES[name]
    pipeline = one_by_one(tv, change, height, SIDE)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = torch.stack([pipeline() for _ in range(DRAWS)])
    augment = Augmentation(AugmentationConfig(**change))
    found = augment(image(height, SIDE).repeat(4 * DRAWS, 1, 1, 1), seeded(1))
    assert_same_means(features(found), features(expected))


@pytest.mark.parametrize(
    ("height", "width", "least"),
    [(32, 32, 0.08), (9, 40, 0.2), (40, 9, 0.2), (3, 3, 0.01), (8, 8, 0.95)],
)
def test_boxes_are_distributed_as_those_of_torchvision(tv, height, width, least) -> None:
    """The long shapes, and the crop of nearly all, often find no box in ten tries."""
    x = torch.zeros(1, height, width)
    limits = [least, 1.0], [3 / 4, 4 / 3]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = [tv.RandomResizedCrop.get_params(x, *limits) for _ in range(DRAWS)]
    n, generator = 20 * DRAWS, seeded(2)
    ours = crop_boxes(
        torch.rand(n, TRIES, 2, generator=generator),
        torch.rand(n, 2, generator=generator),
        height,
        width,
        least,
    )
    expected, found = torch.tensor(theirs).double(), ours.double()
    assert_same_means(box_features(found), box_features(expected))
    assert bool((ours[:, :2] >= 0).all())
    assert bool((ours[:, 2:] >= 1).all())
    assert bool((ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all())


def box_features(boxes: Tensor) -> Tensor:
    """Return places and sides, their squares and products, and whether it is the commonest box."""
    products = [boxes * boxes.roll(k, dims=1) for k in range(3)]
    commonest = (boxes == boxes.mode(dim=0).values).double()
    return torch.cat([boxes, *products, commonest], dim=1)


def test_a_shape_in_which_no_box_fits_gives_the_middle() -> None:
    never = torch.zeros(4, TRIES, 2)  # a box of the whole area, three by four
    never[..., 0] = 0.999
    for height, width, box in ((40, 9, (14, 0, 12, 9)), (9, 40, (0, 14, 9, 12))):
        boxes = crop_boxes(never, torch.zeros(4, 2), height, width, 0.9)
        assert boxes.tolist() == [list(box)] * 4


def test_of_ten_tries_the_first_that_fits_counts() -> None:
    draws = torch.zeros(1, TRIES, 2)
    draws[0, :, 0] = torch.tensor([0.999, 0.5, 0.25, 0, 0, 0, 0, 0, 0, 0])
    draws[0, 1:, 1] = 0.5  # as wide as high; the first try is not
    last = torch.tensor([[0.0, 0.999]])
    assert crop_boxes(draws, last, 10, 10, 0.28).tolist() == [[0, 2, 8, 8]]


def test_the_largest_aspect_ratio_is_wide_and_the_smallest_high() -> None:
    draws = torch.zeros(2, TRIES, 2)
    draws[0, :, 1] = 0.999
    boxes = crop_boxes(draws, torch.zeros(2, 2), 10, 10, 0.28)
    assert boxes.tolist() == [[0, 0, 5, 6], [0, 0, 6, 5]]


def test_every_order_of_the_operations_is_equally_likely() -> None:
    augment = Augmentation(AugmentationConfig(**CHANGES["jitter"]))
    n = 24_000
    factors, orders = augment._jitter_draws(n, seeded())
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert float((counts - n / 24).square().sum() / (n / 24)) < 23 + 5 * (2 * 23) ** 0.5
    assert bool((factors >= torch.tensor([0.6, 0.6, 0.6, -0.1]) - 1e-6).all())
    assert bool((factors <= torch.tensor([1.4, 1.4, 1.4, 0.1]) + 1e-6).all())
    limits = torch.tensor([0.4, 0.4, 0.4, 0.1]) / 3**0.5  # of a uniform draw
    torch.testing.assert_close(factors.std(dim=0), limits, atol=0, rtol=5 * (0.8 / 4 / n) ** 0.5)
    assert float((torch.corrcoef(factors.T) - torch.eye(4)).abs().max()) < 5 / n**0.5


def test_operations_without_strength_are_left_out_of_the_order() -> None:
    augment = Augmentation(AugmentationConfig(brightness=0.3, hue=0.1))
    _, orders = augment._jitter_draws(100, seeded())
    assert sorted(map(tuple, orders.unique(dim=0).tolist())) == [(0, 3), (3, 0)]
