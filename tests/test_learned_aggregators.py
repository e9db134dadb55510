"""Where learned aggregators start, what they learn, and which options they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm, normalize

from setrep.aggregators import build_aggregator
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from tests.learned_aggregators import DIM, draw, joined

LEARNED = [
    ("attention", {}),
    ("attention", {"num_heads": 2, "gated": False}),
    ("pma", {}),
    ("nan", {}),
    ("set_transformer", {}),
    ("set_transformer", {"num_inducing": 4, "num_heads": 2}),
    ("deep_sets", {}),
    ("netvlad", {}),
    ("sliced_wasserstein", {}),
    ("covariance", {}),
]
MARKED = 8  # dimensions, of which the first marks the items that matter


def marked_collections(seed):
    """Draw collections whose target is the mean of the marked half of their items."""
    generator = torch.Generator().manual_seed(seed)
    collections, targets = [], []
    for size in torch.randint(2, 9, (192,), generator=generator).tolist():
        items = torch.randn(size, MARKED, generator=generator)
        is_marked = torch.arange(size) < size // 2
        items[:, 0] = torch.where(is_marked, 1.0, -1.0)
        collections.append(items)
        targets.append(items[is_marked, 1:].mean(dim=0))
    return CollectionBatch.from_list(collections), torch.stack(targets)


def best_loss_of_centroids(batch, targets):
    """Return the least loss that any affine map of the centroids has on these very targets."""
    centroids = build_aggregator("centroid", MARKED)(batch)
    inputs = torch.cat([centroids, torch.ones(len(centroids), 1)], dim=1)
    best = inputs @ torch.linalg.lstsq(inputs, targets).solution
    return float((best - targets).square().mean())


@pytest.mark.parametrize(("name", "options"), LEARNED)
def test_it_learns_which_items_matter_where_the_centroid_cannot(name, options):
    torch.manual_seed(0)
    aggregator = build_aggregator(name, MARKED, **options)
    head = torch.nn.Linear(aggregator.dim_out, MARKED - 1)
    optimizer = torch.optim.Adam([*aggregator.parameters(), *head.parameters()], lr=0.02)
    batch, targets = marked_collections(seed=0)
    for _ in range(100):
        optimizer.zero_grad()
        (head(aggregator(batch)) - targets).square().mean().backward()
        optimizer.step()
    unseen, expected = marked_collections(seed=1)
    with torch.no_grad():
        found = float((head(aggregator(unseen)) - expected).square().mean())
    assert found < 0.75 * best_loss_of_centroids(unseen, expected)


@pytest.mark.parametrize("name", ["attention", "nan", "deep_sets"])
def test_it_starts_as_the_centroid(name):
    batch = joined([items.float() for items in draw([1, 4, 9])])
    found = build_aggregator(name, DIM)(batch)
    torch.testing.assert_close(found, build_aggregator("centroid", DIM)(batch))


def test_several_heads_and_seeds_start_near_the_centroid():
    torch.manual_seed(0)
    batch = joined([normalize(items.float(), dim=1) for items in draw([1, 4, 9], dim=64)])
    centroids = build_aggregator("centroid", 64)(batch)
    expected = {
        "attention": centroids.repeat(1, 2),
        "pma": layer_norm(centroids, (64,)).repeat(1, 2),
        "netvlad": normalize(centroids.repeat(1, 2), dim=1),
    }
    counts = {"attention": "num_heads", "pma": "num_seeds", "netvlad": "num_clusters"}
    for name, option in counts.items():
        found = build_aggregator(name, 64, **{option: 2})(batch)
        error = (found - expected[name]).norm(dim=1) / expected[name].norm(dim=1)
        assert float(error.max().detach()) < 0.2, name


@pytest.mark.parametrize("num_inducing", [0, 4])
def test_the_set_transformer_starts_near_the_mean_of_normalised_items(num_inducing):
    torch.manual_seed(0)
    batch = joined([normalize(items.float(), dim=1) for items in draw([1, 4, 9], dim=64)])
    means = build_aggregator("centroid", 64)(batch.with_values(layer_norm(batch.values, (64,))))
    expected = layer_norm(means, (64,))
    found = build_aggregator("set_transformer", 64, num_inducing=num_inducing)(batch)
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max().detach()) < 0.3


def test_sliced_quantiles_and_covariance_hold_the_centroid_from_the_start():
    batch = joined([items.float() for items in draw([1, 4, 9])])
    centroids = build_aggregator("centroid", DIM)(batch)
    torch.testing.assert_close(build_aggregator("covariance", DIM)(batch)[:, :DIM], centroids)
    sliced = build_aggregator("sliced_wasserstein", DIM, num_slices=DIM, num_quantiles=5)
    cells = sliced(batch).reshape(3, 5, DIM) * (5 * DIM) ** 0.5
    torch.testing.assert_close(cells.mean(dim=1), centroids @ sliced.slices.T.detach())


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("attention", "hidden_dim"),
        ("attention", "num_heads"),
        ("pma", "num_seeds"),
        ("pma", "num_heads"),
        ("set_transformer", "num_blocks"),
        ("set_transformer", "num_heads"),
        ("set_transformer", "num_seeds"),
        ("deep_sets", "hidden_dim"),
        ("deep_sets", "dim_out"),
        ("netvlad", "num_clusters"),
        ("sliced_wasserstein", "num_slices"),
        ("sliced_wasserstein", "num_quantiles"),
        ("covariance", "rank"),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "2"])
def test_a_count_below_one_or_not_whole_is_refused(name, option, value):
    with pytest.raises(InputError, match=f"{option} must be a whole number of at least 1, not"):
        build_aggregator(name, DIM, **{option: value})


@pytest.mark.parametrize(
    ("name", "option"), [("netvlad", "num_ghosts"), ("set_transformer", "num_inducing")]
)
def test_a_count_that_may_be_zero_is_refused_below(name, option):
    build_aggregator(name, DIM, **{option: 0})
    with pytest.raises(InputError, match=f"{option} must be a whole number of at least 0, not -1"):
        build_aggregator(name, DIM, **{option: -1})
