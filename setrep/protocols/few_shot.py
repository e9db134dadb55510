"""One-shot tasks made from a data set, each within one group, to choose settings by."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.functional import pairwise_distance
from setrep.protocols.results import OneShotResult


def evaluate_within_groups(
    embeddings: Float[Tensor, "item dim"],
    labels: Int64[Tensor, " item"],
    groups: Int64[Tensor, " item"],
    *,
    ways: int = 20,
    num_tasks: int = 400,
    seed: int,
) -> OneShotResult:
    """Imitate the Omniglot one-shot task on any items whose labels fall into groups (alphabets).

    Groups take turns. A task draws `ways` labels of its group (all, if it has fewer) and of each
    label one training item and another test item; the answer is the nearest training item in
    Euclidean distance. Labels of one item and groups of one label are left out.

    Raises:
        InputError: no group has two labels of two items each.
    """
    embeddings, labels, groups = embeddings.float(), labels.cpu(), groups.cpu()
    pools = _pools(labels, groups)
    if not pools:
        raise InputError(
            f"One-shot tasks need a group with two labels of two items each; found none among "
            f"{len(labels)} items of {len(torch.unique(groups))} groups. Choose another split."
        )
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for task in range(num_tasks):
        pool = pools[task % len(pools)]
        drawn = torch.randperm(len(pool), generator=generator)[:ways].tolist()
        pairs = torch.stack(
            [pool[i][torch.randperm(len(pool[i]), generator=generator)[:2]] for i in drawn]
        )
        test, training = embeddings[pairs[:, 0]], embeddings[pairs[:, 1]]
        distance = pairwise_distance(test, training).cpu().numpy()
        errors.append(float(np.mean(distance.argmin(axis=1) != np.arange(len(pairs)))))
    return OneShotResult(num_tasks, sum(errors) / num_tasks, tuple(errors))


def _pools(labels: Tensor, groups: Tensor) -> list[list[Tensor]]:
    """Return, for each usable group, the items of each of its usable labels."""
    pools = []
    for group in torch.unique(groups):
        members = (groups == group).nonzero().squeeze(1)
        items = [members[labels[members] == label] for label in torch.unique(labels[members])]
        pool = [chosen for chosen in items if len(chosen) > 1]
        if len(pool) > 1:
            pools.append(pool)
    return pools
