"""The embedded engine: a directory, searched exactly through FAISS."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from setrep.errors import InputError
from setrep.index import segments as files
from setrep.index.local import LocalEngine, Rows
from setrep.index.metric import Metric
from setrep.index.records import Records, join
from setrep.index.segments import Manifest, SegmentEntry

T = TypeVar("T")
MOST_DELETED = 0.5  # of a segment, before it is written anew
MOST_SEGMENTS = 32  # before they are written as one


class DirectoryEngine(LocalEngine):
    """Keeps collections in a directory; its arrays are mapped, not loaded.

    Any number of processes may read. One may write at a time; readers keep what they opened.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        super().__init__(
            manifest.dim,
            manifest.member_dim,
            "euclidean" if manifest.metric == "euclidean" else "inner_product",
            [self._read(entry, manifest) for entry in manifest.segments],
            [entry.deleted for entry in manifest.segments],
        )
        self._lock: BinaryIO | None = None

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
            files.write_manifest(place, Manifest(dim, member_dim, metric, sha256))
        except OSError as error:
            raise InputError(f"Cannot write to {place}: {error.strerror}.") from error
        return cls.open(place)

    @classmethod
    def open(cls, folder: str | Path) -> DirectoryEngine:
        """Open an index.

        Raises:
            InputError: there is none, or it is damaged.
        """
        for _ in range(10):
            place = Path(folder)
            if not place.exists() and files.is_index(files.aside_of(place)):
                place = files.aside_of(place)
            manifest = files.read_manifest(place)
            try:
                return cls(place, manifest)
            except InputError:
                # A writer may have replaced the manifest and removed what the old one named.
                if files.read_manifest(place) == manifest:
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

    def _begin(self) -> None:
        """Become the one writer.

        Raises:
            InputError: another process writes, or has written since this one read.
        """
        if self._lock is None:
            self._lock = self._written(lambda: lock(self.folder / files.LOCK))
            if files.read_manifest(self.folder) != self.manifest:
                self.close()
                raise InputError(
                    f"The index {self.folder} was changed since it was opened; open it again."
                )

    def _commit(self, entries: list[SegmentEntry], parts: list[Records]) -> None:
        """Make the segments the index, fewer of them where that pays, and sweep what is no more."""
        entries, parts = self._compacted(entries, parts)
        self._replace_manifest(replace(self.manifest, segments=tuple(entries), note=None))
        self._hold(parts, [entry.deleted for entry in entries])
        with suppress(OSError):  # what cannot be removed now, the next writer removes
            files.sweep(self.folder, self.manifest)

    def _replace_manifest(self, manifest: Manifest) -> None:
        self._written(lambda: files.write_manifest(self.folder, manifest))
        self.manifest = manifest

    def _compacted(
        self, entries: list[SegmentEntry], parts: list[Records]
    ) -> tuple[list[SegmentEntry], list[Records]]:
        """Write anew segments that are mostly deleted, or all where there are many."""
        wasteful = [
            len(entry.deleted) > MOST_DELETED * len(part)
            for entry, part in zip(entries, parts, strict=True)
        ]
        if len(entries) > MOST_SEGMENTS:
            wasteful = [True] * len(entries)
        if not any(wasteful):
            return entries, parts
        # All from the first on, so that the order in which they were added stays.
        first = wasteful.index(True)
        kept = [
            part.take(sorted(set(range(len(part))) - set(entry.deleted)))
            for entry, part in zip(entries[first:], parts[first:], strict=True)
        ]
        joined = join(kept)
        if not len(joined):
            return entries[:first], parts[:first]
        entry = self._written(lambda: files.write_segment(self.folder, joined))
        return [*entries[:first], entry], [*parts[:first], self._read(entry, self.manifest)]

    def _written(self, act: Callable[[], T]) -> T:
        """Write, and say in one line what is wrong if it cannot be."""
        try:
            return act()
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.folder}: {error.strerror}. The index is unchanged."
            ) from error


def lock(path: Path) -> BinaryIO:
    """Lock a file until it is closed, or its process ends.

    Raises:
        InputError: another process holds the lock.
    """
    file = path.open("ab")
    if os.name != "posix":
        return file
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(
            f"Another process is writing to {path.parent}; wait until it is done."
        ) from error
    return file
