"""Item encoders by name: from an item to an embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from setrep.config import EncoderConfig
from setrep.encoders.convnet import SMALL, ConvNet
from setrep.encoders.item_encoder import ItemEncoder
from setrep.encoders.timm_models import TimmBackbone
from setrep.encoders.torchvision_models import TorchvisionBackbone
from setrep.encoders.vectors import IdentityEncoder, Mlp
from setrep.errors import InputError, nearest
from setrep.item_format import ItemFormat

IMAGE_BACKBONES: dict[str, Callable[[int, int], nn.Module]] = {
    "convnet": lambda channels, size: ConvNet(channels),
    "convnet_small": lambda channels, size: ConvNet(channels, SMALL),
    "efficientnet_b2": partial(TorchvisionBackbone, "efficientnet_b2"),
    "resnet18": partial(TorchvisionBackbone, "resnet18"),
    "resnet50": partial(TorchvisionBackbone, "resnet50"),
}
ANY_BACKBONES: dict[str, Callable[[int], nn.Module]] = {"mlp": Mlp, "identity": IdentityEncoder}
ENCODERS = (*IMAGE_BACKBONES, *ANY_BACKBONES)


def build_encoder(config: EncoderConfig, item_format: ItemFormat) -> ItemEncoder:
    """Build an item encoder with random weights.

    Raises:
        InputError: the name is unknown, or the encoder cannot take such items.
    """
    name = config.name
    if name in ANY_BACKBONES:
        num_values = 1
        for side in item_format.shape:
            num_values *= side
        return ItemEncoder(ANY_BACKBONES[name](num_values), config)
    if name not in IMAGE_BACKBONES and not name.startswith("timm:"):
        known = (*ENCODERS, "timm:<name>")
        raise InputError(
            f"Unknown encoder '{name}'.{nearest(name, ENCODERS)} Known: {', '.join(known)}."
        )
    if item_format.kind != "image":
        raise InputError(f"Encoder '{name}' takes images, but the items are vectors: use 'mlp'.")
    channels, size = item_format.channels, item_format.size
    if name.startswith("timm:"):
        return ItemEncoder(TimmBackbone(name.removeprefix("timm:"), channels, size), config)
    return ItemEncoder(IMAGE_BACKBONES[name](channels, size), config)


__all__ = ["ENCODERS", "ItemEncoder", "build_encoder"]
