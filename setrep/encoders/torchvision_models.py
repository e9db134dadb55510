"""torchvision's backbones with their classifiers removed; the only door to torchvision's models."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

SMALL_IMAGE = 64  # at this side and below the stem keeps the resolution


class TorchvisionBackbone(nn.Module):
    """A torchvision network from random weights, for any channel count.

    Images of at most 64 pixels a side get a 3x3 stem: of stride 1 and without max-pooling for
    residual networks (as SimCLR uses on CIFAR), of stride 1 for EfficientNet up to 32 pixels.
    Every residual block starts as the identity (Goyal et al. 2017, section 5.1): a network that
    starts shallow learns from its first steps, a deep one barely in the first hundreds.
    """

    def __init__(self, name: str, channels: int, size: int) -> None:
        super().__init__()
        import torchvision.models as models

        is_resnet = name.startswith("resnet")
        # Stochastic depth drowns the small differences that hard negatives leave to learn from.
        options = {"zero_init_residual": True} if is_resnet else {"stochastic_depth_prob": 0.0}
        network = getattr(models, name)(weights=None, **options)
        if is_resnet:
            self.dim = network.fc.in_features
            network.fc = nn.Identity()
            if size <= SMALL_IMAGE:
                network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
                network.maxpool = nn.Identity()
            elif channels != 3:
                network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        else:
            self.dim = network.classifier[1].in_features
            network.classifier = nn.Identity()
            stem = network.features[0][0]
            stride = 1 if size <= SMALL_IMAGE // 2 else 2
            network.features[0][0] = nn.Conv2d(
                channels, stem.out_channels, 3, stride, 1, bias=False
            )
            for block in network.modules():
                if getattr(block, "use_res_connect", False):
                    nn.init.zeros_(block.block[-1][-1].weight)
        self.network = network

    def forward(self, images: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n dim"]:
        """Encode images."""
        features: Tensor = self.network(images)
        return features
