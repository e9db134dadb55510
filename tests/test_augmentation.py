from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from setrep.config import AugmentationConfig
from setrep.data.augmentation import (
    Augmentation,
    add_rotated_classes,
    affine_matrices,
    elastic_field,
)
from setrep.data.dataset import ItemDataset, ItemFormat


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 1, size, size), generator=generator, dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


STRONG = AugmentationConfig(degrees=20, scale=0.2, shear=10, translate=0.1, elastic=0.05, erase=0.5)


def test_without_changes_images_only_become_fractions() -> None:
    x = images()
    assert torch.equal(Augmentation(AugmentationConfig())(x, seeded()), x.float() / 255)


def test_a_seed_gives_the_same_views_and_another_seed_gives_others() -> None:
    augment = Augmentation(STRONG)
    x = images()
    assert torch.equal(augment(x, seeded(1)), augment(x, seeded(1)))
    assert not torch.equal(augment(x, seeded(1)), augment(x, seeded(2)))


def test_each_image_is_changed_on_its_own() -> None:
    x = images(1).repeat(8, 1, 1, 1)
    views = Augmentation(STRONG)(x, seeded())
    distances = torch.cdist(views.flatten(1), views.flatten(1))
    assert bool((distances[~torch.eye(8, dtype=torch.bool)] > 0).all())
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_affine_draws_have_the_moments_of_their_uniform_distributions() -> None:
    limits = AugmentationConfig(degrees=15, translate=0.1)
    matrices = affine_matrices(limits, 20_000, seeded()).double()
    angles = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]) * 180 / math.pi
    assert float(angles.abs().max()) <= 15
    assert float(angles.mean()) == pytest.approx(0, abs=0.2)
    assert float(angles.std()) == pytest.approx(15 / math.sqrt(3), rel=0.02)
    shift = matrices[:, :, 2]  # the grid runs from -1 to 1: a share of the side counts double
    assert float(shift.abs().max()) <= 0.2
    assert float(shift.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.02)


def test_scale_changes_the_area_and_shear_and_rotation_do_not_mirror() -> None:
    config = AugmentationConfig(degrees=30, scale=0.3, shear=15)
    determinants = torch.linalg.det(affine_matrices(config, 5000, seeded())[:, :, :2])
    assert float(determinants.min()) > 0
    only_scale = affine_matrices(AugmentationConfig(scale=0.3), 5000, seeded())
    factors = 1 / torch.diagonal(only_scale[:, :, :2], dim1=1, dim2=2)
    assert float(factors.min()) >= 0.7 - 1e-6
    assert float(factors.max()) <= 1.3 + 1e-6
    assert float(factors.mean()) == pytest.approx(1, abs=0.01)


KNOBS = {
    "degrees": 30.0,
    "scale": 0.3,
    "shear": 20.0,
    "translate": 0.2,
    "elastic": 0.1,
    "erase": 0.9,
}


@pytest.mark.parametrize("name", KNOBS)
def test_each_change_alone_changes_images(name: str) -> None:
    x = images(20)
    views = Augmentation(AugmentationConfig(**{name: KNOBS[name]}))(x, seeded())
    changed = ((views - x / 255).abs() > 0.05).flatten(1).float().mean(dim=1)
    assert float(changed.mean()) > 0.03
    assert float((changed > 0).float().mean()) > 0.7


class Drawn:
    """Stands for torch's `rand`: gives what is asked for in place of random numbers."""

    def __init__(self, *draws: float) -> None:
        self.draws = iter(draws)

    def __call__(self, *shape: int, generator: torch.Generator) -> torch.Tensor:
        return torch.full(shape, next(self.draws))


HALF = 0.5  # the middle of each range: no change


def warped(
    monkeypatch: pytest.MonkeyPatch,
    image: np.ndarray,
    draws: tuple[float, ...],
    **config: float,
) -> np.ndarray:
    """Return the view of an image for these draws of angle, shear, scale and shift."""
    with monkeypatch.context() as patch:
        patch.setattr("setrep.data.augmentation.torch.rand", Drawn(*draws))
        x = torch.from_numpy(image)[None, None]
        return Augmentation(AugmentationConfig(**config))(x, seeded())[0, 0].numpy()


def by_scipy(image: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return `out[p] = in[centre + linear (p - centre) + shift]`, all in pixels, row first."""
    centre = (np.array(image.shape) - 1) / 2
    offset = centre + shift - linear @ centre
    # A border, because scipy does not blend the outermost pixels with the zeros beyond them.
    padded = np.pad(image / 255.0, 40)
    found = ndimage.affine_transform(padded, linear, offset + 40 - linear @ np.full(2, 40), order=1)
    return found[40:-40, 40:-40]


def delta(row: int, column: int, size: int = 15) -> np.ndarray:
    image = np.zeros((size, size), dtype=np.uint8)
    image[row, column] = 255
    return image


@pytest.mark.parametrize(("draw", "lands"), [(1.0, (7, 1)), (0.0, (7, 13)), (HALF, (1, 7))])
def test_a_quarter_turn_moves_the_top_to_the_side_it_should(draw, lands, monkeypatch) -> None:
    """The largest angle turns to the left, the smallest to the right, about the middle pixel."""
    view = warped(monkeypatch, delta(1, 7), (draw, HALF, HALF, HALF), degrees=90)
    np.testing.assert_allclose(view, delta(*lands) / 255, atol=1e-4)
    view = warped(monkeypatch, delta(7, 7), (draw, HALF, HALF, HALF), degrees=90)
    np.testing.assert_allclose(view, delta(7, 7) / 255, atol=1e-4)
    turns = {1.0: 1, 0.0: -1, HALF: 0}[draw]
    image = images(1)[0, 0].numpy()
    view = warped(monkeypatch, image, (draw, HALF, HALF, HALF), degrees=90)
    np.testing.assert_allclose(view, np.rot90(image, turns) / 255, atol=1e-3)


@pytest.mark.parametrize(("draw", "column"), [(1.0, 4), (0.0, 10), (HALF, 7)])
def test_a_shift_is_a_share_of_the_side(draw, column, monkeypatch) -> None:
    """Of 15 pixels a share of 0.2 is three, along both axes."""
    view = warped(monkeypatch, delta(7, 7), (HALF, HALF, HALF, draw), translate=0.2)
    np.testing.assert_allclose(view, delta(column, column) / 255, atol=1e-4)


@pytest.mark.parametrize(
    "draws", [(0.9, 0.8, 0.2, 0.7), (0.3, 0.1, 0.95, 0.25), (0.0, 1.0, 1.0, 0.0)]
)
def test_all_affine_changes_together_are_those_of_scipy(draws, monkeypatch) -> None:
    limits = {"degrees": 40.0, "shear": 20.0, "scale": 0.3, "translate": 0.15}
    image = images(1, 24)[0, 0].numpy()
    angle, shear, scale, shift = (
        (2 * draw - 1) * limit for draw, limit in zip(draws, limits.values(), strict=True)
    )
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    slant = math.tan(math.radians(shear))
    # Rows before columns, so that a turn of (x, y) is the opposite one of (row, column).
    linear = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1, slant], [slant, 1]]) / (1 + scale)
    expected = by_scipy(image, linear, np.full(2, shift * 24))
    view = warped(monkeypatch, image, draws, **limits)
    np.testing.assert_allclose(view, expected, atol=2e-3)
    assert np.abs(view - image / 255).mean() > 0.1


def test_a_larger_scale_enlarges(monkeypatch) -> None:
    square = np.zeros((20, 20), dtype=np.uint8)
    square[6:14, 6:14] = 255
    for draw, factor in ((1.0, 1.5), (0.0, 0.5), (HALF, 1.0)):
        view = warped(monkeypatch, square, (HALF, HALF, draw, HALF), scale=0.5)
        assert float(view.sum()) == pytest.approx((8 * factor) ** 2, rel=0.02)


def test_the_elastic_field_is_added_to_the_affine_map(monkeypatch) -> None:
    """A field that is one everywhere moves the image as a shift by `2 * limit` of half a side."""
    view = warped(monkeypatch, delta(7, 7), (HALF, HALF, HALF, HALF, 1.0), elastic=0.2)
    np.testing.assert_allclose(view, delta(4, 4) / 255, atol=1e-4)
    view = warped(
        monkeypatch, delta(7, 7), (HALF, HALF, HALF, 0.0, 1.0), elastic=0.2, translate=0.2
    )
    np.testing.assert_allclose(view, delta(7, 7) / 255, atol=1e-4)


def test_draws_of_scale_and_shear_have_the_moments_of_their_uniform_distributions() -> None:
    scales = 1 / affine_matrices(AugmentationConfig(scale=0.3), 20_000, seeded())[:, [0, 1], [0, 1]]
    linear = affine_matrices(AugmentationConfig(shear=30), 20_000, seeded())[:, :, :2]
    shears = linear[:, [0, 1], [1, 0]].atan() * 180 / math.pi
    for found, middle, limit in ((scales, 1.0, 0.3), (shears, 0.0, 30.0)):
        assert float((found - middle).abs().max()) <= limit * 1.0001
        assert found.mean(dim=0).tolist() == pytest.approx([middle] * 2, abs=limit * 0.02)
        assert found.std(dim=0).tolist() == pytest.approx([limit / math.sqrt(3)] * 2, rel=0.02)
        assert float(torch.corrcoef(found.T)[0, 1].abs()) < 0.03


def test_erased_rectangles_have_the_stated_sizes_and_lie_anywhere_inside() -> None:
    """Sides from 0.1 to 0.35 of the image's, evenly; no side depends on the other."""
    n, size = 6000, 40
    blank = (
        Augmentation(AugmentationConfig(erase=0.999))(
            torch.full((n, 1, size, size), 255, dtype=torch.uint8), seeded()
        )[:, 0]
        == 0
    )
    blank = blank[blank.flatten(1).any(dim=1)]
    assert len(blank) > 0.99 * n
    sides = torch.stack([blank.any(dim=2).sum(dim=1), blank.any(dim=1).sum(dim=1)], dim=1) / size
    assert float(sides.min()) >= 0.07
    assert float(sides.max()) <= 0.38
    assert sides.mean(dim=0).tolist() == pytest.approx([0.225] * 2, abs=0.007)
    assert sides.std(dim=0).tolist() == pytest.approx([0.25 / math.sqrt(12)] * 2, rel=0.04)
    assert float(torch.corrcoef(sides.T)[0, 1].abs()) < 0.06
    covered = blank.float().mean(dim=0)
    torch.testing.assert_close(covered, covered.flip(0), atol=0.03, rtol=0)
    torch.testing.assert_close(covered, covered.flip(1), atol=0.03, rtol=0)
    torch.testing.assert_close(covered, covered.T, atol=0.03, rtol=0)


def test_elastic_displacements_are_smooth_and_bounded() -> None:
    field = elastic_field(0.05, 50, 32, 32, seeded())
    # Bicubic interpolation may overshoot the drawn range a little.
    assert float(field.abs().max()) <= 0.1 * 1.3
    steps = field.diff(dim=1).abs().max()
    assert float(steps) < 0.1 * 0.35
    assert float(field.std()) > 0.01


def test_erasing_blanks_one_rectangle_in_the_asked_share_of_images() -> None:
    x = torch.full((2000, 1, 16, 16), 255, dtype=torch.uint8)
    views = Augmentation(AugmentationConfig(erase=0.3))(x, seeded())
    blank = views[:, 0] == 0
    share = blank.flatten(1).any(dim=1).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.04)
    for mask in blank[blank.flatten(1).any(dim=1)][:50]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())


def glyphs() -> ItemDataset:
    items = images(6, 8).numpy()
    labels = np.array([0, 0, 1, 1, 2, 2])
    return ItemDataset(
        "x",
        "train",
        items,
        labels,
        ("a", "b", "c"),
        ItemFormat("image", 1, 8),
        "label",
        "collection",
        np.arange(6) // 2,
        ("k0", "k1", "k2"),
    )


def test_rotated_copies_are_new_labels_and_keys_and_the_first_are_the_originals() -> None:
    dataset = glyphs()
    turned = add_rotated_classes(dataset)
    assert len(turned) == 24
    assert len(turned.label_names) == 12
    assert len(set(turned.label_names)) == 12
    assert np.array_equal(turned.items[:6], dataset.items)
    for turns in range(4):
        part = slice(6 * turns, 6 * (turns + 1))
        assert np.array_equal(turned.items[part], np.rot90(dataset.items, turns, (2, 3)))
        assert np.array_equal(turned.labels[part], dataset.labels + 3 * turns)
        assert turned.keys is not None
        assert np.array_equal(turned.keys[part], dataset.keys + 3 * turns)
    assert turned.label_names[3] == "a@90"
