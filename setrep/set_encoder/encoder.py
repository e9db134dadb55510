"""The set encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from setrep import __version__
from setrep.aggregators import Aggregator, build_aggregator
from setrep.collection import CollectionBatch
from setrep.config import AggregatorConfig, EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import ItemEncoder, build_encoder
from setrep.errors import InputError
from setrep.set_encoder.files import read_description, read_weights, serialise, write_model
from setrep.set_encoder.items import Array, Item, is_item, read_items

# What building a model from settings raises that do not fit; InputError is a ValueError.
UNFIT = (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError)


class SetEncoder(nn.Module):
    """Embed items, and collections of items of any size.

    An item is an array of the shape that `item_format` names (of an image: bytes, or floats in
    [0, 1]), or an image: a path, the content of a file, or a PIL image.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        *,
        item_format: ItemFormat,
        encoder_config: EncoderConfig,
        aggregator_config: AggregatorConfig,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.aggregator = aggregator
        self.item_format = item_format
        self.encoder_config = encoder_config
        self.aggregator_config = aggregator_config
        self.metadata = {} if metadata is None else metadata
        self.dim = encoder.dim
        self.dim_out = aggregator.dim_out

    def forward(self, batch: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Embed a batch of collections of items, with gradients and in the module's own mode."""
        out: Tensor = self.aggregator(batch.with_values(self.encoder(batch.values)))
        return out

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU where there are none."""
        return next((x.device for x in self.state_dict().values()), torch.device("cpu"))

    def encode(
        self,
        items: Array | Sequence[Item] | Item,
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
    ) -> Float[Tensor, "*n dim"]:
        """Embed items in evaluation mode, without gradients; float32, on the CPU.

        One item gives one vector. Images are decoded `batch_size` at a time. `device` moves the
        model there, for good.

        Raises:
            InputError: an item is not of the model's format, not finite, or not a whole image.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}.")
        is_single = self.is_item(items)
        pool: Any = [items] if is_single else items
        if not isinstance(pool, Tensor | np.ndarray | Sequence):
            raise InputError(f"Items must be an array or a list, not {type(items).__name__}.")
        if device is not None:
            self.to(device)
        embeddings = torch.zeros(len(pool), self.dim)
        with self._evaluating():
            for start in range(0, len(pool), batch_size):
                part = slice(start, start + batch_size)
                batch = read_items(pool[part], self.item_format)
                embeddings[part] = self.encoder(batch.to(self.device)).float().cpu()
        return embeddings[0] if is_single else embeddings

    @overload
    def encode_collections(
        self,
        collections: CollectionBatch | Sequence[Array | Sequence[Item]],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        return_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def encode_collections(
        self,
        collections: CollectionBatch | Sequence[Array | Sequence[Item]],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        return_weights: Literal[True],
    ) -> tuple[Tensor, CollectionBatch]: ...

    def encode_collections(
        self,
        collections: CollectionBatch | Sequence[Array | Sequence[Item]],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        return_weights: bool = False,
    ) -> Float[Tensor, "collection dim_out"] | tuple[Tensor, CollectionBatch]:
        """Embed collections: a list of arrays or of lists of items, or a batch; as `encode`.

        With `return_weights`, return as well how much each item counted in its collection: values
        of shape (item, head), each head summing to 1 over a collection.

        Raises:
            InputError: a collection is empty or one bare item, `encode` refuses an item, or the
                aggregator has no weights.
        """
        batch = self.encode_members(collections, batch_size=batch_size, device=device)
        if not return_weights:
            return self.aggregate(batch)
        with self._evaluating():
            out, weights = self.aggregator(batch.to(self.device), return_weights=True)
        return out.float().cpu(), batch.with_values(weights.float().cpu())

    def encode_members(
        self,
        collections: CollectionBatch | Sequence[Array | Sequence[Item]],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
    ) -> CollectionBatch:
        """Embed the items of collections, `(item, dim)`; as `encode_collections`.

        Raises:
            InputError: a collection is empty or one bare item, or `encode` refuses an item.
        """
        if isinstance(collections, CollectionBatch):
            embeddings = self.encode(collections.values, batch_size=batch_size, device=device)
            return CollectionBatch(embeddings, collections.offsets.cpu(), collections.allow_empty)
        self.check_collections(collections)
        items = [item for collection in collections for item in collection]
        sizes = [len(collection) for collection in collections]
        embeddings = self.encode(items, batch_size=batch_size, device=device)
        return CollectionBatch(embeddings, torch.tensor([0, *sizes]).cumsum(0))

    def aggregate(self, embeddings: CollectionBatch) -> Float[Tensor, "collection dim_out"]:
        """Embed collections whose items are embedded, in evaluation mode; float32, on the CPU.

        Raises:
            InputError: the embeddings are not of dimension `dim`.
        """
        if embeddings.values.shape[1:] != (self.dim,):
            raise InputError(
                f"The model aggregates embeddings of dimension {self.dim}; found items of shape "
                f"{tuple(embeddings.values.shape[1:])}."
            )
        with self._evaluating():
            out: Tensor = self.aggregator(embeddings.to(self.device))
        return out.float().cpu()

    def is_item(self, candidate: object) -> bool:
        """Say whether this is one item, and not several."""
        return is_item(candidate, self.item_format)

    def check_collections(self, collections: Any) -> None:
        """Refuse what is not a list of collections.

        Raises:
            InputError: it is not.
        """
        if not isinstance(collections, Sequence) or self.is_item(collections):
            raise InputError(
                f"Collections must be a list of them or a CollectionBatch, "
                f"not {type(collections).__name__}."
            )
        if not collections:
            raise InputError("There is no collection to embed: the list is empty.")
        for place, collection in enumerate(collections):
            if self.is_item(collection):
                raise InputError(f"Collection {place} is one item; put it in a list.")
            if not isinstance(collection, Tensor | np.ndarray | Sequence):
                kind = type(collection).__name__
                raise InputError(f"Collection {place} must be an array or a list, not {kind}.")
            if len(collection) == 0:
                raise InputError(f"Collection {place} is empty; leave it out.")

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Put every module in evaluation mode without gradients, and back as each was."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, is_training in modes:
                module.training = is_training

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file of weights, which holds the settings of encoder and items, too."""
        return hashlib.sha256(serialise(self.state_dict(), self._settings())).hexdigest()

    def _settings(self) -> dict[str, Any]:
        """Return what decides, with the weights, every embedding."""
        asked = self.aggregator_config
        return {
            "encoder": self.encoder_config.model_dump(mode="json"),
            # Without what is left at its default, so that an option added later changes no model.
            "aggregator": {"name": asked.name}
            | asked.model_dump(mode="json", exclude_defaults=True),
            "item_format": asdict(self.item_format),
        }

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `model.safetensors` and `model.json`.

        Raises:
            InputError: the directory cannot be written, or the metadata are not JSON.
        """
        extra = {
            "class": type(self).__name__,
            "encoder_class": type(self.encoder).__name__,
            "aggregator_class": type(self.aggregator).__name__,
            "dim": self.dim,
            "dim_out": self.dim_out,
            "metadata": self.metadata,
        }
        settings = self._settings()
        write_model(Path(directory), serialise(self.state_dict(), settings), settings, extra)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> SetEncoder:
        """Read what `save_pretrained` wrote, in evaluation mode, on the CPU.

        Raises:
            InputError: a file is missing, damaged, of another schema or of another model.
        """
        folder = Path(directory)
        description = read_description(folder)
        state = read_weights(folder, description)
        unknown = f"{folder} holds a model that setrep {__version__} cannot build"
        try:
            model = cls._build(description)
            model.load_state_dict(state)
        except UNFIT as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{unknown}: {reason}") from error
        return model.eval()

    @classmethod
    def _build(cls, description: dict[str, Any]) -> SetEncoder:
        """Build the described model with arbitrary weights."""
        item_format = ItemFormat(**description["item_format"])
        config = EncoderConfig.model_validate(description["encoder"])
        named = description["aggregator"]
        if not isinstance(named, str | dict):
            raise InputError(f"its aggregator is no name but {type(named).__name__}.")
        asked = AggregatorConfig.model_validate(named)
        metadata = description.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise InputError(f"its metadata are no mapping but {type(metadata).__name__}.")
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            encoder = build_encoder(config, item_format)
            aggregator = build_aggregator(
                asked.name, encoder.dim, normalize=asked.normalize, **asked.options
            )
        return cls(
            encoder,
            aggregator,
            item_format=item_format,
            encoder_config=config,
            aggregator_config=asked,
            metadata=metadata,
        )
