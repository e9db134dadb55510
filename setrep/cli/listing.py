"""`setrep list` and `setrep data`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from setrep.cli.app import JSON, DataRoot

DIM = 128  # of the items that aggregators are described for
data_app = typer.Typer(
    help="Show which data sets there are and what they need.",
    rich_markup_mode=None,
)


class Kind(StrEnum):
    """What can be listed."""

    encoders = "encoders"
    aggregators = "aggregators"
    losses = "losses"
    miners = "miners"
    methods = "methods"


def list_names(kind: Annotated[Kind, typer.Argument()], as_json: JSON = False) -> None:
    """Show what can be named on the command line."""
    if kind is Kind.aggregators:
        return list_aggregators(as_json)
    from setrep.training.build import names

    found = names(kind.value)
    print(json.dumps(found) if as_json else "\n".join(found))


def list_aggregators(as_json: bool) -> None:
    """Show what each computes, whether the hull bounds hold for it, and what it has to learn."""
    from setrep.aggregators import AGGREGATORS, default_options

    rows: list[dict[str, Any]] = []
    for name, kind in AGGREGATORS.items():
        aggregator = kind(DIM)
        rows.append(
            {
                "name": name,
                "formula": kind.formula,
                "is_convex": aggregator.is_convex,
                "has_weights": aggregator.has_weights,
                "num_parameters": sum(p.numel() for p in aggregator.parameters()),
                "dim_out": aggregator.dim_out,
                "options": default_options(name),
            }
        )
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'name':<18}  {'convex':<6}  {'weights':>9}  {'dim':>5}  formula")
    for row in rows:
        options = ", ".join(f"{option}={value}" for option, value in row["options"].items())
        print(
            f"{row['name']:<18}  {'yes' if row['is_convex'] else 'no':<6}  "
            f"{row['num_parameters']:>9,}  {row['dim_out']:>5}  {row['formula']}"
        )
        if options:
            print(f"    {options}")
    print(f"Weights to learn, and dimensions of a collection's embedding, where items have {DIM}.")


@data_app.command("list")
def list_data(as_json: JSON = False) -> None:
    """Show the data sets."""
    from setrep.data.registry import list_datasets

    infos = list_datasets()
    if as_json:
        print(json.dumps([info.name for info in infos]))
        return
    width = max(len(info.name) for info in infos)
    for info in infos:
        print(f"{info.name:<{width}}  {info.summary}")


@data_app.command("info")
def info(name: Annotated[str, typer.Argument()]) -> None:
    """Show the splits and levels of a data set, and which files it needs."""
    from setrep.data.registry import PARTITION, dataset_info

    found = dataset_info(name)
    print(f"{found.name}: {found.summary}")
    print(f"  splits: {', '.join(found.splits)}")
    print(f"  subsets: {', '.join(found.subsets)}")
    print(f"  --label-level: {', '.join(found.label_levels)}")
    print(f"  --collection-level: {', '.join((*found.collection_levels, PARTITION))}")
    print(f"  needs: {found.needs}")


@data_app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument()],
    data_root: DataRoot = None,
    subset: Annotated[str | None, typer.Option()] = None,
    image_size: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Fetch a data set where it is not at hand, and decode it into the cache."""
    import torch

    from setrep.cli.app import settings
    from setrep.config import resolve
    from setrep.training.build import load_split

    asked = settings(
        data__dataset=name,
        data__data_root=data_root,
        data__subset=subset,
        data__image_size=image_size,
    )
    data = resolve(asked, has_cuda=torch.cuda.is_available()).data
    for split in ("train", "test"):
        dataset = load_split(data, split)
        print(f"{split}: {dataset.source_note} ({len(dataset)} items)")
