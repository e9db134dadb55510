"""How much each item counts: held-out collections with strangers among them, and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.collections import derive_generator, join, pools_by_label
from setrep.data.contamination import contaminate
from setrep.data.dataset import ItemDataset
from setrep.files import write_atomically
from setrep.functional import segment_sum
from setrep.metrics import bootstrap_over_classes
from setrep.protocols.baselines import embed_dataset
from setrep.reports.pages import picture, render
from setrep.set_encoder import SetEncoder

CONTAMINATION = 0.3  # probability that an item is replaced by one of another label
MOST_COLLECTIONS = 200  # measured, one of each label
NUM_SHOWN = 6
NUM_BOOTSTRAP = 2000


def write_weights(
    directory: Path, set_encoder: SetEncoder, dataset: ItemDataset, size: int, seed: int
) -> dict[str, Any]:
    """Write `weights.json` and `weights.html` into a run's directory, and return the first.

    One collection of `size` items is drawn of each label (of at most 200), and each item replaced
    with probability 0.3 by an item of another label. Of an aggregator with several heads the mean
    weight counts. `weight_of_strangers` is their part of the weight of a collection, mean over
    collections with a 95 % interval over labels; `share_of_strangers` what it would be if all items
    counted alike.

    Raises:
        InputError: the aggregator has no weights, or only one label has `size` items.
    """
    pools = pools_by_label(dataset.labels, dataset.keys, size)
    generator = derive_generator(seed, size)
    drawn = [pool.draw(1, generator)[0] for pool in pools.values() if pool.capacity]
    chosen = torch.randperm(len(drawn), generator=generator)[:MOST_COLLECTIONS].tolist()
    items, offsets, labels = join(dataset, [drawn[place] for place in chosen])
    batch = CollectionBatch(items, offsets)
    batch = contaminate(batch, labels[batch.index], CONTAMINATION, generator)
    is_stranger = torch.from_numpy(dataset.labels)[batch.values] != labels[batch.index]
    weights = weigh(set_encoder, dataset, batch)
    strangers = torch.stack([is_stranger / size, weights.mean(dim=1) * is_stranger], dim=1)
    shares = segment_sum(strangers.double(), batch)
    interval = bootstrap_over_classes(shares[:, 1], labels, NUM_BOOTSTRAP, seed)
    report = {
        "schema": 1,
        "run": directory.name,
        "source_note": dataset.source_note,
        "split": dataset.split,
        "aggregator": set_encoder.aggregator_config.name,
        "formula": set_encoder.aggregator.formula,
        "contamination": CONTAMINATION,
        "size": size,
        "num_collections": len(labels),
        "share_of_strangers": float(shares[:, 0].mean()),
        "weight_of_strangers": float(shares[:, 1].mean()),
        "weight_of_strangers_interval": interval,
        "collections": [
            describe(dataset, int(labels[n]), batch.values[here], is_stranger[here], weights[here])
            for n in range(min(NUM_SHOWN, len(labels)))
            for here in (slice(int(offsets[n]), int(offsets[n + 1])),)
        ],
    }
    write_atomically(directory / "weights.json", (json.dumps(report, indent=1) + "\n").encode())
    page = render("weights.html.jinja", report=report, picture=lambda item: picture(dataset, item))
    write_atomically(directory / "weights.html", page.encode())
    return report


def weigh(
    set_encoder: SetEncoder, dataset: ItemDataset, batch: CollectionBatch
) -> Float[Tensor, "item head"]:
    """Embed the items that a batch of positions names, and return their weights."""
    positions, place = torch.unique(batch.values, return_inverse=True)
    embeddings = embed_dataset(dataset.subset(positions.numpy()), set_encoder.encode)
    with torch.inference_mode():
        weights: Tensor
        _, weights = set_encoder.aggregator(
            batch.with_values(embeddings[place]), return_weights=True
        )
    return weights


def describe(
    dataset: ItemDataset,
    label: int,
    positions: Int64[Tensor, " item"],
    is_stranger: Tensor,
    weights: Float[Tensor, "item head"],
) -> dict[str, Any]:
    """Name a collection and its items, the heaviest first."""
    mean = weights.mean(dim=1)
    return {
        "label": dataset.label_names[label],
        "weight_of_strangers": float(mean[is_stranger].sum()),
        "items": [
            {
                "item": int(positions[n]),
                "label": dataset.label_names[dataset.labels[positions[n]]],
                "is_stranger": bool(is_stranger[n]),
                "weight": float(mean[n]),
                "of_heads": weights[n].tolist(),
            }
            for n in mean.argsort(descending=True, stable=True).tolist()
        ],
    }
