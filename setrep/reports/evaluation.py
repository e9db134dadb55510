"""From a set encoder and a data set to `evaluation.json`."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from setrep.aggregators import build_aggregator
from setrep.config import Config
from setrep.data.dataset import ItemDataset
from setrep.data.one_shot import OneShotTask, load_one_shot
from setrep.data.registry import dataset_info
from setrep.errors import InputError
from setrep.priors import from_labels
from setrep.protocols.baselines import (
    Embed,
    embed_dataset,
    evaluate_embedding,
    labels_as_in,
    pixel_embeddings,
)
from setrep.protocols.bound_statements import STATEMENTS
from setrep.protocols.bounds import verify_bounds
from setrep.protocols.results import Baselines, Evaluation, Scores
from setrep.set_encoder import SetEncoder
from setrep.training.build import load_split

FEWEST_LABELLED = 4  # items of which two pairs without a common item can be made


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


@contextmanager
def said_once(name: str) -> Iterator[None]:
    """Log each message of a module once."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_first = text not in seen
        seen.add(text)
        return is_first

    logger = logging.getLogger(name)
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


@dataclass(frozen=True)
class EvaluationData:
    """What a model is measured on: a split, perhaps a bank of training items, perhaps a task."""

    dataset: ItemDataset
    bank: ItemDataset | None = None  # its classes are those of the split (`train_bank`)
    task: OneShotTask | None = None

    @classmethod
    def read(cls, config: Config) -> Self:
        """Read what a config asks for."""
        dataset = load_split(config.data, config.evaluation.split)
        bank = load_split(config.data, "train") if uses_train_bank(config) else None
        if config.evaluation.linear_probe and bank is None:
            raise InputError(
                "evaluation.linear_probe needs training items of the classes that are tested: it "
                "goes with evaluation.protocol=train_bank."
            )
        return cls(dataset, bank, load_task(config, dataset))


def uses_train_bank(config: Config) -> bool:
    """Say whether test items are compared with the training items, whose classes they share.

    `auto`: where the data set has one set of classes for all its splits, unless the split
    measured is that of classes held out by name or number.
    """
    protocol = config.evaluation.protocol
    if protocol != "auto":
        return protocol == "train_bank"
    data = config.data
    holds_out = bool(data.validation_groups or data.num_validation_groups)
    is_of_held_out = holds_out and config.evaluation.split == "validation"
    return dataset_info(data.dataset).shares_classes and not is_of_held_out


def probe(set_encoder: SetEncoder, data: EvaluationData, config: Config) -> dict[str, Any] | None:
    """Fit a linear classifier to the bank's embeddings, where that is asked for."""
    if not config.evaluation.linear_probe or data.bank is None:
        return None
    from setrep.protocols.linear_probe import linear_probe  # and with it scikit-learn: seconds

    found = linear_probe(
        embed_dataset(data.bank, set_encoder.encode),
        labels_as_in(data.dataset, data.bank),
        embed_dataset(data.dataset, set_encoder.encode),
        torch.from_numpy(data.dataset.labels),
        seed=config.training.seed,
    )
    return dataclasses.asdict(found)


def class_balance(bank: ItemDataset | None) -> dict[str, Any] | None:
    """Count the classes that were trained on; debiased losses take them to be equal."""
    if bank is None or len(bank) < FEWEST_LABELLED:
        return None
    found = from_labels(torch.from_numpy(bank.labels))
    assert found.class_balance is not None
    counts = dataclasses.asdict(found.class_balance)
    if found.value == 0:  # no two items of one class: infinitely many are as likely
        counts["effective_num_classes"] = None
    return {"tau_plus": found.value} | counts


def evaluate_set_encoder(
    set_encoder: SetEncoder, untrained: SetEncoder | None, data: EvaluationData, config: Config
) -> Evaluation:
    """Measure a set encoder, beside raw pixels and an untrained encoder."""
    dataset = data.dataset
    began = time.monotonic()
    settings = config.evaluation

    def scores(embed: Embed, aggregator: nn.Module) -> Scores:
        return evaluate_embedding(
            embed,
            dataset,
            aggregator,
            settings.sizes,
            seed=config.training.seed,
            knn_k=settings.knn_k,
            knn_temperature=settings.knn_temperature,
            num_bootstrap=settings.num_bootstrap,
            one_shot=data.task,
            bank=data.bank,
        )

    baselines = None
    with said_once("setrep.protocols.collections"):  # all embeddings meet the same collections
        learned = scores(set_encoder.encode, set_encoder.aggregator)
        if settings.baselines:
            width = pixel_embeddings(dataset.gather([0])).shape[1]
            pixels = scores(pixel_embeddings, build_aggregator("centroid", width))
            before = scores(untrained.encode, untrained.aggregator) if untrained else None
            baselines = Baselines(pixels, before)
    sizes = [found.size for found in learned.collections if found.num_classes > 1]
    summary = bounds_summary(dataset, set_encoder, sizes, config)
    return Evaluation(
        schema=1,
        protocol="train_bank" if data.bank else "held_out_classes",
        dataset=dataset.name,
        source_note=dataset.source_note,
        split=dataset.split,
        label_level=dataset.label_level,
        collection_level=dataset.collection_level,
        seed=config.training.seed,
        encoder=config.encoder.name,
        aggregator=config.aggregator.name,
        model_sha256=set_encoder.fingerprint,
        items=learned.items,
        collections=learned.collections,
        class_balance=class_balance(data.bank),
        linear_probe=probe(set_encoder, data, config),
        one_shot=learned.one_shot,
        bounds=summary,
        baselines=baselines,
        seconds=round(time.monotonic() - began, 3),
    )


def bounds_summary(
    dataset: ItemDataset,
    set_encoder: SetEncoder,
    sizes: Sequence[int],
    config: Config,
) -> dict[str, Any] | None:
    """Check the bounds on a few collections; `setrep verify-bounds` does it at length."""
    is_bounded = any(one.why_not(set_encoder.aggregator) is None for one in STATEMENTS.values())
    if not sizes or not is_bounded:
        return None
    report = verify_bounds(
        embed_dataset(dataset, set_encoder.encode),
        dataset,
        set_encoder.aggregator,
        sizes=sizes,
        max_triples=200,
        seed=config.training.seed,
        names=list(STATEMENTS),
    )
    summary: dict[str, Any] = report["summary"]
    return summary


def as_json(result: Any) -> str:
    """Write a dataclass, or plain values, as JSON; numbers that are not finite are refused."""
    plain = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result  # type: ignore[arg-type]
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"
