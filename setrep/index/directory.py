"""The embedded engine: a directory, searched through FAISS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from setrep.errors import InputError
from setrep.index import index_files
from setrep.index import segments as files
from setrep.index.compaction import first_to_join, join_live
from setrep.index.disk import Lock, sync_directory
from setrep.index.kinds import FEWEST, FLAT, Kind, SearchKind
from setrep.index.local import LocalEngine, Rows
from setrep.index.manifest import (
    Manifest,
    SegmentEntry,
    aside_of,
    is_index,
    read_manifest,
    write_manifest,
)
from setrep.index.metric import Metric
from setrep.index.records import Records

if TYPE_CHECKING:  # writing an index imports no torch
    from setrep.index.approximate import Approximate

T = TypeVar("T")


class DirectoryEngine(LocalEngine):
    """Keeps collections in a directory; its arrays are mapped, not loaded.

    Any number of processes may read. One may write at a time; readers keep what they opened.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder.absolute(), manifest  # wherever the process goes
        super().__init__(
            manifest.dim,
            manifest.member_dim,
            "euclidean" if manifest.metric == "euclidean" else "inner_product",
            [self._read(entry, manifest) for entry in manifest.segments],
            [entry.deleted for entry in manifest.segments],
        )
        self._lock: Lock | None = None
        self._read_index: tuple[str, Approximate] | None = None  # with the name of its file

    @classmethod
    def create(
        cls,
        folder: str | Path,
        dim: int,
        member_dim: int,
        metric: Metric = "euclidean",
        attachments: Mapping[str, bytes] | None = None,
    ) -> DirectoryEngine:
        """Begin an empty index in a directory that is empty or not there.

        Raises:
            InputError: the directory holds something, or cannot be written.
        """
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if any(place.iterdir()):
                raise InputError(f"{place} is not empty; an index begins in an empty directory.")
            sha256 = files.write_attachments(place, attachments or {})
            write_manifest(place, Manifest(dim, member_dim, metric, sha256))
            sync_directory(place)
            sync_directory(place.parent)
        except OSError as error:
            raise InputError(f"Cannot write to {place}: {error.strerror}.") from error
        return cls.open(place)

    @classmethod
    def open(cls, folder: str | Path) -> DirectoryEngine:
        """Open an index.

        Raises:
            InputError: there is none, or it is damaged.
        """
        for attempt in range(10):
            time.sleep(0.001 * attempt)
            place = Path(folder)
            if not place.exists() and is_index(aside_of(place)):
                place = aside_of(place)
            manifest = None
            try:
                manifest = read_manifest(place)
                return cls(place, manifest)
            except InputError:
                # A writer may have replaced the manifest and removed what the old one named, or
                # put a new index in place of this one, or of the one aside.
                is_there = place == Path(folder) or place.exists()
                is_aside = not Path(folder).exists() and is_index(aside_of(Path(folder)))
                if manifest is None and is_there and not is_aside:
                    raise
                if manifest is not None and is_same_manifest(place, manifest):
                    raise
        raise InputError(f"The index {place} changes faster than it can be opened.")

    def _read(self, entry: SegmentEntry, manifest: Manifest) -> Records:
        return files.read_segment(self.folder, entry, manifest.dim, manifest.member_dim)

    def attachment(self, name: str) -> bytes:
        """Return a file that was given with the index."""
        return files.read_attachment(self.folder, self.manifest, name)

    @property
    def note(self) -> str | None:
        """What was noted of what the index holds, if it has not changed since."""
        return self.manifest.note

    def annotate(self, note: str | None) -> None:
        """Note something of what the index holds now; any change takes it away."""
        self._begin()
        self._replace_manifest(replace(self.manifest, note=note))
        self._sync()

    @property
    def kind(self) -> SearchKind:
        """What the engine searches by, and what was measured of it."""
        return self.manifest.segments[0].kind if self.manifest.segments else FLAT

    def set_kind(
        self,
        kind: Kind | Literal["auto"],
        *,
        target_recall: float = 0.95,
        parameters: Mapping[str, int] | None = None,
    ) -> SearchKind:
        """Search by another kind of index, which becomes one more file of a segment."""
        self._begin()  # before the work is done
        return super().set_kind(kind, target_recall=target_recall, parameters=parameters)

    @property
    def _index(self) -> Approximate | None:
        """The index of the first segment, read when it is first searched.

        None where a writer has removed it since: what it was of is searched exactly.
        """
        if self.is_exact:
            return None
        from setrep.index.approximate import read_index

        entry = self.manifest.segments[0]
        if self._read_index is None or self._read_index[0] != entry.index_file:
            try:
                path = index_files.index_path(self.folder, entry)
                index = read_index(path, entry.kind, len(self._parts[0]), self.dim)
            except InputError:
                if self.is_replaced:
                    return None
                raise
            self._read_index = entry.index_file, index
        return self._read_index[1]

    @property
    def is_replaced(self) -> bool:
        """Whether there is another index by now, or none."""
        return not is_same_manifest(self.folder, self.manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give another process the index as it finds it then."""
        return type(self).open, (self.folder,)

    def _index_by(self, whole: Records | None, index: Approximate | None) -> None:
        entries, parts = list(self.manifest.segments), list(self._parts)
        if whole is None or index is None:
            entries[:1] = [index_files.without_index(entry) for entry in entries[:1]]
        elif parts and whole is parts[0]:
            entries = [self._indexed(entries[0], index)]
        else:
            entry = self._written(lambda: files.write_segment(self.folder, whole))
            entries, parts = [self._indexed(entry, index)], [self._read(entry, self.manifest)]
        self._replace(entries, parts, self.note)

    def _indexed(self, entry: SegmentEntry, index: Approximate) -> SegmentEntry:
        """Write an index of a segment."""
        content = index.content()
        return self._written(
            lambda: index_files.write_index(self.folder, entry, index.found, content)
        )

    def close(self) -> None:
        """Let another process write; this one may go on reading."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _change(self, deleted: list[Rows], records: Records | None) -> None:
        self._begin()
        entries = [
            replace(entry, deleted=rows)
            for entry, rows in zip(self.manifest.segments, deleted, strict=True)
        ]
        parts = list(self._parts)
        if records is not None:
            entries.append(self._written(lambda: files.write_segment(self.folder, records)))
            parts.append(self._read(entries[-1], self.manifest))
        self._commit(entries, parts)

    def lock(self) -> None:
        """Become the one writer before there is something to write."""
        self._begin()

    def _begin(self) -> None:
        """Become the one writer.

        Raises:
            InputError: another process writes, or has written since this one read.
        """
        if self._lock is not None and not self._lock.is_held:
            self.close()
        if self._lock is None:
            self._lock = self._written(lambda: Lock(self.folder / files.LOCK))
            if read_manifest(self.folder) != self.manifest:
                self.close()
                raise InputError(
                    f"The index {self.folder} was changed since it was opened; open it again."
                )

    def _commit(self, entries: list[SegmentEntry], parts: list[Records]) -> None:
        """Make the segments the index, fewer of them where that pays."""
        entries, parts = self._compacted(entries, parts)
        self._replace(entries, parts, None)

    def _replace(self, entries: list[SegmentEntry], parts: list[Records], note: str | None) -> None:
        """Make the segments the index, and sweep what is no more."""
        self._replace_manifest(replace(self.manifest, segments=tuple(entries), note=note))
        self._hold(parts, [entry.deleted for entry in entries])
        self._sync()
        with suppress(OSError):  # what cannot be removed now, the next writer removes
            files.sweep(self.folder, self.manifest)

    def _replace_manifest(self, manifest: Manifest) -> None:
        self._written(lambda: write_manifest(self.folder, manifest))
        self.manifest = manifest

    def _sync(self) -> None:
        """Force the name of the manifest to disk, before what it no longer names is removed."""
        try:
            sync_directory(self.folder)
        except OSError as error:
            raise InputError(
                f"The index {self.folder} is changed, but the system does not say that the change "
                f"would outlive a loss of power: {error.strerror}."
            ) from error

    def _compacted(
        self, entries: list[SegmentEntry], parts: list[Records]
    ) -> tuple[list[SegmentEntry], list[Records]]:
        """Write anew segments that are mostly deleted, or all where there are many."""
        deleted = [entry.deleted for entry in entries]
        first = first_to_join(parts, deleted, is_indexed=bool(entries) and entries[0].kind != FLAT)
        if first is None:
            return entries, parts
        joined = join_live(parts[first:], deleted[first:])
        if not len(joined):
            return entries[:first], parts[:first]
        entry = self._written(lambda: files.write_segment(self.folder, joined))
        kind = entries[0].kind
        if first == 0 and kind != FLAT and len(joined) >= FEWEST:
            from setrep.index.tuning import build

            index = build(joined.vectors, self.metric, kind.kind, 1.0, kind.parameters)
            entry = self._indexed(entry, index)
        return [*entries[:first], entry], [*parts[:first], self._read(entry, self.manifest)]

    def _written(self, act: Callable[[], T]) -> T:
        """Write, and say in one line what is wrong if it cannot be."""
        try:
            return act()
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.folder}: {error.strerror or error}. The index is unchanged."
            ) from error


def is_same_manifest(folder: Path, manifest: Manifest) -> bool:
    """Say whether a directory holds this index still; one that is damaged now does."""
    try:
        return read_manifest(folder) == manifest
    except InputError:
        return is_index(folder)
