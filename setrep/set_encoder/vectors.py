"""A set encoder of items that are embedded already."""

from __future__ import annotations

from setrep.aggregators import build_aggregator
from setrep.config import AggregatorConfig, EncoderConfig
from setrep.encoders import build_encoder
from setrep.item_format import ItemFormat
from setrep.set_encoder.encoder import SetEncoder


def vector_set_encoder(dim: int, aggregator: str = "centroid") -> SetEncoder:
    """Take vectors of dimension `dim` as they are, and aggregate them.

    Raises:
        InputError: there is no such aggregator, or no such dimension.
    """
    item_format = ItemFormat("vector", dim, 1)
    config = EncoderConfig(name="identity", projection="none", normalize=False)
    encoder = build_encoder(config, item_format)
    return SetEncoder(
        encoder,
        build_aggregator(aggregator, encoder.dim),
        item_format=item_format,
        encoder_config=config,
        aggregator_config=AggregatorConfig(name=aggregator),
    ).eval()
