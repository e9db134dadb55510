"""NetVLAD, sliced quantiles and covariance against loops written from their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from setrep.aggregators import build_aggregator
from setrep.aggregators.covariance import SMALLEST_VARIANCE, smooth_square_root
from tests.learned_aggregators import DIM, assert_equal_to, build, draw, joined, sizes_and_seed


def assignments(aggregator, x):
    scores = aggregator.assignment.weight.detach() @ x + aggregator.assignment.bias.detach()
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def netvlad_reference(aggregator, items):
    blocks = []
    for k, center in enumerate(aggregator.centers.detach()):
        residual = sum(assignments(aggregator, x)[k] * (x - center) for x in items)
        blocks.append(residual / math.sqrt(residual @ residual))
    joined_blocks = torch.cat(blocks)
    return joined_blocks / math.sqrt(joined_blocks @ joined_blocks)


@pytest.mark.parametrize(("num_clusters", "num_ghosts"), [(1, 0), (3, 0), (2, 2)])
@sizes_and_seed
@settings(max_examples=10, deadline=None)
def test_netvlad_joins_normalised_residuals_without_the_ghosts(
    num_clusters, num_ghosts, sizes, seed
):
    aggregator = build("netvlad", seed, num_clusters=num_clusters, num_ghosts=num_ghosts)
    assert_equal_to(netvlad_reference, aggregator, draw(sizes, seed), rtol=1e-9, atol=1e-10)


def test_a_weight_of_netvlad_is_the_share_that_ghosts_leave():
    aggregator = build("netvlad", num_clusters=3, num_ghosts=2)
    collections = draw([1, 4])
    _, weights = aggregator(joined(collections), return_weights=True)
    kept = [[sum(assignments(aggregator, x)[:3]) for x in items] for items in collections]
    expected = [share / sum(shares) for shares in kept for share in shares]
    torch.testing.assert_close(weights[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_items_that_ghosts_take_whole_have_weights_that_sum_to_one():
    aggregator = build_aggregator("netvlad", DIM)
    with torch.no_grad():
        aggregator.assignment.bias[-1] = 1000.0
    _, weights = aggregator(joined([items.float() for items in draw([3])]), return_weights=True)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def directions(aggregator):
    return [slice_ / math.sqrt(slice_ @ slice_) for slice_ in aggregator.slices.detach()]


def sliced_reference(aggregator, items):
    num_cells, num_slices = aggregator.reference.shape
    out = torch.empty(num_cells, num_slices, dtype=torch.float64)
    for place, direction in enumerate(directions(aggregator)):
        ordered = sorted(float(x @ direction) for x in items)
        # Each item is written once for each cell; then cells have whole numbers of entries.
        repeated = [value for value in ordered for _ in range(num_cells)]
        for cell in range(num_cells):
            held = repeated[cell * len(items) : (cell + 1) * len(items)]
            out[cell, place] = sum(held) / len(items) - aggregator.reference[cell, place].detach()
    return out.flatten() / math.sqrt(num_cells * num_slices)


@pytest.mark.parametrize(("num_slices", "num_quantiles"), [(1, 1), (3, 4), (8, 3)])
@sizes_and_seed
@settings(max_examples=10, deadline=None)
def test_sliced_quantiles_are_means_of_the_inverse_distribution(
    num_slices, num_quantiles, sizes, seed
):
    options = {"num_slices": num_slices, "num_quantiles": num_quantiles}
    aggregator = build("sliced_wasserstein", seed, **options)
    assert_equal_to(sliced_reference, aggregator, draw(sizes, seed))


def sliced_distance(aggregator, x, y):
    squares = [squared_wasserstein(x @ line, y @ line) for line in directions(aggregator)]
    return math.sqrt(sum(squares) / len(squares))


def squared_wasserstein(x, y):
    """Squared 2-Wasserstein distance of points on a line, each written until sizes agree."""
    x = sorted(float(value) for value in x for _ in range(len(y)))
    y = sorted(float(value) for value in y for _ in range(len(x) // len(y)))
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x)


@given(sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_distances_of_sliced_embeddings_are_below_the_sliced_wasserstein_distance(sizes, seed):
    x, y = draw(sizes, seed)
    for num_quantiles in (1, 3, sizes[0] * sizes[1]):
        aggregator = build("sliced_wasserstein", seed, num_slices=4, num_quantiles=num_quantiles)
        out = aggregator(joined([x, y]))
        found = float((out[0] - out[1]).norm().detach())
        expected = sliced_distance(aggregator, x, y)
        assert found <= expected + 1e-12
    assert found == pytest.approx(expected, rel=1e-10)  # the last is a multiple of both sizes


def moments(aggregator, items):
    projection = aggregator.projection.weight.detach()
    mean = sum(items) / len(items)
    spread = [projection @ (x - mean) for x in items]
    return mean, sum(torch.outer(y, y) for y in spread) / len(items)


def covariance_reference(aggregator, items):
    mean, covariance = moments(aggregator, items)
    identity = np.eye(aggregator.rank)
    root = np.real(sqrtm(covariance.numpy() + SMALLEST_VARIANCE * identity))
    root = root - math.sqrt(SMALLEST_VARIANCE) * identity
    triangle = [
        root[i, j] * (1.0 if i == j else math.sqrt(2))
        for i in range(aggregator.rank)
        for j in range(i, aggregator.rank)
    ]
    return torch.cat([mean, torch.tensor(triangle, dtype=torch.float64)])


@pytest.mark.parametrize("rank", [1, 3])
@sizes_and_seed
@settings(max_examples=15, deadline=None)
def test_covariance_joins_the_mean_to_the_root_of_the_covariance(rank, sizes, seed):
    aggregator = build("covariance", seed, rank=rank)
    # Eigenvalues of zero are known to 1e-16, and their roots to that over twice 1e-4.
    assert_equal_to(covariance_reference, aggregator, draw(sizes, seed), rtol=1e-8, atol=1e-10)


@given(sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_distances_of_covariance_embeddings_bound_those_of_gaussians(sizes, seed):
    x, y = draw(sizes, seed)
    aggregator = build("covariance", seed, rank=3)
    out = aggregator(joined([x, y])).detach()
    (mean_x, cov_x), (mean_y, cov_y) = moments(aggregator, x), moments(aggregator, y)
    cov_x, cov_y = (cov + SMALLEST_VARIANCE * torch.eye(3) for cov in (cov_x, cov_y))
    root = np.real(sqrtm(cov_x.numpy()))
    cross = np.trace(np.real(sqrtm(root @ cov_y.numpy() @ root)))
    gaussian = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross
    assert float((out[0] - out[1]).square().sum()) >= float(gaussian) - 1e-7


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [2.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
def test_the_square_root_has_its_gradient_where_eigenvalues_are_equal(values):
    turn = torch.linalg.qr(draw([3], dim=3)[0]).Q
    matrix = turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T
    factor = torch.linalg.cholesky(matrix + 1e-3 * torch.eye(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: smooth_square_root((x @ x.T)[None]), (factor,))


def test_items_that_do_not_vary_have_the_root_zero_and_no_gradient_from_it():
    aggregator = build("covariance", rank=2)
    batch = joined([draw([1])[0], draw([1])[0].repeat(4, 1)])
    values = batch.values.requires_grad_()
    root = aggregator(batch.with_values(values))[:, DIM:]
    root.sum().backward()
    torch.testing.assert_close(root, torch.zeros_like(root), rtol=0, atol=1e-10)
    torch.testing.assert_close(values.grad, torch.zeros_like(values), rtol=0, atol=1e-8)


def test_float32_roots_of_singular_covariances_are_right():
    aggregator = build("covariance", rank=5)
    collections = draw([2, 3])
    exact = aggregator(joined(collections))
    found = aggregator.float()(joined([items.float() for items in collections]))
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
