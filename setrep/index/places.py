"""Where an index is built before it is at its address, and how it comes there in one move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from setrep.errors import InputError
from setrep.index import milvus_places
from setrep.index.disk import Lock, sync_directory
from setrep.index.door import address_of, parse
from setrep.index.manifest import MANIFEST, aside_of, is_index
from setrep.index.segments import LOCK


def exists(address: str | Path) -> bool:
    """Say whether an index can be opened at an address."""
    scheme, place, name = parse(address)
    if scheme == "milvus":
        return milvus_places.exists(place, name)
    return is_index(Path(place)) or (not Path(place).exists() and is_index(aside_of(Path(place))))


def building(address: str | Path) -> str:
    """Return the address, beside this one, at which the index is built."""
    scheme, place, name = parse(address)
    if scheme == "milvus":
        return address_of(scheme, place, f"{name}_building")
    target = Path(place).resolve()
    return address_of(scheme, str(target.with_name(f".{target.name}.setrep-building")), "")


def absolute(address: str | Path) -> str:
    """Return the address that stays of this place, wherever the process goes."""
    scheme, place, name = parse(address)
    if "://" in place:
        return str(address)
    whole = str(Path(place).absolute())
    return whole if str(address) == place else address_of(scheme, whole, name)


def is_same(one: str | Path, other: str | Path) -> bool:
    """Say whether two addresses are of one place."""
    (scheme, place, name), right = parse(one), parse(other)
    if scheme != right[0]:
        return False
    return (Path(place).resolve(), name) == (Path(right[1]).resolve(), right[2])


def refuse(address: str | Path) -> None:
    """Refuse an address that holds anything but an index, before work is done for it.

    Raises:
        InputError: it does.
    """
    scheme, place, name = parse(address)
    if scheme == "milvus":
        milvus_places.refuse(place, name)
    else:
        refuse_to_replace(Path(place).resolve())


@contextmanager
def replacing(address: str | Path) -> Iterator[str]:
    """Say where to build an index, and put it at `address` when it is built and closed.

    Raises:
        InputError: there is something else than an index, or it cannot be put there.
    """
    refuse(address)
    built = building(address)
    discard(built)
    try:
        yield built
    except BaseException:
        with suppress(InputError):
            discard(built)
        raise
    publish(built, address)


def discard(address: str | Path) -> None:
    """Remove what was built at an address, whole or not, if there is something.

    Raises:
        InputError: another process is writing there, or it cannot be removed.
    """
    scheme, place, name = parse(address)
    if scheme == "milvus":
        milvus_places.drop(place, name)
        return
    folder = Path(place)
    try:
        if folder.exists():
            with Lock(folder / LOCK):
                remove_index(folder)
    except OSError as error:
        raise InputError(f"Cannot remove {folder}: {error.strerror}.") from error


def publish(built: str | Path, address: str | Path) -> None:
    """Put an index that was built, and closed, at its address, in place of one that is there.

    Raises:
        InputError: there is something else than an index, a process is writing to the old one, or
            it cannot be moved.
    """
    scheme, place, name = parse(address)
    _, built_place, built_name = parse(built)
    if scheme == "milvus":
        milvus_places.publish(place, built_name, name)
        return
    target = Path(place).resolve()
    refuse_to_replace(target)
    try:
        with Lock(target / LOCK) if is_index(target) else nullcontext():
            move_into_place(Path(built_place), target)
    except OSError as error:
        raise InputError(
            f"Cannot put the index at {target}: {error.strerror}. It is whole at {built_place}."
        ) from error


def move_into_place(staged: Path, target: Path) -> None:
    """Put `staged` in place of `target`; killed in between, the old index is still found aside."""
    aside = aside_of(target)
    if not is_index(target):
        if is_index(aside):  # left by a kill between the two moves below
            aside.rename(target)
        else:
            staged.rename(target)  # also onto an empty directory
            sync_directory(target.parent)
            return
    remove_index(aside)
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        aside.rename(target)
        raise
    sync_directory(target.parent)
    with suppress(OSError):  # the new index is there, whatever is left of the old
        remove_index(aside)


def remove_index(folder: Path) -> None:
    """Remove an index that is no longer needed, manifest first: what is half removed is none."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def refuse_to_replace(target: Path) -> None:
    """Refuse a path that holds anything but an index.

    Raises:
        InputError: it does.
    """
    if not target.exists() or is_index(target):
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise InputError(
        f"{target} exists and is not an index of setrep; nothing was changed. "
        f"Choose another directory or remove that one."
    )
