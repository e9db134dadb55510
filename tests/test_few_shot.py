"""Few-shot tasks with the centroid, against a loop, and what cannot be asked."""

from __future__ import annotations

import pytest
import torch

from setrep.aggregators import CentroidAggregator
from setrep.data.collections import derive_generator
from setrep.errors import InputError
from setrep.protocols.few_shot import evaluate_few_shot

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(8).repeat_interleave(9)
EMBEDDINGS = (
    torch.randn(72, 5, generator=GENERATOR) + torch.randn(8, 5, generator=GENERATOR)[LABELS]
)


def tasks(num_tasks: int, seed: int = 3, **more):
    return evaluate_few_shot(
        EMBEDDINGS,
        LABELS,
        CentroidAggregator(5),
        ways=4,
        shots=2,
        num_queries=3,
        num_tasks=num_tasks,
        seed=seed,
        **more,
    )


def by_a_loop(seed: int, task: int) -> float:
    """Draw as the protocol says, then average and compare one by one."""
    generator = derive_generator(seed, task)
    right = 0
    drawn = {}
    for label in torch.randperm(8, generator=generator)[:4].tolist():
        order = torch.randperm(9, generator=generator)[:5]
        drawn[label] = [EMBEDDINGS[9 * label + int(place)] for place in order]
    prototypes = {label: (items[0] + items[1]) / 2 for label, items in drawn.items()}
    for label, items in drawn.items():
        for query in items[2:]:
            nearest = min(prototypes, key=lambda of: float((query - prototypes[of]).norm()))
            right += nearest == label
    return right / 12


def test_accuracy_is_that_of_a_loop_with_means_of_the_support():
    expected = [by_a_loop(3, task) for task in range(40)]
    found = tasks(40)
    assert found.accuracy == pytest.approx(sum(expected) / 40)
    assert 0.3 < found.accuracy < 0.95
    spread = 1.96 * float(torch.tensor(expected, dtype=torch.float64).std()) / 40**0.5
    assert found.ci95 == pytest.approx((found.accuracy - spread, found.accuracy + spread))


def test_tasks_depend_on_the_seed_and_on_nothing_else():
    assert tasks(10) == tasks(10)
    assert tasks(10, seed=4) != tasks(10)


def test_chance_is_one_in_as_many_ways():
    found = evaluate_few_shot(
        torch.randn(72, 5, generator=torch.Generator().manual_seed(1)),
        LABELS,
        CentroidAggregator(5),
        ways=4,
        shots=2,
        num_queries=5,
        num_tasks=300,
        seed=0,
    )
    assert found.accuracy == pytest.approx(0.25, abs=0.02)


def test_what_no_class_can_give_is_refused():
    with pytest.raises(InputError, match="8 of 8 have as many"):
        evaluate_few_shot(
            EMBEDDINGS, LABELS, CentroidAggregator(5), ways=9, shots=2, num_queries=3, seed=0
        )
    with pytest.raises(InputError, match="0 of 8"):
        evaluate_few_shot(EMBEDDINGS, LABELS, CentroidAggregator(5), ways=2, shots=2, seed=0)
    with pytest.raises(InputError, match="ways is too small: found 1"):
        evaluate_few_shot(
            EMBEDDINGS, LABELS, CentroidAggregator(5), ways=1, shots=2, num_queries=3, seed=0
        )
    for embeddings, count in ((EMBEDDINGS[:-1], 1), (EMBEDDINGS * torch.nan, 1), (EMBEDDINGS, 0)):
        with pytest.raises(InputError, match=r"one finite embedding|num_tasks is too small"):
            evaluate_few_shot(
                embeddings,
                LABELS,
                CentroidAggregator(5),
                ways=2,
                shots=1,
                num_queries=2,
                num_tasks=count,
                seed=0,
            )
