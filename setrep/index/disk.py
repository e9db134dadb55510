"""Files and directories forced to disk, their checksums, and locks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from setrep.errors import InputError


def write(path: Path, *contents: bytes | memoryview) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
        for content in contents:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Force the names in a directory to disk, where the system can."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """A lock on a file, held until it is closed, or its process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another process holds it.
        """
        self._path, self._process = path, os.getpid()
        self._file = path.open("ab")
        if os.name != "posix":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(
                f"Another process is writing to {path.parent}; wait until it is done."
            ) from error

    @property
    def is_held(self) -> bool:
        """Whether it keeps others out: of the file that is there now, and taken by this process.

        A process that was forked off has the file of its parent, and not its lock.
        """
        try:
            is_there = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False
        return is_there and self._process == os.getpid()

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
