"""Losses written as loops from the formulas, and the batches they are compared on."""

import json
import math
from pathlib import Path

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

VECTORS = json.loads((Path(__file__).parent / "vectors" / "loss_vectors.json").read_text())
PRECISIONS = {torch.float64: 1e-10, torch.float32: 2e-5}
SEEDS = st.integers(0, 2**16)
a_few_batches = settings(max_examples=15, deadline=None, derandomize=True)


def vector(name):
    return VECTORS["vectors"][name]


def batch(seed, num_labels=4, items=4, dim=5, dtype=torch.float64):
    """Random unit embeddings with shuffled labels, and two collections in each label."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_labels * items, dim, generator=generator, dtype=dtype)
    order = torch.randperm(num_labels * items, generator=generator)
    labels = torch.arange(num_labels).repeat_interleave(items)[order]
    collections = (
        2 * torch.arange(num_labels).repeat_interleave(items)
        + torch.arange(2).repeat(num_labels * items // 2)
    )[order]
    return normalize(embeddings, dim=1), labels, collections


def is_positive(i, j, labels, collections=None, positives="any"):
    if i == j or labels[i] != labels[j]:
        return False
    if positives == "same_collection":
        return bool(collections[i] == collections[j])
    if positives == "cross_collection":
        return bool(collections[i] != collections[j])
    return True


def loop_triplets(labels, collections=None, positives="any"):
    everyone = range(len(labels))
    return [
        (a, p, n)
        for a in everyone
        for p in everyone
        for n in everyone
        if is_positive(a, p, labels, collections, positives) and labels[a] != labels[n]
    ]


def loop_triplet_losses(embeddings, triplets, margin, squared=False, soft=False):
    losses = []
    for a, p, n in triplets:
        to_positive = math.dist(embeddings[a].tolist(), embeddings[p].tolist())
        to_negative = math.dist(embeddings[a].tolist(), embeddings[n].tolist())
        if squared:
            to_positive, to_negative = to_positive**2, to_negative**2
        violation = to_positive - to_negative
        losses.append(math.log1p(math.exp(violation)) if soft else max(violation + margin, 0.0))
    return losses


def loop_supcon(embeddings, labels, temperature, form, collections=None, positives="any"):
    """Return the loss of every anchor that has a positive, from the paper's formulas."""
    everyone = range(len(labels))
    losses = []
    for i in everyone:
        h = [math.exp(float(embeddings[i] @ embeddings[a]) / temperature) for a in everyone]
        ps = [p for p in everyone if is_positive(i, p, labels, collections, positives)]
        denominator = sum(h[a] for a in everyone if a in ps or labels[a] != labels[i])
        if ps and form == "out":
            losses.append(-sum(math.log(h[p] / denominator) for p in ps) / len(ps))
        elif ps:
            losses.append(-math.log(sum(h[p] / denominator for p in ps) / len(ps)))
    return losses
