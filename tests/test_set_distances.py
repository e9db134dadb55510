import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.errors import InputError
from setrep.set_distances import modified_hausdorff


def points(count, seed, dim=2):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()


def slow_modified_hausdorff(x, y):
    def directed(a, b):
        return np.mean([min(np.linalg.norm(p - q) for q in b) for p in a])

    return max(directed(x.numpy(), y.numpy()), directed(y.numpy(), x.numpy()))


sizes = st.integers(1, 20)
seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds)
def test_the_modified_hausdorff_distance_equals_its_loop_and_is_symmetric(n, m, seed):
    x, y = points(n, seed), points(m, seed + 1)
    distance = modified_hausdorff(x, y)
    assert float(distance) == pytest.approx(slow_modified_hausdorff(x, y))
    assert distance == modified_hausdorff(y, x)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_a_set_in_another_order_or_with_repeats_is_at_distance_0(n, seed):
    x = points(n, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert modified_hausdorff(x, torch.cat([x[order], x])) == 0


def test_it_lies_below_the_hausdorff_distance_of_scipy():
    from scipy.spatial.distance import directed_hausdorff

    x, y = points(30, 1), points(17, 2) + 1
    hausdorff = max(directed_hausdorff(x, y)[0], directed_hausdorff(y, x)[0])
    assert float(modified_hausdorff(x, y)) < hausdorff


def test_a_hand_made_pair_has_the_larger_of_the_two_means():
    x = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    y = torch.tensor([[0.0, 0.0]])
    assert modified_hausdorff(x, y) == 2


def test_an_empty_set_is_refused():
    with pytest.raises(InputError, match="two non-empty sets; found 3 and 0 points"):
        modified_hausdorff(points(3, 0), points(0, 0))
