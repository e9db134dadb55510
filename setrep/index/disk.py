"""Files and directories forced to disk, their checksums, and locks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from setrep.errors import InputError


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
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
