"""`setrep evaluate` and `setrep verify-bounds`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from setrep.cli.app import JSON, DataRoot, Run, numbers, settings


def evaluate(
    run: Run,
    dataset: Annotated[str | None, typer.Option(help="Another data set.")] = None,
    data_root: DataRoot = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    subset: Annotated[str | None, typer.Option(help="Omniglot: small1, small2 or full.")] = None,
    label_level: Annotated[str | None, typer.Option()] = None,
    collection_level: Annotated[str | None, typer.Option()] = None,
    sizes: Annotated[str | None, typer.Option(help="Collection sizes, as in 1,5,10.")] = None,
    one_shot: Annotated[
        str | None, typer.Option(help="Omniglot one-shot zip or directory.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default: RUN/evaluation.json.")] = None,
    as_json: JSON = False,
) -> None:
    """Measure item kNN, collection retrieval and the one-shot task on held-out classes."""
    changes = settings(
        data__dataset=dataset,
        data__data_root=data_root,
        data__subset=subset,
        data__label_level=label_level,
        data__collection_level=collection_level,
        evaluation__split=split,
        evaluation__sizes=numbers(sizes),
        evaluation__one_shot=one_shot,
    )
    from setrep.reports import runs

    show_evaluation(runs.evaluate(run, changes, output), as_json)


def verify_bounds(
    run: Run,
    bounds: Annotated[
        str | None, typer.Option(help="As in karimov,q12; else all of the aggregator.")
    ] = None,
    max_triples: Annotated[
        int, typer.Option(min=1, help="Triples of collections to check, in all.")
    ] = 1000,
    sizes: Annotated[
        str | None, typer.Option(help="Collection sizes, as in 1,5,10; else the run's.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    collection_level: Annotated[str | None, typer.Option(help="sampled, or a natural one.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the collections; else the run's.")
    ] = None,
    data_root: DataRoot = None,
    output_dir: Annotated[Path | None, typer.Option(help="Default: RUN.")] = None,
    as_json: JSON = False,
) -> int:
    """Check certified bounds on distances between collections; exit with 3 if one is violated."""
    changes = settings(
        data__data_root=data_root,
        data__collection_level=collection_level,
        evaluation__sizes=numbers(sizes),
        evaluation__split=split,
    )
    from setrep.reports import bound_tables, tables
    from setrep.reports import bounds as reports

    report = reports.verify_bounds(
        run,
        changes,
        bounds=None if bounds is None else bounds.split(","),
        max_triples=max_triples,
        seed=seed,
        output_dir=output_dir,
    )
    if as_json:
        print(json.dumps({key: report[key] for key in report if key != "rows"}, indent=2))
    else:
        tables.print_table(bound_tables.bounds_table(report))
        for line in bound_tables.verdict(report):
            tables.print_text(line)
        print(f"Report: {Path(output_dir or run) / 'bounds.html'}, numbers in bounds.json")
    return 3 if reports.count_violations(report) else 0


def show_evaluation(evaluation: Any, as_json: bool) -> None:
    """Print an evaluation."""
    from setrep.reports import tables
    from setrep.reports.evaluation import as_json as write

    if as_json:
        print(write(evaluation), end="")
    else:
        tables.print_table(tables.evaluation_table(evaluation))
        for note in (tables.verdict(evaluation), tables.class_note(evaluation)):
            if note:
                print(note)
