"""`setrep train`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from setrep.cli.app import JSON, DataRoot, settings
from setrep.cli.evaluate import show_evaluation
from setrep.config import parse_override, read_yaml


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    dataset: Annotated[str | None, typer.Option(help="See `setrep data list`.")] = None,
    data_root: DataRoot = None,
    subset: Annotated[str | None, typer.Option(help="Omniglot: small1, small2 or full.")] = None,
    label_level: Annotated[str | None, typer.Option(help="What a label is.")] = None,
    collection_level: Annotated[str | None, typer.Option(help="sampled, or a natural one.")] = None,
    method: Annotated[str | None, typer.Option(help="See `setrep list methods`.")] = None,
    loss: Annotated[str | None, typer.Option(help="See `setrep list losses`.")] = None,
    level: Annotated[
        str | None, typer.Option(help="What the loss compares: items, collections or both.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="See `setrep list encoders`.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="See `setrep list aggregators`.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.")] = None,
    classes_per_episode: Annotated[int | None, typer.Option()] = None,
    collections_per_class: Annotated[int | None, typer.Option()] = None,
    items_per_collection: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items; without episodes.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Defines the schedule.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop then, to be resumed.")] = None,
    one_shot: Annotated[
        str | None, typer.Option(help="Omniglot one-shot zip or directory.")
    ] = None,
    output_dir: Annotated[str | None, typer.Option(help="Run directory.", metavar="DIR")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run there.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    on_bad_image: Annotated[str | None, typer.Option(help="fail or skip.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, repeatable.")] = None,
    as_json: JSON = False,
) -> int:
    """Train, evaluate on held-out classes, and write a run directory.

    With no argument at all it trains on the embedded digits, on CPU, in about a minute.
    """
    layers = [read_yaml(config)] if config else []
    layers.append(
        settings(
            data__dataset=dataset,
            data__data_root=data_root,
            data__subset=subset,
            data__label_level=label_level,
            data__collection_level=collection_level,
            data__image_size=image_size,
            data__on_bad_image=on_bad_image,
            episode__classes_per_episode=classes_per_episode,
            episode__collections_per_class=collections_per_class,
            episode__items_per_collection=items_per_collection,
            encoder__name=encoder,
            aggregator__name=aggregator,
            loss__name=loss,
            training__method=method,
            training__level=level,
            training__batch_size=batch_size,
            training__max_steps=max_steps,
            training__max_minutes=max_minutes,
            training__device=device,
            training__seed=seed,
            evaluation__one_shot=one_shot,
            output_dir=output_dir,
        )
    )
    layers += [parse_override(text) for text in set_ or []]
    from setrep.reports import runs

    resolved = runs.configure(layers, resume=resume)
    result = runs.train(resolved, resume=resume)
    if result.reason != "finished":
        if result.is_first:
            place = shlex.quote(str(result.directory))
            again = f"setrep train --resume --output-dir {place}"
            print(f"Stopped at step {result.step}. Continue: {again}", file=sys.stderr)
            if as_json:
                stopped = {"step": result.step, "reason": result.reason, "resume": again}
                print(json.dumps(stopped, indent=2))
        return 130 if result.reason == "interrupted" else 0
    if result.evaluation is None:  # under torchrun the first process has it
        return 0
    show_evaluation(result.evaluation, as_json)
    print(f"Run directory: {result.directory}", file=sys.stderr if as_json else sys.stdout)
    return 0
