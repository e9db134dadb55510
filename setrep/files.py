"""Files replaced as a whole: a reader or a kill finds the old ones or the new."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from setrep.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside `path`, force it to disk, and move it into place.

    Raises:
        InputError: the directory cannot be written or the disk is full; `path` is untouched.
    """
    replace_files(path.parent, {path.name: content})


def replace_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files under other names, force them to disk, then move them into place, in order.

    Raises:
        InputError: the directory cannot be written or the disk is full.
    """
    staged = {name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            path = folder / name
            sweep(folder, f".{name}.", ".tmp")
            with staged[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, temporary in staged.items():
            path = folder / name
            temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror}. What was there before is unchanged; "
            f"free some space or choose another directory."
        ) from error
    finally:
        for temporary in staged.values():
            if temporary.is_file():
                temporary.unlink()


def refuse_unwritable(folder: Path) -> None:
    """Try whether files can be written to a directory, before work is done for them.

    Raises:
        InputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"Cannot write to {folder}: {error.strerror}. Choose another directory."
        ) from error


def sweep(folder: Path, prefix: str, suffix: str = "") -> None:
    """Remove what processes left that were killed while they wrote: `prefix`, their number, ..."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d{{1,9}})(?:-\w+)?{re.escape(suffix)}")
    for path in folder.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or is_running(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Say whether a process of this number runs here; where that cannot be asked, it may."""
    if os.name != "posix":  # elsewhere the question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
