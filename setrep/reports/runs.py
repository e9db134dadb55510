"""What the commands call: train a run, evaluate it, verify its bounds."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.optim.swa_utils import update_bn

from setrep import distributed
from setrep.config import Config, DataConfig
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.files import write_atomically
from setrep.methods.supervised import embedding_spread
from setrep.protocols.results import Evaluation
from setrep.reports.difficulty import write_report
from setrep.reports.evaluation import EvaluationData, as_json, evaluate_set_encoder
from setrep.reports.monitor import KnnMonitor
from setrep.reports.trained_on import TrainedOn
from setrep.reports.weights import write_weights
from setrep.set_encoder import SetEncoder
from setrep.training.build import (
    Hardware,
    build_method,
    build_sampler,
    check_prior,
    check_views,
    choose_hardware,
    fit_episode,
    set_encoder_of,
    training_dataset,
)
from setrep.training.checkpoint import checkpoint_step
from setrep.training.loop import train_loop
from setrep.training.progress import clock
from setrep.training.run_directory import (
    configure,
    open_run,
    saved_config,
    write_environment,
)
from setrep.training.steps import forecast_seconds

logger = logging.getLogger(__name__)

ONE_POINT = 1e-4  # an embedding spread that is rounding, or little more


@dataclass(frozen=True)
class TrainedRun:
    """Where a run lies, how it ended, and what was measured if it was finished."""

    directory: Path
    step: int
    reason: str
    evaluation: Evaluation | None
    is_first: bool = True  # of the processes that trained together


def train(config: Config, *, resume: bool = False, console: Console | None = None) -> TrainedRun:
    """Train, evaluate on held-out classes, and write the run directory.

    Raises:
        InputError: a setting, the data or the directory does not allow it.
    """
    console = console or Console(stderr=True, markup=False, emoji=False)  # names as they are
    with distributed.process_group():
        if distributed.rank() > 0:
            console = Console(quiet=True)
        return _train(config, resume, console)


def _train(config: Config, resume: bool, console: Console) -> TrainedRun:
    hardware = choose_hardware(config)
    dataset = training_dataset(config)
    config = fit_episode(config, dataset)
    method = build_method(config, dataset.item_format)
    sampler = build_sampler(config, dataset, method.draws)
    held_out = EvaluationData.read(config)  # before training, not after
    trained_on = TrainedOn.read(config, dataset)
    if held_out.bank is None:
        trained_on.refuse_shared(held_out.dataset)
    monitor = KnnMonitor(held_out, config) if config.evaluation.every_epochs else None
    check_views(method, dataset, config)
    check_prior(dataset, config)
    directory = distributed.from_rank_0(lambda: start_run(config, hardware, resume))
    note = (
        f"{dataset.source_note}: {len(dataset)} items of {len(np.unique(dataset.labels))} classes"
    )
    console.print(note, soft_wrap=True)  # a path in one piece
    start = checkpoint_step(directory) if resume else 0
    num_steps = config.training.max_steps - start
    if num_steps:
        seconds = forecast_seconds(method, dataset, sampler, config, hardware) * num_steps
        console.print(
            f"{f'Continuing at step {start}: t' if start else 'T'}raining {config.encoder.name} on "
            f"{hardware.device.type} for {num_steps} steps: about {clock(seconds)}. "
            f"Run directory: {directory}",
            soft_wrap=True,
        )
    began = time.monotonic()
    result = train_loop(
        method,
        dataset,
        sampler,
        config,
        hardware,
        directory,
        resume=resume,
        console=console,
        monitor=monitor,
    )
    if distributed.rank() > 0:
        return TrainedRun(directory, result.step, result.reason, None, is_first=False)
    set_encoder = set_encoder_of(result.model, config, dataset.item_format)
    set_encoder.metadata["trained_on"] = asdict(trained_on)
    set_encoder.save_pretrained(directory)
    for name, encoder in result.model.other_encoders().items():
        other = set_encoder_of(result.model, config, dataset.item_format, encoder)
        other.metadata["trained_on"] = asdict(trained_on)
        other.save_pretrained(directory / name)
    if result.reason != "finished":
        return TrainedRun(directory, result.step, result.reason, None)
    done = f"Trained in {clock(time.monotonic() - began)}" if num_steps else "Trained already"
    console.print(f"{done}. Evaluating ...")
    # What is on disk is measured, so that `setrep evaluate` gives the same numbers.
    set_encoder = SetEncoder.from_pretrained(directory)
    path = directory / "evaluation.json"
    evaluation = write_evaluation(set_encoder, held_out, config, path)
    for what, page in write_pages(directory, set_encoder, held_out, config, evaluation).items():
        console.print(f"{what}: {page}", soft_wrap=True)
    return TrainedRun(directory, result.step, result.reason, evaluation)


def start_run(config: Config, hardware: Hardware, resume: bool) -> Path:
    """Open the run directory and note the machine in it."""
    directory = open_run(config, resume=resume)
    write_environment(directory, config, hardware)
    return directory


def write_evaluation(
    set_encoder: SetEncoder, data: EvaluationData, config: Config, path: Path
) -> Evaluation:
    """Evaluate and write `evaluation.json`."""
    before = untrained(config, data.dataset)
    evaluation = evaluate_set_encoder(set_encoder, before, data, config)
    write_atomically(path, as_json(evaluation).encode())
    return evaluation


def write_pages(
    run: Path,
    set_encoder: SetEncoder,
    data: EvaluationData,
    config: Config,
    evaluation: Evaluation,
) -> dict[str, Path]:
    """Write the pages that the run has something to show on; return what each shows."""
    pages = {}
    if compare_with_biased(run, set_encoder, data, config):
        pages["Both encoders, their negatives and maps"] = run / "difficulty.html"
    sizes = [found.size for found in evaluation.collections if found.num_classes > 1]
    # The centroid counts all items alike, and of one item there is nothing to say.
    weighs = set_encoder.aggregator.has_weights and config.aggregator.name != "centroid"
    if weighs and max(sizes, default=1) > 1:
        write_weights(run, set_encoder, data.dataset, max(sizes), config.training.seed)
        pages["Which items of collections count"] = run / "weights.html"
    return pages


def compare_with_biased(
    run: Path, set_encoder: SetEncoder, data: EvaluationData, config: Config
) -> bool:
    """Write `difficulty.json` and `.html` of a run that kept a biased encoder; say whether."""
    if config.loss.name != "difficulty_weighted":
        return False
    if not (run / "biased").is_dir():
        logger.warning(
            "%s has no biased encoder to compare with; `setrep train --resume --output-dir %s` "
            "writes it from the checkpoint.",
            run,
            run,
        )
        return False
    write_report(run, set_encoder, SetEncoder.from_pretrained(run / "biased"), data, config)
    return True


def untrained(config: Config, dataset: ItemDataset) -> SetEncoder | None:
    """Build the encoder as it was before its first step.

    Where that maps all items to one point, as a random EfficientNet does, its batch normalisation
    gets the statistics of about 1,000 held-out items: one point is too weak a baseline.
    """
    if not config.evaluation.baselines:
        return None
    method = build_method(config, dataset.item_format)
    sample = torch.arange(0, len(dataset), max(1, len(dataset) // 1000))
    parts = sample.chunk(len(sample) // 64 + 1)
    set_encoder = set_encoder_of(method, config, dataset.item_format)
    is_one_point = float(embedding_spread(set_encoder.encode(dataset.gather(parts[0])))) < ONE_POINT
    if is_one_point and len(parts[-1]) > 1:  # batch normalisation takes no batch of one
        update_bn((dataset.gather(part) for part in parts), method.encoder)
    return set_encoder


def evaluate(
    run: str | Path, changes: dict[str, Any] | None = None, output: str | Path | None = None
) -> Evaluation:
    """Evaluate a run, perhaps on other data or sizes, and write `evaluation.json`.

    `changes` are settings of the run's config to change, as in `{"evaluation": {"sizes": [5]}}`.

    Raises:
        InputError: the directory holds no finished run, or the data cannot be read.
    """
    set_encoder, config, data = open_for_evaluation(run, changes)
    path = Path(output) if output else Path(run) / "evaluation.json"
    evaluation = write_evaluation(set_encoder, data, config, path)
    if output is None:
        write_pages(Path(run), set_encoder, data, config, evaluation)
    return evaluation


def open_for_evaluation(
    run: str | Path, changes: dict[str, Any] | None
) -> tuple[SetEncoder, Config, EvaluationData]:
    """Read a run's set encoder and what it is to be measured on."""
    directory = Path(run)
    config = saved_config(directory, of_another_dataset(directory, changes or {}), changes or {})
    if not (directory / "model.json").exists():
        raise InputError(
            f"The training of {directory} has not ended; end it with "
            f"`setrep train --resume --output-dir {directory}`."
        )
    set_encoder = SetEncoder.from_pretrained(directory)
    data = EvaluationData.read(config)
    dataset = data.dataset
    if data.bank is None and "trained_on" in set_encoder.metadata:
        TrainedOn.from_json(set_encoder.metadata["trained_on"]).refuse_shared(dataset)
    if dataset.item_format != set_encoder.item_format:
        raise InputError(
            f"The run {directory} takes items of {set_encoder.item_format}, "
            f"but {dataset.name} has {dataset.item_format}."
        )
    return set_encoder, config, data


def of_another_dataset(directory: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Forget a run's choices of subset, levels and groups when it is measured on other data."""
    saved = saved_config(directory).data
    asked = changes.get("data", {}).get("dataset", saved.dataset)
    if asked == saved.dataset:
        return {}
    kept = {"image_size": saved.image_size, "on_bad_image": saved.on_bad_image}
    return {"data": DataConfig().model_dump(mode="json") | kept}


__all__ = ["TrainedRun", "configure", "evaluate", "train"]
