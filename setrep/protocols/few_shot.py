"""Few-shot tasks made from a data set: of any classes, or each within one group."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.collections import derive_generator, pools_by_label
from setrep.errors import InputError
from setrep.functional import pairwise_distance
from setrep.protocols.results import FewShotResult, OneShotResult


@torch.no_grad()
def evaluate_few_shot(
    embeddings: Float[Tensor, "item dim"],
    labels: Int64[Tensor, " item"],
    aggregator: Callable[[CollectionBatch], Tensor],
    *,
    ways: int,
    shots: int,
    num_queries: int = 15,
    num_tasks: int = 600,
    seed: int,
) -> FewShotResult:
    """Measure the accuracy of naming items by the nearest of `ways` collections of `shots` items.

    A task draws `ways` classes, and of each a support collection and `num_queries` other items,
    which are compared as collections of one, in Euclidean distance. With the centroid it is a
    prototypical network (Snell et al. 2017). The interval is that of the normal approximation
    over tasks, as papers report it.

    Raises:
        InputError: a count is below 1, too few classes have enough items, or embeddings and labels
            do not go together.
    """
    for name, count in (("ways", ways - 1), ("shots", shots), ("num_queries", num_queries)):
        if count < 1:
            raise InputError(f"{name} is too small: found {count + (name == 'ways')}.")
    if num_tasks < 1:
        raise InputError(f"num_tasks is too small: found {num_tasks}.")
    if len(labels) != len(embeddings) or not bool(embeddings.isfinite().all()):
        raise InputError(
            f"Few-shot tasks take one finite embedding for each label; found {len(embeddings)} "
            f"embeddings and {len(labels)} labels, or a NaN or infinity."
        )
    pools = pools_by_label(labels.cpu(), None, shots + num_queries)
    large = [pool for pool in pools.values() if pool.capacity]
    if len(large) < ways:
        raise InputError(
            f"A task takes {ways} classes of {shots + num_queries} items, but {len(large)} of "
            f"{len(pools)} have as many. Ask for fewer ways, shots or queries."
        )
    correct = []
    for task in range(num_tasks):
        generator = derive_generator(seed, task)
        chosen = torch.randperm(len(large), generator=generator)[:ways].tolist()
        drawn = torch.stack([large[label].draw(1, generator)[0] for label in chosen])
        support = CollectionBatch(
            embeddings[drawn[:, :shots].flatten()], torch.arange(ways + 1) * shots
        )
        queries = embeddings[drawn[:, shots:].flatten()]
        alone = CollectionBatch(queries, torch.arange(len(queries) + 1))
        distance = pairwise_distance(aggregator(alone), aggregator(support))
        own = torch.arange(ways).repeat_interleave(num_queries)
        correct.append(float((distance.argmin(dim=1) == own).double().mean()))
    accuracy = float(np.mean(correct))
    half = 1.96 * float(np.std(correct, ddof=1)) / num_tasks**0.5 if num_tasks > 1 else math.nan
    return FewShotResult(ways, shots, num_tasks, accuracy, (accuracy - half, accuracy + half))


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
