"""Aggregators by attention against loops written from their papers, and against a peer."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import settings

from setrep.aggregators import build_aggregator
from tests import set_transformer_reference
from tests.learned_aggregators import (  # noqa: F401
    DIM,
    assert_equal_to,
    build,
    draw,
    joined,
    pyg,
    sizes_and_seed,
)


def softmax(scores):
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def weighted_mean(weights, items):
    return sum(weight * x for weight, x in zip(weights, items, strict=True))


def attention_reference(aggregator, items):
    content, score = aggregator.content, aggregator.score.weight.detach()
    heads = []
    for w in score:
        scores = []
        for x in items:
            hidden = torch.tanh(content.weight.detach() @ x + content.bias.detach())
            if aggregator.gate is not None:
                gate = aggregator.gate.weight.detach() @ x + aggregator.gate.bias.detach()
                hidden = hidden / (1 + torch.exp(-gate))
            scores.append(w @ hidden)
        heads.append(weighted_mean(softmax(scores), items))
    return torch.cat(heads)


def nan_reference(aggregator, items):
    query, refine = aggregator.query.detach(), aggregator.refine
    first = weighted_mean(softmax([query @ x for x in items]), items)
    second = torch.tanh(refine.weight.detach() @ first + refine.bias.detach())
    return weighted_mean(softmax([second @ x for x in items]), items)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("num_heads", [1, 3])
@sizes_and_seed
@settings(max_examples=10, deadline=None)
def test_attention_is_the_weighted_mean_of_the_paper(gated, num_heads, sizes, seed):
    aggregator = build("attention", seed, hidden_dim=4, gated=gated, num_heads=num_heads)
    assert_equal_to(attention_reference, aggregator, draw(sizes, seed))


@sizes_and_seed
@settings(max_examples=20, deadline=None)
def test_nan_asks_its_second_question_by_its_first_answer(sizes, seed):
    assert_equal_to(nan_reference, build("nan", seed), draw(sizes, seed))


@pytest.mark.parametrize(("num_seeds", "num_heads"), [(1, 1), (1, 3), (3, 2)])
@sizes_and_seed
@settings(max_examples=10, deadline=None)
def test_pma_is_the_paper_s_attention_of_seeds(num_seeds, num_heads, sizes, seed):
    aggregator = build("pma", seed, num_seeds=num_seeds, num_heads=num_heads)
    assert_equal_to(set_transformer_reference.pma, aggregator, draw(sizes, seed))


def test_pma_tells_how_much_each_head_of_each_seed_attends_to_each_item():
    aggregator = build("pma", num_seeds=2, num_heads=3)
    (items,) = draw([5])
    rows = set_transformer_reference.row_wise(aggregator.feedforward, items)
    expected = [
        set_transformer_reference.attention_weights(aggregator.block, head, seed, rows)
        for seed in aggregator.seeds.detach()
        for head in range(3)
    ]
    _, found = aggregator(joined([items]), return_weights=True)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64).T)


@pytest.mark.parametrize(("name", "options"), [("attention", {"num_heads": 2}), ("nan", {})])
def test_the_weights_reproduce_each_head(name, options):
    aggregator = build(name, **options)
    collections = draw([1, 4, 7])
    out, weights = aggregator(joined(collections), return_weights=True)
    for row, items, shares in zip(out, collections, weights.split([1, 4, 7]), strict=True):
        torch.testing.assert_close(row, (shares.T @ items).flatten())


def test_large_scores_do_not_overflow():
    for name in ("attention", "nan", "pma"):
        aggregator = build_aggregator(name, DIM)
        with torch.no_grad():
            for parameter in aggregator.parameters():
                parameter.fill_(30.0)
        out = aggregator(joined([100 * items.float() for items in draw([3, 2])]))
        assert bool(out.isfinite().all()), name


@pytest.mark.parametrize("name", ["attention", "pma"])
def test_heads_and_seeds_that_a_loss_treats_alike_grow_apart(name):
    torch.manual_seed(0)
    options = {"attention": {"num_heads": 2}, "pma": {"num_seeds": 2}}[name]
    aggregator = build_aggregator(name, DIM, **options)
    optimizer = torch.optim.Adam(aggregator.parameters(), lr=0.01)
    batch = joined([items.float() for items in draw([5, 8, 3])])
    target = torch.stack([items[0].float() for items in draw([5, 8, 3])])
    for _ in range(50):
        optimizer.zero_grad()
        parts = aggregator(batch).reshape(3, 2, DIM)
        (parts.sum(dim=1) - target).square().mean().backward()
        optimizer.step()
    weights = aggregator(batch, return_weights=True)[1]
    assert float((weights[:, 0] - weights[:, 1]).abs().max().detach()) > 0.02


@pytest.mark.parametrize("gated", [True, False])
def test_attention_agrees_with_torch_geometric(pyg, gated):  # noqa: F811
    aggregator = build("attention", gated=gated)
    batch = joined(draw([1, 4, 9, 2]))

    def scores(x):
        gate = torch.sigmoid(aggregator.gate(x)) if gated else 1.0
        return aggregator.score(torch.tanh(aggregator.content(x)) * gate)

    class Gate(torch.nn.Module):
        def forward(self, x):
            return scores(x)

    expected = pyg.AttentionalAggregation(Gate())(batch.values, batch.index)
    torch.testing.assert_close(aggregator(batch), expected, rtol=1e-12, atol=1e-12)
