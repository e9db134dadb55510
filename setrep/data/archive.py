"""Read-only access to the files of a directory, a zip or a tar, trusting none of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from setrep.data.archive_kinds import (
    BROKEN,
    CONTENTS,
    MEMBERS,
    ArchiveLimits,
    Member,
    clean_name,
    one_line,
)
from setrep.errors import InputError

HIDDEN = re.compile(r"(?:^|/)(?:\.|__MACOSX)")
ABSOLUTE = re.compile(r"/|[A-Za-z]:")
UNFIT = re.compile(r"[\x00-\x1f\\]")


@dataclass(frozen=True)
class Archive:
    """Name the files of a directory, a zip or a tar, and read them where they are.

    Each reading opens and closes the file, so an archive may cross threads and processes.
    """

    path: Path
    kind: Literal["directory", "zip", "tar"]
    names: tuple[str, ...]
    limits: ArchiveLimits

    @property
    def title(self) -> str:
        """Last part of the path, also when that is `.`."""
        return os.path.basename(os.path.abspath(self.path))

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents, of those that are there, in the order in which they are stored.

        Raises:
            InputError: a file is damaged, or grew since it was listed.
        """
        wanted = set(self.names).intersection(names)
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
        # Names of a directory may be no UTF-8; Python has those bytes as surrogates.
        digest.update("\0".join(chosen).encode(errors="surrogateescape"))
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
        names = admit(path, MEMBERS[kind](path, limits), limits)
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(
            f"{path} is not a whole zip or tar archive, nor a directory ({one_line(error)})."
        ) from error
    return Archive(path, kind, tuple(sorted(names)), limits)


def _kind(path: Path) -> Literal["directory", "zip", "tar"]:
    if path.is_dir():
        return "directory"
    if not path.exists():
        raise InputError(f"There is no file or directory {path}.")
    with path.open("rb") as file:
        return "zip" if file.read(2) == b"PK" else "tar"


def admit(path: Path, members: Iterable[Member], limits: ArchiveLimits) -> list[str]:
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
            raise InputError(f"{path} is refused: its member {_shown(member.name)} {problem}.")
        if count > limits.num_members:
            raise InputError(f"{path} is refused: it has over {limits.num_members} members.")
        is_bomb = total > max(limits.ratio_floor, limits.ratio * packed)
        if total > limits.total_bytes or is_bomb:
            raise InputError(
                f"{path} is refused: its {packed} bytes would unpack to more than {total} bytes."
            )
        name = clean_name(member.name)
        if member.is_directory or HIDDEN.search(name):
            continue
        if name in names:
            raise InputError(f"{path} is refused: it has two members named {_shown(name)}.")
        names.add(name)
    return list(names)


def _shown(name: str) -> str:
    """Quote a name, long ones cut, so that it cannot break the line of a message."""
    return repr(name if len(name) <= 200 else f"{name[:200]}...")


def _name_problem(name: str) -> str | None:
    if ABSOLUTE.match(name):
        return "has an absolute name"
    if UNFIT.search(name):
        return "has a backslash or a control character in its name"
    return "would land outside" if ".." in name.split("/") else None


def _size_problem(size: int, packed: int | None, limits: ArchiveLimits) -> str | None:
    if size > limits.member_bytes:
        return f"has {size} bytes, more than the {limits.member_bytes} allowed"
    if packed is not None and size > max(limits.ratio_floor, limits.ratio * packed):
        return f"would unpack {packed} bytes to {size}"
    return None
