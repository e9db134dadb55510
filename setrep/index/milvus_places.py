"""Where an index of Milvus is, and how one comes into the place of another: by names alone."""

from __future__ import annotations

from setrep.errors import InputError
from setrep.index.milvus_client import Client, connect, is_missing


def exists(uri: str, name: str) -> bool:
    """Say whether there is an index of a name.

    Raises:
        InputError: Milvus is not installed or cannot be reached.
    """
    if is_missing(uri):
        return False
    _, client = connect(uri)
    try:
        return bool(client.has_collection(name) or client.has_collection(aside_of(name)))
    finally:
        client.close()


def refuse(uri: str, name: str) -> None:
    """Refuse a name that is of something else than an index.

    Raises:
        InputError: it is, or Milvus is not installed or cannot be reached.
    """
    if is_missing(uri):
        return
    _, client = connect(uri)
    try:
        if client.has_collection(name):
            refuse_foreign(client, name)
    finally:
        client.close()


def publish(uri: str, built: str, name: str) -> None:
    """Give the index `built` another name, in place of one that has it.

    Raises:
        InputError: Milvus is not installed or cannot be reached.
    """
    _, client = connect(uri)
    old = aside_of(name)
    try:
        if client.has_collection(name):
            refuse_foreign(client, name)
            drop_all(client, old)
            client.rename_collection(name, old)
        client.rename_collection(built, name)
        drop_all(client, old)
    finally:
        client.close()


def drop(uri: str, name: str) -> None:
    """Remove an index, if there is one.

    Raises:
        InputError: Milvus is not installed or cannot be reached.
    """
    if is_missing(uri):
        return
    _, client = connect(uri)
    try:
        drop_all(client, name)
    finally:
        client.close()


def aside_of(name: str) -> str:
    """Return the name that an old index has while a new one takes its place."""
    return f"{name}_replaced_by_setrep"


def refuse_foreign(client: Client, name: str) -> None:
    """Refuse a collection that is no index.

    Raises:
        InputError: it is not.
    """
    if "setrep.members" not in client.describe_collection(name).get("properties", {}):
        raise InputError(f"Milvus has a collection '{name}' that is no index; choose another name.")


def drop_all(client: Client, name: str) -> None:
    """Remove the collections of an index, the one that names the others last."""
    if client.has_collection(name):
        refuse_foreign(client, name)
        settings = client.describe_collection(name)["properties"]
        for one in (settings["setrep.members"], settings["setrep.files"], name):
            client.drop_collection(one)
