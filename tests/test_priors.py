import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

from setrep.errors import InputError
from setrep.priors import estimate


def mixture(tau_plus, num_random, *, num_positive=300, mean=3.0, spread=1.0, seed=0):
    """Draw positive similarities around `mean`, and random ones with negatives around 0."""
    generator = torch.Generator().manual_seed(seed)
    positive = mean + spread * torch.randn(num_positive, generator=generator)
    random = torch.randn(num_random, generator=generator)
    is_positive = torch.rand(num_random, generator=generator) < tau_plus
    return positive, torch.where(is_positive, mean + spread * random, random)


def on_sphere(num_classes, num_random, *, num_positive=300, seed=0):
    """Draw cosines of items around class centres, as an encoder trained by contrast has them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, 128, generator=generator)

    def cosines(one, other):
        noise = 0.7 * torch.randn(2, len(one), 128, generator=generator)
        return (normalize(centres[one] + noise[0]) * normalize(centres[other] + noise[1])).sum(1)

    same = torch.randint(num_classes, (num_positive,), generator=generator)
    pairs = torch.randint(num_classes, (2, num_random), generator=generator)
    return cosines(same, same), cosines(*pairs)


def random_pairs(embeddings, labels, num_positive, num_random, seed):
    """Draw cosines of random pairs of one class, and of any two items."""
    generator = torch.Generator().manual_seed(seed)
    values = normalize(embeddings.flatten(1).double())
    labels = torch.as_tensor(labels)
    one, other = torch.randint(len(labels), (2, num_random), generator=generator)
    is_pair = one != other
    random = (values[one] * values[other]).sum(dim=1)[is_pair]
    same = (labels[:, None] == labels).triu(1).nonzero()
    same = same[torch.randperm(len(same), generator=generator)[:num_positive]]
    return (values[same[:, 0]] * values[same[:, 1]]).sum(dim=1), random


def share_of_pairs(labels):
    counts = torch.as_tensor(labels).bincount().double()
    return float((counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1)))


@pytest.mark.parametrize(("num_classes", "num_random"), [(10, 10_000), (100, 40_000)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classes_on_a_sphere_are_counted_within_20_percent(num_classes, num_random, seed):
    found = estimate(*on_sphere(num_classes, num_random, seed=seed), num_bootstrap=20)
    assert found.value == pytest.approx(1 / num_classes, rel=0.2)
    assert found.interval[0] < found.value < found.interval[1]


def test_964_classes_are_counted_within_20_percent():
    found = estimate(*on_sphere(964, 150_000), num_bootstrap=20)
    assert found.value == pytest.approx(1 / 964, rel=0.2)


@pytest.mark.parametrize(("tau_plus", "num_random"), [(0.1, 20_000), (0.01, 60_000), (0.5, 5000)])
def test_overlapping_bells_are_told_apart_within_20_percent(tau_plus, num_random):
    # A mean of 3 leaves one negative in 740 above the middle of the positives: at 0.01 there are
    # a quarter as many of them as of the positives, which counting above a threshold would add.
    found = estimate(*mixture(tau_plus, num_random, num_positive=1000), num_bootstrap=20)
    assert found.value == pytest.approx(tau_plus, rel=0.2)


def test_negatives_as_similar_as_the_most_similar_positives_are_counted_too():
    # No anchor set: one in twenty negatives is drawn like a positive, and looks like one.
    positive, random = mixture(0.1 + 0.9 * 0.05, 20_000, mean=4.0)
    assert estimate(positive, random, num_bootstrap=20).value == pytest.approx(0.145, rel=0.2)


def test_more_pairs_bring_the_estimate_nearer():
    errors = []
    for num_positive in (50, 5000):
        values = [
            estimate(
                *mixture(0.1, 50_000, num_positive=num_positive, seed=seed), num_bootstrap=1
            ).value
            for seed in range(10)
        ]
        errors.append(float(np.mean(np.abs(np.array(values) / 0.1 - 1))))
    assert errors[1] < 0.04
    assert errors[1] < errors[0] / 2


def test_the_interval_covers_the_truth():
    # The docstring of `estimate` says how often in longer simulations.
    num_covered = 0
    for seed in range(60):
        low, high = estimate(*mixture(0.1, 10_000, seed=seed), num_bootstrap=40).interval
        num_covered += low <= 0.1 <= high
    assert 0.85 <= num_covered / 60 <= 1


def test_a_higher_confidence_gives_a_wider_interval_and_a_seed_the_same():
    pairs = mixture(0.1, 10_000)
    wide, narrow = (estimate(*pairs, confidence=level, num_bootstrap=50) for level in (0.99, 0.5))
    assert wide.interval[0] < narrow.interval[0] < narrow.interval[1] < wide.interval[1]
    assert wide.value == narrow.value
    one, again, other = (estimate(*pairs, num_bootstrap=5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.interval != other.interval


@pytest.mark.parametrize("change", [torch.exp, torch.atan, lambda x: 5 * x - 7, lambda x: x**3])
def test_only_the_order_of_similarities_matters(change):
    positive, random = (x.double() for x in mixture(0.1, 10_000))
    found = estimate(positive, random, num_bootstrap=5)
    assert estimate(change(positive), change(random), num_bootstrap=5) == found


def test_the_order_of_pairs_does_not_matter():
    positive, random = mixture(0.1, 10_000)
    found = estimate(positive, random, num_bootstrap=5)
    assert estimate(positive.flip(0), random.flip(0), num_bootstrap=5) == found


def test_where_random_pairs_are_the_positive_pairs_the_prior_is_1():
    positive, _ = mixture(0.1, 10)
    assert estimate(positive, positive, num_bootstrap=1).value == pytest.approx(1, abs=1e-3)


def test_the_estimate_grows_with_the_share_of_positive_pairs():
    values = [
        estimate(*mixture(tau_plus, 20_000), num_bootstrap=1).value
        for tau_plus in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
    ]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_ties_are_counted_and_do_not_stop_the_fit():
    positive, random = mixture(0.1, 20_000)
    rounded = [(x * 20).round() / 20 for x in (positive, random)]
    exact = estimate(positive, random, num_bootstrap=5).value
    assert estimate(*rounded, num_bootstrap=5).value == pytest.approx(exact, rel=0.1)


def test_a_poor_encoder_gives_a_wide_interval_and_not_a_wrong_number():
    low, high = estimate(*mixture(0.01, 50_000, mean=1.0)).interval
    assert low <= 0.01 <= high
    assert high > 5 * max(low, 0.001)


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


def test_pairs_of_digits_are_counted_from_pixels():
    images, labels = digits()
    for seed in range(3):
        found = estimate(*random_pairs(images, labels, 300, 30_000, seed), num_bootstrap=1)
        assert found.value == pytest.approx(share_of_pairs(labels), rel=0.2)


def test_pairs_of_digits_are_counted_from_an_embedding_learnt_on_half_of_them():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    images, labels = digits()
    is_train = torch.arange(len(labels)) % 2 == 0
    model = LinearDiscriminantAnalysis().fit(images[is_train].numpy(), labels[is_train].numpy())
    embeddings = torch.from_numpy(model.transform(images[~is_train].numpy()))
    truth = share_of_pairs(labels[~is_train])
    for seed in range(3):
        pairs = random_pairs(embeddings, labels[~is_train], 300, 30_000, seed)
        found = estimate(*pairs, num_bootstrap=50)
        assert found.value == pytest.approx(truth, rel=0.2)
        assert found.interval[0] <= truth <= found.interval[1]


def test_augmentation_pairs_see_the_image_and_not_the_class():
    images, labels = digits()
    large = interpolate(images.view(-1, 1, 8, 8), size=32, mode="bilinear")
    positive, random = random_pairs(large, labels, 300, 30_000, 0)
    shifted = large[:300].roll(1, dims=-1)
    augmented = (normalize(large[:300].flatten(1)) * normalize(shifted.flatten(1))).sum(dim=1)
    found = estimate(positive, random, num_bootstrap=1)
    assert found.value == pytest.approx(share_of_pairs(labels), rel=0.2)
    _, high = estimate(augmented, random, num_bootstrap=50).interval
    assert high < 0.01  # a tenth of the truth, and sure of it


GOOD = torch.linspace(0, 1, 50)


@pytest.mark.parametrize(
    ("positive", "random", "message"),
    [
        (torch.zeros(0), GOOD, r"positive similarities must be a 1-d .* \(0,\)"),
        (GOOD, torch.zeros(0), "random similarities must be a 1-d"),
        (GOOD.view(5, 10), GOOD, r"positive .* \(5, 10\)"),
        (GOOD, torch.tensor(0.5), "random similarities must be a 1-d"),
        (torch.full((50,), math.nan), GOOD, "positive similarities must be finite"),
        (GOOD, torch.cat([GOOD, torch.tensor([math.inf])]), "random similarities must be finite"),
        (GOOD[:5], GOOD, "at least 20 positive pairs .* found 5"),
        (torch.ones(50), GOOD, "different similarity; found 50 with 1 values"),
        (GOOD + 0.5, GOOD[:30], "10 random pairs as similar .* found 0. Draw more"),
    ],
)
def test_similarities_that_cannot_tell_are_refused_in_one_line(positive, random, message):
    with pytest.raises(InputError, match=message) as error:
        estimate(positive, random)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [{"confidence": 1.0}, {"confidence": 0}, {"num_bootstrap": 0}])
def test_an_interval_that_cannot_be_is_refused(settings):
    with pytest.raises(InputError, match="between 0 and 1 and a resample"):
        estimate(GOOD, GOOD, **settings)
