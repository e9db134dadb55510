"""Engines by their address: `faiss:DIR`, `milvus:FILE` or `milvus:http://HOST:PORT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from setrep.errors import InputError, nearest
from setrep.index.directory import DirectoryEngine
from setrep.index.engine import Engine
from setrep.index.metric import Metric
from setrep.index.milvus import MilvusEngine

SCHEMES = ("faiss", "milvus")


def open_engine(address: str | Path) -> Engine:
    """Open an engine; a bare path is a directory.

    `milvus:...#NAME` names the index among others of one server or file, `setrep` without.

    Raises:
        InputError: the address is of no engine, or there is no index.
    """
    scheme, place, name = parse(address)
    return DirectoryEngine.open(place) if scheme == "faiss" else MilvusEngine.open(place, name)


def create_engine(
    address: str | Path,
    dim: int,
    member_dim: int,
    metric: Metric = "euclidean",
    attachments: Mapping[str, bytes] | None = None,
) -> Engine:
    """Begin an empty index at an address, with files that stay as they are.

    Raises:
        InputError: the address is of no engine, or there is something already.
    """
    scheme, place, name = parse(address)
    if scheme == "faiss":
        return DirectoryEngine.create(place, dim, member_dim, metric, attachments)
    return MilvusEngine.create(place, dim, member_dim, metric, attachments, name=name)


def address_of(scheme: str, place: str, name: str) -> str:
    """Return the address of what `parse` returns."""
    return f"{scheme}:{place}" + (f"#{name}" if name else "")


def parse(address: str | Path) -> tuple[str, str, str]:
    """Return the scheme of an address, its place, and the name of the index there."""
    if isinstance(address, Path):
        return "faiss", str(address), ""
    scheme, colon, place = address.partition(":")
    if not colon or Path(address).is_absolute() or (len(scheme) == 1 and scheme.isalpha()):
        return "faiss", address, ""  # one letter is a drive
    if scheme not in SCHEMES:
        raise InputError(
            f"Unknown engine '{scheme}' in {address}.{nearest(scheme, SCHEMES)} "
            f"Use faiss:DIR or milvus:URI."
        )
    if not place:
        raise InputError(f"'{address}' names no place; use faiss:DIR or milvus:URI.")
    if scheme == "faiss":
        return scheme, place, ""
    place, _, name = place.partition("#")
    return scheme, place, name or "setrep"
