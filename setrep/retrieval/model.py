"""The set encoder of an index, as files that are kept with it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from setrep import __version__
from setrep.errors import InputError
from setrep.index.engine import Engine
from setrep.set_encoder import SetEncoder

DESCRIPTION = "index.json"
MODEL_FILES = ("model.safetensors", "model.json")
SCHEMA = 1


@dataclass(frozen=True)
class Origin:
    """Where the vectors of an index are from.

    Attributes:
        fingerprint: of the model that made them; none where that is not known.
        encoder_fingerprint: of the set encoder in the index; none where there is none.
        root: the directory that names of items are relative to; none where they are not.
    """

    fingerprint: str | None = None
    encoder_fingerprint: str | None = None
    root: str | None = None


def to_attachments(origin: Origin, set_encoder: SetEncoder | None) -> dict[str, bytes]:
    """Return the files of a model and of where the vectors are from.

    Raises:
        InputError: the set encoder is another than the one that embedded the index.
    """
    content = {"schema": SCHEMA, "setrep_version": __version__, **asdict(origin)}
    files = {DESCRIPTION: (json.dumps(content, indent=2) + "\n").encode()}
    if set_encoder is None:
        return files
    if set_encoder.fingerprint != origin.encoder_fingerprint:
        raise InputError("The set encoder has changed since it embedded this index: build it anew.")
    with tempfile.TemporaryDirectory() as folder:
        set_encoder.save_pretrained(folder)
        return files | {name: Path(folder, name).read_bytes() for name in MODEL_FILES}


def from_attachments(engine: Engine, address: str) -> tuple[Origin, SetEncoder | None]:
    """Read where the vectors of an index are from, and its set encoder.

    Raises:
        InputError: the engine holds another kind of index, of another schema, or damaged files.
    """
    try:
        content = json.loads(engine.attachment(DESCRIPTION))
    except InputError as error:
        raise InputError(f"{address} holds no index of collections: {error}") from error
    if content.pop("schema") != SCHEMA:
        raise InputError(
            f"The index {address} is of another schema than {SCHEMA}, which setrep {__version__} "
            f"reads: build it again."
        )
    content.pop("setrep_version")
    origin = Origin(**content)
    if origin.encoder_fingerprint is None:
        return origin, None
    with tempfile.TemporaryDirectory() as folder:
        for name in MODEL_FILES:
            Path(folder, name).write_bytes(engine.attachment(name))
        set_encoder = SetEncoder.from_pretrained(folder)
    if set_encoder.fingerprint != origin.encoder_fingerprint:
        raise InputError(f"{address} names another model than the index holds: build it again.")
    return origin, set_encoder
