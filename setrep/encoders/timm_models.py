"""timm's encoders by name; the only door to timm."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from setrep.errors import InputError, nearest


class TimmBackbone(nn.Module):
    """A timm network from random weights without its classifier."""

    def __init__(self, name: str, channels: int, size: int) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise InputError(
                f"Encoder 'timm:{name}' needs timm, which is not installed: "
                f"pip install 'setrep[timm]'."
            ) from error
        if name not in timm.list_models():
            close = nearest(name, timm.list_models())
            raise InputError(f"timm has no model '{name}'.{close}")
        try:  # networks with position embeddings are built for one size
            network = timm.create_model(name, num_classes=0, in_chans=channels, img_size=size)
        except TypeError:
            network = timm.create_model(name, num_classes=0, in_chans=channels)
        self.network = network
        self.dim = int(network.num_features)

    def forward(self, images: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n dim"]:
        """Encode images."""
        features: Tensor = self.network(images)
        return features
