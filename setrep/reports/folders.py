"""Collections of image files in directories, and what is wrong with those that cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from setrep.data.images import IMAGE_SUFFIXES
from setrep.errors import InputError


@dataclass(frozen=True)
class Folder:
    """The image files of one collection: `files` are relative to the directory read."""

    id: str
    label: str | None
    files: tuple[str, ...]
    stamp: str  # changes when a file does


@contextmanager
def refusing_files() -> Iterator[None]:
    """Say in one line which file the system refuses, whatever was to be done with it.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except BrokenPipeError:  # a reader of our output that left, which is no mistake
        raise
    except OSError as error:
        which = "" if error.filename is None else f" with {error.filename}"
        raise InputError(f"Cannot go on{which}: {error.strerror or error}.") from error
    except (ValueError, RuntimeError) as error:
        said = str(error)
        if "embedded null" not in said and "Symlink loop" not in said:  # the latter before 3.13
            raise
        raise InputError(f"No file can have a name that was given: {said}.") from error


def read_folders(directory: str | Path, *, labelled: bool = False) -> list[Folder]:
    """Find collections in `directory/<collection>/*`, or `<label>/<collection>/*` when labelled.

    A collection's id is its path below `directory`.

    Raises:
        InputError: there is no such directory, or it holds no such collections.
    """
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root} is not a directory of collections of images.")
    found = [
        folder_of(root, place, files, labelled)
        for place in sorted(root.glob("*/*" if labelled else "*"))
        if place.is_dir() and (files := images_in(place))
    ]
    if found:
        return found
    layout = "<label>/<collection>/*" if labelled else "<collection>/*"
    raise InputError(f"Found no images in {root}/{layout}.{hint(root, labelled)}")


def folder_of(root: Path, place: Path, files: Sequence[Path], labelled: bool) -> Folder:
    """Describe the collection of some files."""
    name = place.relative_to(root).as_posix()
    stats = [(file.name, *state_of(file)) for file in files]
    stamp = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    label = Path(name).parts[0] if labelled else None
    return Folder(name, label, tuple(f.relative_to(root).as_posix() for f in files), stamp)


def state_of(file: Path) -> tuple[int, int, int, int]:
    """Return what differs when a file was written or replaced, whatever time it claims."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def hint(root: Path, labelled: bool) -> str:
    """Say where the images are instead, if they are near."""
    if any(images_in(place) for place in root.glob("*") if place.is_dir()):
        return " Images lie one directory deep: leave out --labelled." if labelled else ""
    if any(images_in(place) for place in root.glob("*/*") if place.is_dir()):
        return " Images lie two directories deep: use --labelled for <label>/<collection>/*."
    if images_in(root):
        return f" They lie in {root} itself: put those of each collection in a directory."
    return f" Known are {', '.join(IMAGE_SUFFIXES)}."


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, and those of named directories.

    Raises:
        InputError: a path is not there, or there are no images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += images_in(path)
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"There is no file {path}.")
    if not files:
        raise InputError(f"Found no images in {', '.join(map(str, paths))}.")
    return files


def images_in(directory: Path) -> list[Path]:
    """Return the image files in a directory, by name, hidden ones left out."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def root_of(name: str | None) -> Path:
    """Return the directory that an index names, links followed; the current one for none."""
    return Path(os.path.realpath(name or "."))


def below(root: str | None, name: str) -> Path | None:
    """Return the file of a name relative to a directory, links followed; none if it is outside."""
    directory = root_of(root)
    try:
        place = Path(os.path.realpath(directory / name))
    except ValueError:  # no file has such a name, as whoever opens it will find
        return directory / name
    return place if place.is_relative_to(directory) else None
