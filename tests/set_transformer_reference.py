"""Set transformers of one collection, item by item, from the equations of Lee et al. 2019."""

from __future__ import annotations

import math

import torch


def relu_layer(layer, x):
    return torch.stack(
        [max(row @ x + bias, torch.zeros_like(bias)) for row, bias in zip(*layer, strict=True)]
    )


def weights_of(layer):
    return layer.weight.detach(), layer.bias.detach()


def layer_norm(norm, x):
    mean = sum(x) / len(x)
    variance = sum((entry - mean) ** 2 for entry in x) / len(x)
    standard = [(entry - mean) / math.sqrt(variance + norm.eps) for entry in x]
    return torch.stack(standard) * norm.weight.detach() + norm.bias.detach()


def attention_weights(block, head, x, items):
    width = len(x) // block.num_heads
    rows = slice(head * width, (head + 1) * width)
    query = block.query.weight.detach()[rows] @ x
    scores = [query @ (block.key.weight.detach()[rows] @ y) / math.sqrt(width) for y in items]
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def mab(block, queries, items):
    """Equations 6 and 7."""
    width = queries.shape[1] // block.num_heads
    out = []
    for x in queries:
        heads = []
        for head in range(block.num_heads):
            value = block.value.weight.detach()[head * width : (head + 1) * width]
            weights = attention_weights(block, head, x, items)
            heads.append(sum(a * (value @ y) for a, y in zip(weights, items, strict=True)))
        attended = block.output.weight.detach() @ torch.cat(heads)
        hidden = layer_norm(block.attended_norm, x + attended)
        out.append(
            layer_norm(block.norm, hidden + relu_layer(weights_of(block.feedforward), hidden))
        )
    return torch.stack(out)


def row_wise(layer, items):
    return torch.stack([x + relu_layer(weights_of(layer), x) for x in items])


def pma(aggregator, items):
    """Equation 11."""
    rows = row_wise(aggregator.feedforward, items)
    return mab(aggregator.block, aggregator.seeds.detach(), rows).flatten()


def set_transformer(aggregator, items):
    """Equations 8 to 11."""
    for block in aggregator.blocks:
        if aggregator.num_inducing:
            points = mab(block.gather, block.points.detach(), items)
            items = mab(block.spread, items, points)
        else:
            items = mab(block.block, items, items)
    return pma(aggregator.pool, items)
