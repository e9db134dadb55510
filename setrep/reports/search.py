"""What `setrep query` calls, and what it shows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from setrep.errors import InputError
from setrep.reports.folders import image_files, refusing_files, root_of
from setrep.reports.index_inputs import read_filters
from setrep.reports.indexing import Built
from setrep.reports.query_page import write_query_page
from setrep.reports.tables import printable
from setrep.retrieval import CollectionIndex, IndexCertificate, Match, Result

AIM = 0.05  # the error that an index tells the size of query for


@dataclass(frozen=True)
class Asked:
    """What a query asks of an index; see `CollectionIndex`."""

    k: int = 10
    rerank: str | None = None
    num_candidates: int = 100
    filters: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_error: float | None = None


class Answer(NamedTuple):
    """What was found for these files, and where those of the index lie, as it says."""

    result: Result
    files: list[Path]
    root: str


@refusing_files()
def query_index(
    address: str, paths: Sequence[Path], asked: Asked, html: Path | None = None
) -> Answer:
    """Find the collections nearest to one collection of image files.

    With `html` a page of it is written there.

    Raises:
        InputError: there is no such index, a path is not an image, the filter cannot be read, or
            `max_error` does not allow queries of so many items.
    """
    with CollectionIndex.open(address) as index:
        files = image_files(paths)
        if asked.max_error is not None:
            refuse_uncertain(index.certificate, len(files), asked)
        result = index.query(
            files,
            k=asked.k,
            rerank=asked.rerank,
            num_candidates=asked.num_candidates,
            filter=read_filters(asked.filters),
            exclude=[
                *asked.exclude,
                *(int(name) for name in asked.exclude if name.isdecimal() and len(name) < 19),
            ],
        )
        root = str(root_of(index.origin.root))
        if html is not None:
            about = about_index(index, address, asked) | {"pictures of members": below_root(root)}
            write_query_page(html, files, result, root, about)
    return Answer(result, files, root)


def refuse_uncertain(certificate: IndexCertificate | str, num_items: int, asked: Asked) -> None:
    """Refuse a query of a size for which errors are not bounded by `max_error`.

    Raises:
        InputError: it is so.
    """
    limit = asked.max_error
    assert limit is not None
    if not 0 <= limit <= 1:
        raise InputError(f"--max-error is a probability from 0 to 1, not {limit:g}.")
    if asked.rerank is not None or asked.filters or asked.exclude:
        raise InputError(
            "--max-error holds for the nearest centroid of the whole index only: leave out "
            "--rerank, --filter and --exclude."
        )
    if isinstance(certificate, str):
        raise InputError(f"--max-error needs a certificate, and there is none: {certificate}.")
    delta = certificate.delta(num_items)
    if delta is not None and delta <= limit:
        return
    found = "has no bound" if delta is None else f"has delta {delta:.3g}"
    size = certificate.smallest_size(limit)
    advice = (
        f"no size up to {len(certificate.deltas)} would do"
        if size is None
        else f"a query of {size} items would do"
    )
    raise InputError(
        f"A query of {num_items} items {found}, above --max-error {limit:g}; {advice}."
    )


def about_index(index: CollectionIndex, address: str, asked: Asked) -> dict[str, str]:
    """Say what was searched, and how."""
    about = {"index": address, "collections": f"{len(index):,}"}
    if index.set_encoder is not None:
        encoder, aggregator = index.set_encoder.encoder_config, index.set_encoder.aggregator_config
        about["model"] = f"{encoder.name}, {aggregator.name}"
    if asked.rerank is not None:
        about["re-ranked by"] = asked.rerank
    if asked.filters:
        about["filter"] = ", ".join(asked.filters)
    if asked.exclude:
        about["left out"] = ", ".join(asked.exclude)
    return about


def below_root(root: str) -> str:
    """Say which files a page shows, since who made an index chose them."""
    return f"files below {root}, which the index names"


def page_lines(html: Path, root: str) -> list[str]:
    """Say where the page is, and what is on it."""
    return [printable(f"page: {html}"), printable(f"it shows members from {below_root(root)}")]


def to_json(result: Result, files: Sequence[Path]) -> dict[str, Any]:
    """Return a result as `setrep query --json` prints it."""
    return {
        "query": [str(file) for file in files],
        "matches": [match_to_json(match) for match in result],
        "margin": result.margin,
        "delta": result.delta,
        "delta_note": result.delta_note,
        "num_measured": result.num_measured,
        "is_exact": result.is_exact,
    }


def match_to_json(match: Match) -> dict[str, Any]:
    """Return a match, with the names of the members that items of the query went with."""
    pairs = [
        {
            "query_item": pair.query_item,
            "member": pair.member,
            "source": match.sources[pair.member] if match.sources else None,
            "similarity": pair.similarity,
        }
        for pair in match.items
    ]
    return {
        "id": match.id,
        "score": match.score,
        "label": match.label,
        "metadata": match.metadata,
        "items": pairs,
    }


def query_table(result: Result, files: Sequence[Path], rerank: str | None) -> Table:
    """Show matches, best first."""
    table = Table(caption=score_text(rerank), caption_justify="left")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("collection", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("nearest items", overflow="fold")
    for rank, match in enumerate(result, 1):
        label = "–" if match.label is None else str(match.label)
        row = (str(match.id), label, f"{match.score + 0.0:.6g}", best_pair(match, files))
        table.add_row(str(rank), *map(printable, row))
    return table


def score_text(rerank: str | None) -> str:
    """Say what a score is."""
    if rerank is None:
        return "score: minus the squared distance between embeddings; 0 is nearest"
    if rerank == "maxsim":
        return "score: maxsim; larger is nearer"
    return f"score: minus the distance '{rerank}'; 0 is nearest"


def best_pair(match: Match, files: Sequence[Path]) -> str:
    """Name the item of the query and the member that are most alike."""
    if not match.items or not match.sources:
        return "–"
    best = max(match.items, key=lambda pair: pair.similarity)
    return f"{files[best.query_item].name} ~ {Path(match.sources[best.member]).name}"


def trust_lines(result: Result) -> list[str]:
    """Say how far the first match is ahead, and what is certified."""
    lines = []
    note = printable(result.delta_note)
    if result.num_measured is not None:
        whole = "nothing nearer can have been missed" if result.is_exact else "others were not"
        lines.append(f"measured {result.num_measured} collections; {whole}")
    if result.margin is not None:
        lines.append(f"margin {result.margin:.6g}: ahead of the best of another label")
    if result.delta is None:
        lines.append(f"no certificate: {note}")
    elif result.delta >= 1:
        lines.append(f"delta({result.num_items}) = 1: of queries of this size nothing is certified")
    else:
        lines.append(
            f"delta({result.num_items}) = {result.delta:.3g}: at most this share of random draws "
            f"is nearest to another label, where {note}"
        )
    return lines


def built_lines(built: Built) -> list[str]:
    """Say what was indexed, how it is searched, and what is certified."""
    before = built.num_items - built.num_embedded
    again = f", {before:,} of them embedded before" if before else ""
    lines = [
        f"Indexed {built.num_collections:,} collections ({built.num_items:,} items{again}) in "
        f"{printable(built.address)}"
    ]
    if built.kind.kind != "flat":
        lines.append(
            f"search: {built.kind.kind}, expected recall@10 {100 * built.kind.recall_at_10:.1f} %"
        )
    found = built.certificate
    if isinstance(found, str):
        return [*lines, f"no certificate: {printable(found)}"]
    size = found.smallest_size(AIM)
    aim = f"at most {100 * AIM:.0f} % of every label: "
    aim += f"no size up to {len(found.deltas)}" if size is None else f"queries of {size} items"
    deltas = {n: found.deltas[n - 1] for n in found.sizes if found.deltas[n - 1] < 1}
    shown = ", ".join(f"{n} items {delta:.2g}" for n, delta in deltas.items())
    if not deltas:
        shown = f"none of queries of up to {found.sizes[-1]} items"
    return [
        *lines,
        f"certified errors, the largest of {len(found.labels)} labels: {shown}; {aim}",
        f"where {found.explain(1)}",
    ]


def built_to_json(built: Built) -> dict[str, Any]:
    """Return what `setrep index --json` prints."""
    found = built.certificate
    certificate: Mapping[str, Any] | None = None
    if not isinstance(found, str):
        certificate = {
            "model": found.explain(1),
            "delta": list(found.deltas),
            "sizes": list(found.sizes),
            "labels": [
                {
                    "label": one.label,
                    "stands": one.stands,
                    "num_pool": one.num_pool,
                    "half_space": list(one.half_space),
                    "chernoff": list(one.chernoff),
                }
                for one in found.labels
            ],
        }
    return {
        "address": built.address,
        "num_collections": built.num_collections,
        "num_items": built.num_items,
        "num_embedded": built.num_embedded,
        "kind": built.kind.kind,
        "recall_at_10": built.kind.recall_at_10,
        "certificate": certificate,
        "certificate_note": found if isinstance(found, str) else None,
    }
