"""Small indexes of collections, with a set encoder and without."""

from __future__ import annotations

import numpy as np
import torch

from setrep.aggregators import CentroidAggregator
from setrep.config import AggregatorConfig, EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.retrieval import CollectionIndex
from setrep.set_encoder import SetEncoder

VECTOR = ItemFormat("vector", 3, 1)


def make_encoder(scale: float = 1.0, name: str = "identity") -> SetEncoder:
    config = EncoderConfig(name=name, projection="linear", projection_dim=3, normalize=False)
    encoder = build_encoder(config, VECTOR)
    with torch.no_grad():
        encoder.projection.weight.copy_(scale * torch.eye(3))
        encoder.projection.bias.zero_()
    return SetEncoder(
        encoder,
        CentroidAggregator(3),
        item_format=VECTOR,
        encoder_config=config,
        aggregator_config=AggregatorConfig(),
    )


def make_index(seed: int = 0, count: int = 6, dim: int = 3) -> CollectionIndex:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    metadata = [{"seed": seed, "place": place} for place in range(count)]
    return CollectionIndex.from_embeddings(
        vectors, [f"id {i}" for i in range(count)], list(range(count)), metadata
    )


def make_full_index(scale: float = 1.0) -> CollectionIndex:
    collections = [torch.eye(3)[:2], 5 + torch.eye(3), torch.full((4, 3), -3.0)]
    return CollectionIndex.build(make_encoder(scale), collections, ["a", "b", 3], ["x", "y", None])
