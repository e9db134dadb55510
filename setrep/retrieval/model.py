"""The set encoder of an index, as files that are kept with it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from setrep import __version__
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from setrep.index.engine import Engine
from setrep.index.manifest import DAMAGE
from setrep.set_encoder import SetEncoder

DESCRIPTION = "index.json"
MODEL_FILES = ("model.safetensors", "model.json")
SCHEMA = 1

Vectors = Float[NDArray[np.float32], "collection dim"]


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

    def check(self, fingerprint: str | None) -> None:
        """Refuse vectors of another model.

        Raises:
            InputError: they are.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"The vectors are of model {fingerprint}, but the index holds vectors of model "
                f"{self.fingerprint}: embed with that model and pass its fingerprint."
            )


class ModelGuard:
    """Tells whether a set encoder is still the one that embedded an index.

    Its fingerprint is worked out when it is another object, or the bits of a weight add up to
    something else; PyTorch's own count of changes leaves out those through `weight.data`.
    """

    def __init__(self, fingerprint: str | None) -> None:
        self.fingerprint = fingerprint
        self._seen: tuple[int, ...] = ()

    def check(self, set_encoder: SetEncoder) -> None:
        """Refuse another set encoder, and one that was trained on since.

        Raises:
            InputError: it is.
        """
        sums = (sum_of_bits(weight) for weight in set_encoder.state_dict().values())
        seen = (id(set_encoder), *sums)
        if seen != self._seen and set_encoder.fingerprint != self.fingerprint:
            raise InputError(
                "The set encoder has changed since it embedded this index: build it anew."
            )
        self._seen = seen


def sum_of_bits(values: Tensor) -> int:
    """Add up the bits of a tensor as integers of its own width."""
    widths = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = values.detach().contiguous().reshape(-1).view(widths[values.element_size()])
    return int(bits.sum(dtype=torch.int64))


def holds_centroids(set_encoder: SetEncoder | None) -> bool:
    """Say whether its embeddings of collections are the means of their members', untouched."""
    if set_encoder is None:
        return False
    config = set_encoder.aggregator_config
    return config.name == "centroid" and not config.normalize


def aggregate(set_encoder: SetEncoder, members: CollectionBatch) -> Vectors:
    """Embed collections whose items are embedded, centroids to the last digit.

    Raises:
        InputError: one is empty, or the items are of another dimension.
    """
    if bool((members.sizes == 0).any()):
        place = int((members.sizes == 0).nonzero()[0])
        raise InputError(f"Collection {place} is empty; leave it out.")
    if holds_centroids(set_encoder):  # whose distances bounds are asked of
        members = members.with_values(members.values.double())
    return set_encoder.aggregate(members).numpy()


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
    origin = read_origin(engine, address)
    if engine.metric != "euclidean":
        raise InputError(f"The index {address} has scores of another kind: build it again.")
    if origin.encoder_fingerprint is None:
        return origin, None
    with tempfile.TemporaryDirectory() as folder:
        for name in MODEL_FILES:
            Path(folder, name).write_bytes(engine.attachment(name))
        set_encoder = SetEncoder.from_pretrained(folder)
    dims = set_encoder.dim_out, set_encoder.dim
    is_its = set_encoder.fingerprint == origin.encoder_fingerprint
    if not is_its or dims != (engine.dim, engine.member_dim):
        raise InputError(f"{address} names another model than the index holds: build it again.")
    return origin, set_encoder


def read_origin(engine: Engine, address: str) -> Origin:
    """Read where the vectors of an index are from.

    Raises:
        InputError: the engine holds another kind of index, of another schema, or damaged.
    """
    try:
        content = json.loads(engine.attachment(DESCRIPTION))
        schema, _ = content.pop("schema"), content.pop("setrep_version")
        origin = Origin(**content) if schema == SCHEMA else None
    except InputError as error:
        raise InputError(f"{address} holds no index of collections: {error}") from error
    except DAMAGE as error:
        raise InputError(f"The index {address} is damaged: build it again.") from error
    if origin is None:
        raise InputError(
            f"The index {address} is of another schema than {SCHEMA}, which setrep {__version__} "
            f"reads: build it again."
        )
    if not all(value is None or isinstance(value, str) for value in asdict(origin).values()):
        raise InputError(f"The index {address} is damaged: build it again.")
    return origin
