"""From a set encoder and a data set to `evaluation.json`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from setrep.aggregators import build_aggregator
from setrep.config import Config
from setrep.data.dataset import ItemDataset
from setrep.data.one_shot import OneShotTask, load_one_shot
from setrep.errors import InputError
from setrep.protocols.baselines import pixel_embeddings
from setrep.protocols.bounds import verify_bounds
from setrep.protocols.collections import evaluate_collections
from setrep.protocols.items import evaluate_items
from setrep.protocols.one_shot import evaluate_one_shot
from setrep.protocols.results import Baselines, Evaluation, Scores
from setrep.set_encoder import SetEncoder

Embed = Callable[[Shaped[Tensor, "n ..."]], Float[Tensor, "n dim"]]


def load_task(config: Config, dataset: ItemDataset) -> OneShotTask | None:
    """Read the one-shot task, if one is asked for.

    Raises:
        InputError: it is no such task, or the items are not images.
    """
    path = config.evaluation.one_shot
    if path is None:
        return None
    if dataset.item_format.kind != "image":
        raise InputError(
            f"The one-shot task has images, but the items of {dataset.name} are vectors. "
            f"Leave out --one-shot."
        )
    return load_one_shot(path)


def evaluate_set_encoder(
    set_encoder: SetEncoder,
    untrained: SetEncoder | None,
    dataset: ItemDataset,
    task: OneShotTask | None,
    config: Config,
) -> Evaluation:
    """Measure a set encoder on held-out classes, beside raw pixels and an untrained encoder."""
    began = time.monotonic()
    settings = config.evaluation

    def scores(embed: Embed, aggregator: nn.Module) -> tuple[Scores, Tensor]:
        return score(embed, aggregator, dataset, task, config)

    learned, embeddings = scores(set_encoder.encode, set_encoder.aggregator)
    baselines = None
    if settings.baselines:
        width = pixel_embeddings(dataset.gather([0])).shape[1]
        pixels, _ = scores(pixel_embeddings, build_aggregator("centroid", width))
        before = scores(untrained.encode, untrained.aggregator)[0] if untrained else None
        baselines = Baselines(pixels, before)
    sizes = [found.size for found in learned.collections if found.num_classes > 1]
    summary = bounds_summary(embeddings, dataset, set_encoder, sizes, config)
    return Evaluation(
        schema=1,
        protocol="held_out_classes",
        dataset=dataset.name,
        source_note=dataset.source_note,
        split=dataset.split,
        label_level=dataset.label_level,
        collection_level=dataset.collection_level,
        seed=config.training.seed,
        encoder=config.encoder.name,
        aggregator=config.aggregator,
        model_sha256=set_encoder.fingerprint,
        items=learned.items,
        collections=learned.collections,
        linear_probe=None,
        one_shot=learned.one_shot,
        bounds=summary,
        baselines=baselines,
        seconds=round(time.monotonic() - began, 3),
    )


def score(
    embed: Embed,
    aggregator: nn.Module,
    dataset: ItemDataset,
    task: OneShotTask | None,
    config: Config,
) -> tuple[Scores, Float[Tensor, "item dim"]]:
    """Measure one way to embed items, and return the embeddings too."""
    settings, seed = config.evaluation, config.training.seed
    embeddings = embed_dataset(embed, dataset)
    labels = torch.from_numpy(dataset.labels)
    items = evaluate_items(
        embeddings, labels, knn_k=settings.knn_k, knn_temperature=settings.knn_temperature
    )
    collections = evaluate_collections(
        embeddings,
        dataset,
        aggregator,
        settings.sizes,
        seed=seed,
        num_bootstrap=settings.num_bootstrap,
    )
    one_shot = evaluate_one_shot(task, embed, dataset.item_format) if task else None
    return Scores(items, tuple(collections), one_shot), embeddings


def embed_dataset(embed: Embed, dataset: ItemDataset) -> Float[Tensor, "item dim"]:
    """Embed all items, some at a time."""
    chunks = torch.split(torch.arange(len(dataset)), 1024)
    return torch.cat([embed(dataset.gather(chunk)).cpu() for chunk in chunks])


def bounds_summary(
    embeddings: Tensor,
    dataset: ItemDataset,
    set_encoder: SetEncoder,
    sizes: Sequence[int],
    config: Config,
) -> dict[str, Any] | None:
    """Check the bounds on a few collections; `setrep verify-bounds` does it at length."""
    if not sizes:
        return None
    report = verify_bounds(
        embeddings,
        dataset,
        set_encoder.aggregator,
        sizes=sizes,
        max_triples=200,
        seed=config.training.seed,
    )
    summary: dict[str, Any] = report["summary"]
    return summary


def as_json(result: Any) -> str:
    """Write a dataclass, or plain values, as JSON; numbers that are not finite are refused."""
    plain = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result  # type: ignore[arg-type]
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"
