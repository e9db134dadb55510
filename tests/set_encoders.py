"""Small set encoders of images and of vectors, and images for them."""

from __future__ import annotations

import pytest
import torch

from setrep.aggregators import CentroidAggregator
from setrep.config import AggregatorConfig, EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.set_encoder import SetEncoder

IMAGE = ItemFormat("image", 1, 8, is_inverted=True)
VECTOR = ItemFormat("vector", 5, 1)


def make_encoder(
    item_format: ItemFormat = IMAGE, *, name: str = "mlp", seed: int = 0, **config
) -> SetEncoder:
    encoder_config = EncoderConfig(name=name, projection_dim=4, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(encoder_config, item_format)
    return SetEncoder(
        encoder,
        CentroidAggregator(4),
        item_format=item_format,
        encoder_config=encoder_config,
        aggregator_config=AggregatorConfig(),
        metadata={"dataset": "none"},
    )


def make_images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *IMAGE.shape)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model() -> SetEncoder:
    return make_encoder()
