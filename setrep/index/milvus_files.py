"""Files in a collection of Milvus, cut into rows of text, since that is what a row can hold."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from setrep.errors import InputError
from setrep.index.milvus_client import Client

PIECE = 48_000  # bytes, which base64 makes 64,000 characters of; Milvus takes 65,535
PIECES_AT_ONCE = 100  # a message to a server holds some 64 MB
FILE_DIM = 2  # Milvus makes no collection without vectors; these say nothing
FILE_FIELDS: dict[str, Any] = {
    "key": {"max_length": 256},
    "file": {"max_length": 200},
    "place": None,
    "text": {"max_length": 65_535},
    "sha256": {"max_length": 64},
}


def write_file(client: Client, collection: str, name: str, content: bytes) -> None:
    """Write a file of a name that is not taken, its first piece last: before that it is none."""
    sha256 = hashlib.sha256(content).hexdigest()
    rows = [
        {
            "key": f"{name}-{place}",
            "file": name,
            "place": place,
            "text": base64.b64encode(content[start : start + PIECE]).decode(),
            "sha256": sha256,
            "vector": [0.0] * FILE_DIM,
        }
        for place, start in enumerate(range(0, max(len(content), 1), PIECE))
    ]
    for start in range(len(rows) - 1, -1, -PIECES_AT_ONCE):
        client.insert(collection, rows[max(0, start - PIECES_AT_ONCE + 1) : start + 1])


def read_file(client: Client, collection: str, name: str) -> bytes | None:
    """Read a file, or none where there is none.

    Raises:
        InputError: it is damaged.
    """
    rows: list[dict[str, Any]] = []
    while True:
        keys = [f"{name}-{len(rows) + i}" for i in range(PIECES_AT_ONCE)]
        found = client.query(collection, ids=keys, output_fields=["place", "text", "sha256"])
        rows += found
        if len(found) < PIECES_AT_ONCE:
            break
    if not rows:
        return None
    rows.sort(key=lambda row: int(row["place"]))
    content = b"".join(base64.b64decode(row["text"]) for row in rows)
    if hashlib.sha256(content).hexdigest() != rows[0]["sha256"]:
        raise InputError(f"The file {name} in Milvus is damaged: build the index again.")
    return content


def delete_file(client: Client, collection: str, name: str) -> None:
    """Remove a file, if there is one."""
    client.delete(collection, filter=f'file == "{name}"')
