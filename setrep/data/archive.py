"""Read-only access to the files of a directory, a zip or a tar, trusting none of them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

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


@dataclass(frozen=True)
class Archive:
    """Name the files of a directory, a zip or a tar, and read them where they are.

    Each reading opens and closes the file, so an archive may cross threads and processes.
    """

    path: Path
    kind: Literal["directory", "zip", "tar"]
    names: tuple[str, ...]
    limits: ArchiveLimits

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        for _, content in self.read_many([name]):
            return content
        raise InputError(f"{self.path} holds no file '{name}'.")

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents in the order in which they are stored.

        Raises:
            InputError: a file is damaged, or grew since it was listed.
        """
        wanted = set(names)
        try:
            yield from CONTENTS[self.kind](self.path, wanted, self.limits)
        except InputError:
            raise
        except BROKEN as error:
            raise InputError(
                f"{self.path} is damaged or cannot be read ({one_line(error)}). Fetch it again."
            ) from error

    def where(self, name: str) -> str:
        """Name one file so that a reader of the message finds it."""
        return f"{self.path / name}" if self.kind == "directory" else f"{self.path}: {name}"

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a digest that changes with any byte, or any name, of the named files."""
        digest = hashlib.sha256(self.kind.encode())
        chosen = sorted(names)
        digest.update("\0".join(chosen).encode())
        if self.kind == "directory":
            for _, content in self.read_many(chosen):
                digest.update(len(content).to_bytes(8) + content)
        else:
            with self.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_archive(path: str | Path, limits: ArchiveLimits | None = None) -> Archive:
    """List a directory, a zip or a tar (plain, gz, bz2, xz); dotfiles and `__MACOSX` are left out.

    Raises:
        InputError: there is nothing, it is no archive, or a member is a link, a device, encrypted,
            absurdly large, or named so that it would land outside.
    """
    path, limits = Path(path), limits or ArchiveLimits()
    try:
        kind = _kind(path)
        names = _admit(path, MEMBERS[kind](path, limits), limits)
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(
            f"{path} is not a whole zip or tar archive, nor a directory ({one_line(error)})."
        ) from error
    return Archive(path, kind, tuple(sorted(names)), limits)


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line, without the path that the caller names."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _kind(path: Path) -> Literal["directory", "zip", "tar"]:
    if path.is_dir():
        return "directory"
    if not path.exists():
        raise InputError(f"There is no file or directory {path}.")
    with path.open("rb") as file:
        return "zip" if file.read(2) == b"PK" else "tar"


def _admit(path: Path, members: Iterable[Member], limits: ArchiveLimits) -> list[str]:
    """Check members one by one, so that a bomb is refused before it is unpacked to its end."""
    names: set[str] = set()
    total, packed = 0, max(1, path.stat().st_size)
    for count, member in enumerate(members, start=1):
        total += member.size
        problem = (
            member.problem
            or _name_problem(member.name)
            or _size_problem(member.size, member.packed, limits)
        )
        if problem:
            raise InputError(f"{path} is refused: its member '{member.name}' {problem}.")
        if count > limits.num_members:
            raise InputError(f"{path} is refused: it has over {limits.num_members} members.")
        is_bomb = total > max(limits.ratio_floor, limits.ratio * packed)
        if not path.is_dir() and (total > limits.total_bytes or is_bomb):
            raise InputError(
                f"{path} is refused: its {packed} bytes would unpack to more than {total} bytes."
            )
        name = clean_name(member.name)
        if member.is_directory or any(p.startswith((".", "__MACOSX")) for p in name.split("/")):
            continue
        if name in names:
            raise InputError(f"{path} is refused: it has two members named '{name}'.")
        names.add(name)
    return list(names)


def clean_name(name: str) -> str:
    """Leave out `./` and doubled slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _name_problem(name: str) -> str | None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if "\\" in name or "\0" in name:
        return "has a backslash or a null in its name"
    return "would land outside" if ".." in name.split("/") else None


def _size_problem(size: int, packed: int | None, limits: ArchiveLimits) -> str | None:
    if size > limits.member_bytes:
        return f"has {size} bytes, more than the {limits.member_bytes} allowed"
    if packed is not None and size > max(limits.ratio_floor, limits.ratio * packed):
        return f"would unpack {packed} bytes to {size}"
    return None


def _directory_members(path: Path, _: ArchiveLimits) -> Iterator[Member]:
    root = path.resolve()
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *files]:
            full = Path(folder, name)
            problem = _link_problem(full, root) if full.is_symlink() else None
            if name in folders and not problem or name.startswith("."):
                continue
            if not problem and not full.is_file():
                problem = "is neither a file nor a directory"
            size = 0 if problem else full.stat().st_size
            yield Member(full.relative_to(path).as_posix(), size, problem=problem)


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
        with (path / name).open("rb") as file:
            yield name, _read_bounded(file, path / name, limits)


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
                with archive.open(info) as file:
                    yield name, _read_bounded(file, f"{path}: {name}", limits)


class _BoundedReads:
    """Refuse one huge read: a tar header may claim any length for its own extension."""

    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self._stream, self._path, self._limit = stream, path, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._limit:
            raise InputError(f"{self._path} is refused: it has a header of {size} bytes.")
        return self._stream.read(size)


@contextmanager
def _open_tar(path: Path, limits: ArchiveLimits) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((f for magic, f in DECOMPRESSORS.items() if head.startswith(magic)), open)
    with opener(path, "rb") as stream:
        bounded: Any = _BoundedReads(stream, path, limits.member_bytes + tarfile.BLOCKSIZE)
        with tarfile.TarFile(fileobj=bounded) as archive:
            yield archive


def _tar_members(path: Path, limits: ArchiveLimits) -> Iterator[Member]:
    with _open_tar(path, limits) as archive:
        for info in archive:
            problem = None
            if info.issym() or info.islnk():
                problem = "is a link"
            elif not (info.isfile() or info.isdir()) or info.issparse():
                problem = "is a device or of an unusual kind"
            yield Member(info.name, info.size, None, problem, info.isdir())


def _tar_contents(
    path: Path, wanted: set[str], limits: ArchiveLimits
) -> Iterator[tuple[str, bytes]]:
    with _open_tar(path, limits) as archive:
        for info in archive:
            name = clean_name(info.name)
            file = archive.extractfile(info) if name in wanted and info.isfile() else None
            if file is not None:
                yield name, _read_bounded(file, f"{path}: {name}", limits)


MEMBERS = {"directory": _directory_members, "zip": _zip_members, "tar": _tar_members}
CONTENTS = {"directory": _directory_contents, "zip": _zip_contents, "tar": _tar_contents}
