"""`setrep index`, `setrep query` and `setrep embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from setrep.cli.app import JSON, Run
from setrep.errors import InputError

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="INPUT/<collection>/* images.")]
Labelled = Annotated[
    bool, typer.Option("--labelled", help="INPUT is INPUT/<label>/<collection>/*.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def index(
    run: Run,
    input_: Input,
    output: Annotated[
        str, typer.Option(help="A directory, faiss:DIR or milvus:URI.", metavar="INDEX")
    ],
    labelled: Labelled = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Embed what is new or changed; remove what is gone.")
    ] = False,
    metadata: Annotated[
        Path | None, typer.Option(help="JSON: {collection: {name: value}}.", metavar="FILE")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="flat (exact, the default), ivf, hnsw, pq, or auto: by size."),
    ] = None,
    certify: Annotated[
        bool | None,
        typer.Option(help="Bound the errors of each label; default: where that takes seconds."),
    ] = None,
    pools: Annotated[
        Path | None,
        typer.Option(help="Held-out items, laid out as INPUT, to certify with.", metavar="DIR"),
    ] = None,
    device: Device = "auto",
    as_json: JSON = False,
) -> None:
    """Build an index of the collections in a directory; an interrupted build goes on."""
    from setrep.reports.indexing import build_index
    from setrep.reports.search import built_lines, built_to_json
    from setrep.reports.tables import print_text

    told = None if metadata is None else read_json(metadata)
    found = build_index(
        run,
        input_,
        output,
        labelled=labelled,
        overwrite=overwrite,
        update=update,
        metadata=told,
        kind=read_kind(kind),
        certify=certify,
        pools=pools,
        device=device,
    )
    if as_json:
        print(json.dumps(built_to_json(found), indent=2))
    else:
        for line in built_lines(found):
            print_text(line)


def query(
    index_: Annotated[str, typer.Argument(metavar="INDEX", help="Written by `setrep index`.")],
    paths: Annotated[list[Path], typer.Argument(help="Images of one collection, or its folder.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many collections to return.")] = 10,
    rerank: Annotated[
        str | None, typer.Option(help="Order by a set distance, as in chamfer.", metavar="NAME")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="How many of the nearest are re-ranked.")
    ] = 100,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help='As in label=cup, year=2024,2025 or, in JSON, label=["a,b","c"].',
            metavar="NAME=VALUE",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A collection to leave out.", metavar="ID")
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Refuse sizes of query whose delta is larger.", metavar="D"),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a page of the result, with pictures of files that the index names.",
            metavar="FILE",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Find the collections nearest to one collection of images.

    A score is minus the squared Euclidean distance between embeddings: larger is nearer.
    """
    from setrep.reports import search
    from setrep.reports.tables import print_table, print_text

    filters, left_out = tuple(filter_ or ()), tuple(exclude or ())
    asked = search.Asked(k, rerank, candidates, filters, left_out, max_error)
    result, files, root = search.query_index(index_, paths, asked, html)
    if as_json:
        print(json.dumps(search.to_json(result, files), indent=2))
        return
    print_table(search.query_table(result, files, rerank))
    lines = search.trust_lines(result)
    for line in lines if html is None else [*lines, *search.page_lines(html, root)]:
        print_text(line)


def embed(
    run: Run,
    input_: Input,
    output: Annotated[
        Path, typer.Option(help=".npz, .safetensors or .parquet to write.", metavar="FILE")
    ],
    labelled: Labelled = False,
    level: Annotated[str, typer.Option(help="collections, items or both.")] = "both",
    device: Device = "auto",
) -> None:
    """Embed the collections in a directory and write their embeddings to a file."""
    from setrep.reports.embedding import embed_folder
    from setrep.reports.tables import printable

    found = embed_folder(run, input_, output, labelled=labelled, level=level, device=device)  # type: ignore[arg-type]
    where = printable(output)
    print(f"Embedded {len(found):,} collections ({len(found.members):,} items) in {where}")


def read_kind(kind: str | None) -> Any:
    """Check the name of a way to search."""
    from setrep.index.kinds import KINDS

    if kind not in (None, *KINDS, "auto"):
        raise InputError(f"--kind is {', '.join(KINDS)} or auto, not '{kind}'.")
    return kind


def read_json(path: Path) -> dict[str, dict[str, Any]]:
    """Read metadata of collections.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(of, dict) for of in content.values()):
        raise InputError(f'{path} must be JSON as in {{"collection": {{"name": "value"}}}}.')
    return content
