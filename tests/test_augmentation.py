from __future__ import annotations

import math

import numpy as np
import pytest
import torch

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


def test_a_quarter_turn_matches_numpy() -> None:
    class Quarter(Augmentation):
        def _grid(self, n, height, width, generator):
            quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).expand(n, 2, 3)
            return torch.nn.functional.affine_grid(
                quarter, [n, 1, height, width], align_corners=False
            )

    x = images(2)
    turned = Quarter(AugmentationConfig(degrees=1))(x, seeded())
    expected = [torch.from_numpy(np.rot90(x.numpy(), k, (2, 3)).copy()) / 255 for k in (1, 3)]
    assert any(torch.allclose(turned, e, atol=1e-4) for e in expected)


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
