"""`setrep index` and `setrep query`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from setrep.cli.app import JSON, Run


def index(
    run: Run,
    input_: Annotated[Path, typer.Argument(metavar="INPUT", help="INPUT/<collection>/* images.")],
    output: Annotated[Path, typer.Option(help="Index directory to write.", metavar="INDEX")],
    labelled: Annotated[
        bool, typer.Option("--labelled", help="INPUT is INPUT/<label>/<collection>/*.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
) -> None:
    """Build an index of the collections in a directory."""
    from setrep.reports.search import build_index

    found = build_index(run, input_, output, labelled=labelled, overwrite=overwrite)
    print(f"Indexed {len(found)} collections in {output}")


def query(
    index_: Annotated[Path, typer.Argument(metavar="INDEX", help="Written by `setrep index`.")],
    paths: Annotated[list[Path], typer.Argument(help="Images of one collection, or its folder.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many collections to return.")] = 10,
    as_json: JSON = False,
) -> None:
    """Find the collections nearest to one collection of images.

    A score is minus the squared Euclidean distance between embeddings: larger is nearer.
    """
    from setrep.reports.search import query_index, query_table
    from setrep.reports.tables import print_table

    matches = query_index(index_, paths, k)
    if as_json:
        print(json.dumps([dataclasses.asdict(match) for match in matches], indent=2))
    else:
        print_table(query_table(matches))
