"""What `setrep index` calls: collections of image files are embedded and indexed.

The index is built beside its address. An interrupted build leaves what it has embedded there, and
the next one, of the same model and directory, goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from setrep.errors import InputError
from setrep.index import places
from setrep.index.kinds import Kind, SearchKind
from setrep.index.records import Name, Records, join
from setrep.reports.folders import Folder, read_folders, refusing_files
from setrep.reports.index_inputs import (
    device_of,
    full_stamp,
    has_same_files,
    read_metadata,
    read_pools,
)
from setrep.reports.item_progress import ItemProgress
from setrep.retrieval import CollectionIndex, IndexCertificate
from setrep.retrieval.certificate import to_note
from setrep.retrieval.columns import Columns, read_columns
from setrep.set_encoder import SetEncoder

ITEMS_AT_ONCE = 512
KEPT_AT_ONCE = 20_000  # items whose embeddings are written again as they are
SECONDS_BETWEEN_WRITES = 20.0
CERTIFIED_AT_ONCE = 20_000_000  # collections times items: some ten seconds


class Certification(NamedTuple):
    """Whether to certify (where it is quick, for none), and held-out items to do it with."""

    asked: bool | None
    pools: dict[Name, list[Path]] | None


@dataclass(frozen=True)
class Built:
    """What was built.

    Attributes:
        address: where the index is.
        num_collections: how many collections it has.
        num_items: how many items they have.
        num_embedded: how many of the items were embedded now, and not before.
        kind: how it is searched.
        certificate: bounds on its errors, or why there are none.
    """

    address: str
    num_collections: int
    num_items: int
    num_embedded: int
    kind: SearchKind
    certificate: IndexCertificate | str


@refusing_files()
def build_index(
    run: str | Path,
    directory: str | Path,
    output: str | Path,
    *,
    labelled: bool = False,
    overwrite: bool = False,
    update: bool = False,
    metadata: Mapping[str, dict[str, Any]] | None = None,
    kind: Kind | Literal["auto"] | None = None,
    certify: bool | None = None,
    pools: str | Path | None = None,
    device: str | None = None,
) -> Built:
    """Index `directory/<collection>/*`, or `directory/<label>/<collection>/*` when labelled.

    A collection's id is its path below `directory`; `metadata` gives that of ids. With `update`
    an index that is there gets what is new or has changed, and loses what is gone. Certificates
    are worked out where that takes some seconds, or if `certify` or `pools` asks for it: a
    directory laid out as the other, of held-out items of each collection, or label when labelled.

    Raises:
        InputError: the directory holds no such collections, a file is not an image, or there is an
            index that is not to be replaced.
    """
    folders = read_folders(directory, labelled=labelled)
    told = read_metadata(metadata, folders)
    held_out = None if pools is None else read_pools(pools, labelled=labelled)
    certification = Certification(certify, held_out)
    is_there = places.exists(output)
    if is_there and not (overwrite or update):
        raise InputError(
            f"{output} already holds an index. Bring it up to date with --update, build it anew "
            f"with --overwrite, or choose another --output."
        )
    places.refuse(output)
    set_encoder = SetEncoder.from_pretrained(run).to(device_of(device))
    root = Path(directory).resolve()
    if update and is_there:
        with open_as(output, set_encoder, root) as index:
            index.engine.lock()
            done = synchronise(index, root, folders, told)
            return finish(index, done, str(output), kind, certification)
    built = places.building(output)
    with building(built, set_encoder, root) as index:
        done = synchronise(index, root, folders, told)
        summary = finish(index, done, str(output), kind, certification)
    places.publish(built, output)
    return summary


@contextmanager
def building(built: str, set_encoder: SetEncoder, root: Path) -> Iterator[CollectionIndex]:
    """Give what is built; on an error it stays to be gone on from, if anything is embedded."""
    with begin(built, set_encoder, root) as index:
        try:
            yield index
        except BaseException:
            is_empty = not len(index)
            index.close()
            if is_empty:
                places.discard(built)
            raise


def begin(built: str, set_encoder: SetEncoder, root: Path) -> CollectionIndex:
    """Open what an interrupted build of this model and directory left, or begin anew."""
    index = None
    if places.exists(built):
        with suppress(InputError):  # it is of another model or directory, or damaged
            index = open_as(built, set_encoder, root)
    if index is None:
        places.discard(built)
        index = CollectionIndex.create(built, set_encoder, root=root)
    index.engine.lock()
    return index


def open_as(address: str | Path, set_encoder: SetEncoder, root: Path) -> CollectionIndex:
    """Open an index of this model and directory.

    Raises:
        InputError: it is of another.
    """
    index = CollectionIndex.open(address)
    if index.fingerprint != set_encoder.fingerprint or index.origin.root != str(root):
        index.close()
        raise InputError(
            f"{address} was built from another model or directory; build it anew with --overwrite."
        )
    index.set_encoder = set_encoder  # where the caller has moved it
    return index


def synchronise(
    index: CollectionIndex,
    root: Path,
    folders: Sequence[Folder],
    metadata: Mapping[str, dict[str, Any]],
) -> int:
    """Make an index hold these collections; return how many items were embedded for it."""
    kept: dict[Any, str] = {}
    for records in index.engine.iterate(with_members=False):
        stamps_of = (str(payload.get("stamp")) for payload in records.payloads)
        kept |= zip(records.ids, stamps_of, strict=True)
    stamps = {folder.id: full_stamp(folder, metadata) for folder in folders}
    missing: list[Folder] = []
    retold: list[Folder] = []
    for folder in folders:
        stamp = kept.get(folder.id, "")
        if stamp != stamps[folder.id]:
            (retold if has_same_files(stamp, folder) else missing).append(folder)
    num_done = sum(len(f.files) for f in folders) - sum(len(f.files) for f in missing)
    num_missing = sum(len(folder.files) for folder in missing)
    with ItemProgress(num_done + num_missing, num_done) as progress:
        embed_missing(index, root, missing, metadata, progress)
    retell(index, retold, metadata)
    index.engine.delete([name for name in kept if name not in stamps])  # last: what is new is there
    return num_missing


def retell(
    index: CollectionIndex, folders: Sequence[Folder], metadata: Mapping[str, dict[str, Any]]
) -> None:
    """Replace what is told of collections whose files are the same, and keep their embeddings."""
    for some in in_batches(folders, KEPT_AT_ONCE):
        columns = columns_of(some, metadata)
        old = index.engine.fetch(columns.ids)
        index.engine.replace(replace(old, payloads=columns.payloads))


def embed_missing(
    index: CollectionIndex,
    root: Path,
    missing: Sequence[Folder],
    metadata: Mapping[str, dict[str, Any]],
    progress: ItemProgress,
) -> None:
    """Embed collections and add them, every so often; what is embedded is kept whatever happens."""
    pending: list[Records] = []
    written = time.monotonic()
    try:
        for some in in_batches(missing, ITEMS_AT_ONCE):
            pending.append(embed(index, root, some, metadata))
            progress.advance(len(pending[-1].members))
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                keep(index, join(pending))
                pending, written = [], time.monotonic()
    finally:
        if pending:
            keep(index, join(pending))


def keep(index: CollectionIndex, records: Records) -> None:
    """Keep collections, in place of those of the same ids."""
    there = set(index.engine.ids())
    old = [row for row, name in enumerate(records.ids) if name in there]
    new = [row for row, name in enumerate(records.ids) if name not in there]
    index.engine.replace(records.take(old))
    index.engine.add(records.take(new))


def in_batches(folders: Sequence[Folder], num_items: int) -> Iterator[list[Folder]]:
    """Return collections in parts of about so many items."""
    some: list[Folder] = []
    count = 0
    for folder in folders:
        some.append(folder)
        count += len(folder.files)
        if count >= num_items:
            yield some
            some, count = [], 0
    if some:
        yield some


def embed(
    index: CollectionIndex,
    root: Path,
    folders: Sequence[Folder],
    metadata: Mapping[str, dict[str, Any]],
) -> Records:
    """Embed collections of files."""
    columns = columns_of(folders, metadata)
    return index.embed([[root / file for file in folder.files] for folder in folders], columns)


def columns_of(folders: Sequence[Folder], metadata: Mapping[str, dict[str, Any]]) -> Columns:
    """Return what is kept of collections of files beside their embeddings."""
    columns = read_columns(
        len(folders),
        [folder.id for folder in folders],
        [folder.label for folder in folders],
        [metadata.get(folder.id) for folder in folders],
        [folder.files for folder in folders],
    )
    for folder, payload in zip(folders, columns.payloads, strict=True):
        payload["stamp"] = full_stamp(folder, metadata)
    return columns


def finish(
    index: CollectionIndex,
    num_embedded: int,
    address: str,
    kind: Kind | Literal["auto"] | None,
    certification: Certification,
) -> Built:
    """Choose how to search, certify what can be, and sum up."""
    chosen = index.engine.kind if kind is None else index.engine.set_kind(kind)
    payloads = (of for part in index.engine.iterate(with_members=False) for of in part.payloads)
    num_items = sum(len(payload["sources"]) for payload in payloads)
    asked, pools = certification
    if pools is not None or asked:
        index.certify(pools)
    elif asked is None and index.engine.note is None:  # else nothing has changed
        certify_if_quick(index, num_items)
    return Built(address, len(index), num_items, num_embedded, chosen, index.certificate)


def certify_if_quick(index: CollectionIndex, num_items: int) -> None:
    """Certify what can be in some seconds, or note why not."""
    if len(index) * num_items > CERTIFIED_AT_ONCE:
        found: Any = "it takes a while: `setrep index --certify` works it out"
    else:
        try:
            found = index.bound_errors()
        except InputError as error:
            found = str(error).rstrip(".")
    index.engine.annotate(to_note(found))
