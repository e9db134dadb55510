"""The files of a directory, a zip or a tar: what each says of itself, and its bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from setrep.errors import InputError

DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


# What the standard readers raise on bytes that are not what they claim to be.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """How large an archive may grow before it is refused."""

    member_bytes: int = 2**28
    total_bytes: int = 2**36
    num_members: int = 5_000_000
    ratio: int = 200  # unpacked over packed bytes, for a member and for the whole
    ratio_floor: int = 2**24  # bytes below which the ratio does not matter


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its files, before anything is believed."""

    name: str
    size: int
    packed: int | None = None
    problem: str | None = None
    is_directory: bool = False


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line, without the path that the caller names."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def clean_name(name: str) -> str:
    """Leave out `./` and doubled slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _directory_members(path: Path, _: ArchiveLimits) -> Iterator[Member]:
    root = path.resolve()
    for folder, folders, files in os.walk(path, onerror=_stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *files]:
            full = Path(folder, name)
            problem = _link_problem(full, root) if full.is_symlink() else None
            if (name in folders and not problem) or name.startswith("."):
                continue
            if not problem and not full.is_file():
                problem = "is neither a file nor a directory"
            # A large file beside the images is no bomb; its size counts when it is read.
            yield Member(full.relative_to(path).as_posix(), 0, problem=problem)


def _stop(error: OSError) -> None:
    """Let a directory that cannot be listed be seen, instead of passed over."""
    raise InputError(f"Cannot list {error.filename}: {error.strerror}.") from error


def _link_problem(link: Path, root: Path) -> str | None:
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(root):
        return "is a link that leaves the directory; copy what it names"
    if not target.exists():
        return "is a link that leads nowhere"
    return "is a link to a directory; copy what it names" if target.is_dir() else None


def _directory_contents(
    path: Path, wanted: set[str], limits: ArchiveLimits
) -> Iterator[tuple[str, bytes]]:
    for name in sorted(wanted):
        with _damage_named(path / name), (path / name).open("rb") as file:
            content = _read_bounded(file, path / name, limits)
        yield name, content


@contextmanager
def _damage_named(name: object) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged or cannot be read ({one_line(error)}).") from error


def _read_bounded(file: IO[bytes], name: object, limits: ArchiveLimits) -> bytes:
    content = file.read(limits.member_bytes + 1)
    if len(content) > limits.member_bytes:
        raise InputError(f"{name} has more than the {limits.member_bytes} bytes allowed.")
    return content


def _zip_members(path: Path, _: ArchiveLimits) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            problem = None
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link" if mode == stat.S_IFLNK else "is a device"
            elif info.flag_bits & 0x1:
                problem = "is encrypted"
            # zipfile cuts a name at a null and so hides what follows it.
            name = info.orig_filename
            yield Member(name, info.file_size, info.compress_size, problem, info.is_dir())


def _zip_contents(
    path: Path, wanted: set[str], limits: ArchiveLimits
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = clean_name(info.filename)
            if name in wanted and not info.is_dir():
                with _damage_named(f"{path}: {name}"), archive.open(info) as file:
                    content = _read_bounded(file, f"{path}: {name}", limits)
                yield name, content


class _BoundedReads:
    """Refuse one huge read: a tar header may claim any length for its own extension.

    `last` is what was read last: after the last member, the zeros that end a tar.
    """

    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self._stream, self._path, self._limit = stream, path, limit
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._limit:
            raise InputError(f"{self._path} is refused: it has a header of {size} bytes.")
        self.last = self._stream.read(size)
        return self.last


def _walk_tar(
    path: Path, limits: ArchiveLimits
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((f for magic, f in DECOMPRESSORS.items() if head.startswith(magic)), open)
    with opener(path, "rb") as stream:
        bounded: Any = _BoundedReads(stream, path, limits.member_bytes + tarfile.BLOCKSIZE)
        with tarfile.TarFile(fileobj=bounded) as archive:
            for info in archive:
                yield archive, info
        # tarfile takes a broken header for the end, and would leave the rest out without a word.
        if bounded.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark; it is cut short or damaged")


def _tar_members(path: Path, limits: ArchiveLimits) -> Iterator[Member]:
    for _, info in _walk_tar(path, limits):
        problem = None
        if info.issym() or info.islnk():
            problem = "is a link"
        elif not (info.isfile() or info.isdir()) or info.issparse():
            problem = "is a device or of an unusual kind"
        yield Member(info.name, info.size, None, problem, info.isdir())


def _tar_contents(
    path: Path, wanted: set[str], limits: ArchiveLimits
) -> Iterator[tuple[str, bytes]]:
    for archive, info in _walk_tar(path, limits):
        name = clean_name(info.name)
        file = archive.extractfile(info) if name in wanted and info.isfile() else None
        if file is not None:
            with _damage_named(f"{path}: {name}"):
                content = _read_bounded(file, f"{path}: {name}", limits)
            yield name, content


MEMBERS = {"directory": _directory_members, "zip": _zip_members, "tar": _tar_members}
CONTENTS = {"directory": _directory_contents, "zip": _zip_contents, "tar": _tar_contents}
