"""Encoders by name: any channel count, any size they can take, and nothing done unasked."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from setrep.config import EncoderConfig
from setrep.encoders import ENCODERS, ItemEncoder, build_encoder
from setrep.errors import InputError
from setrep.item_format import ItemFormat

HAS_TIMM = importlib.util.find_spec("timm") is not None
BARE = {"projection": "none", "normalize": False}


def image_format(channels: int, size: int) -> ItemFormat:
    return ItemFormat("image", channels, size)


def build(name: str, item_format: ItemFormat, **settings) -> ItemEncoder:
    """Build an encoder from seed 0, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_encoder(EncoderConfig(name=name, **settings), item_format).eval()


def draw(item_format: ItemFormat, count: int = 2) -> torch.Tensor:
    """Draw bytes for images, floats for vectors."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, *item_format.shape)
    if item_format.kind == "vector":
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@torch.no_grad()
def check_shape(name: str, item_format: ItemFormat) -> None:
    encoder = build(name, item_format, projection="linear", projection_dim=16)
    out = encoder(draw(item_format))
    assert out.shape == (2, 16)
    assert encoder.dim == 16
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    backbone = encoder.backbone(draw(item_format).float() / 255)
    assert backbone.shape == (2, encoder.backbone.dim)


@pytest.mark.parametrize("size", [8, 28, 32, 64, 105])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["convnet", "mlp", "identity"])
def test_an_encoder_takes_images_of_any_size_and_channels(name, channels, size):
    check_shape(name, image_format(channels, size))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, 28),
        ("resnet18", 3, 32),
        ("resnet18", 1, 64),
        ("resnet18", 1, 105),
        ("resnet18", 3, 105),
        ("resnet50", 1, 32),
        ("resnet50", 3, 105),
        ("efficientnet_b2", 1, 28),
        ("efficientnet_b2", 3, 64),
        ("efficientnet_b2", 1, 105),
    ],
)
def test_a_torchvision_encoder_takes_images_of_any_size_and_channels(name, channels, size):
    check_shape(name, image_format(channels, size))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "keeps"), [(32, True), (64, True), (65, False)])
def test_a_residual_network_keeps_the_resolution_of_small_images(size, keeps):
    network = build("resnet18", image_format(3, size)).backbone.network
    stem = network.conv1
    shape = ((3, 3), (1, 1)) if keeps else ((7, 7), (2, 2))
    assert (stem.kernel_size, stem.stride) == shape
    assert isinstance(network.maxpool, nn.Identity if keeps else nn.MaxPool2d)
    with torch.no_grad():
        x = torch.zeros(1, 3, size, size)
        assert network.maxpool(stem(x)).shape[-1] == (size if keeps else 17)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stride"), [(32, 1), (33, 2), (64, 2), (105, 2)])
def test_efficientnet_has_a_3x3_stem_of_the_right_stride(size, stride):
    stem = build("efficientnet_b2", image_format(1, size)).backbone.network.features[0][0]
    assert (stem.kernel_size, stem.stride) == ((3, 3), (stride, stride))
    assert stem.in_channels == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("resnet18", 8), ("efficientnet_b2", 16)])
def test_every_residual_block_starts_as_the_identity(name, count):
    network = build(name, image_format(1, 32)).backbone.network.eval()
    blocks = [
        block
        for block in network.modules()
        if type(block).__name__ == "BasicBlock" or getattr(block, "use_res_connect", False)
    ]
    assert len(blocks) == count
    for block in blocks:
        first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
        items = torch.rand(2, first.in_channels, 5, 5)
        shortcut = getattr(block, "downsample", None) or nn.Identity()
        torch.testing.assert_close(block(items), shortcut(items).clamp(min=0))


@pytest.mark.parametrize("name", ["mlp", "identity"])
def test_an_encoder_of_vectors_takes_vectors(name):
    check_shape(name, ItemFormat("vector", 7, 1))


def test_identity_is_the_identity():
    items = draw(ItemFormat("vector", 7, 1))
    assert torch.equal(build("identity", ItemFormat("vector", 7, 1), **BARE)(items), items)


@pytest.mark.parametrize("channels", [1, 3])
def test_convnet_has_at_most_a_million_parameters(channels):
    encoder = build("convnet", image_format(channels, 32))
    assert sum(p.numel() for p in encoder.parameters()) <= 1_000_000


@pytest.mark.parametrize("name", ["convnet", "mlp", "identity"])
@torch.no_grad()
def test_bytes_are_read_as_shares_of_255(name):
    item_format = image_format(1, 8)
    items = draw(item_format, 5)
    encoder = build(name, item_format)
    assert torch.equal(encoder(items), encoder(items.float() / 255))


@pytest.mark.parametrize("projection", ["none", "linear", "mlp"])
@torch.no_grad()
def test_an_embedding_is_normalised_where_that_is_asked_and_only_there(projection):
    item_format = image_format(1, 8)
    items = draw(item_format, 5)
    settings = {"projection": projection, "projection_dim": 16}
    plain = build("convnet", item_format, normalize=False, **settings)
    unit = build("convnet", item_format, normalize=True, **settings)
    assert (plain.is_normalized, unit.is_normalized) == (False, True)
    lengths = plain(items).norm(dim=1, keepdim=True)
    assert bool((lengths - 1).abs().max() > 1e-3)
    torch.testing.assert_close(unit(items).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(unit(items), plain(items) / lengths)


@pytest.mark.parametrize(
    ("projection", "layers"),
    [("none", []), ("linear", [(192, 16)]), ("mlp", [(192, 192), (192, 16)])],
)
def test_a_projection_is_what_was_asked_for(projection, layers):
    encoder = build("convnet", image_format(1, 8), projection=projection, projection_dim=16)
    found = [m for m in encoder.projection.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in found] == layers
    assert encoder.dim == (16 if layers else 192)


@torch.no_grad()
def test_an_item_is_embedded_the_same_alone_and_in_a_batch():
    item_format = image_format(1, 8)
    items = draw(item_format, 4)
    encoder = build("convnet", item_format)
    alone = torch.cat([encoder(item.unsqueeze(0)) for item in items])
    torch.testing.assert_close(encoder(items), alone, rtol=1e-5, atol=1e-6)


def test_every_parameter_of_an_encoder_gets_a_gradient():
    item_format = image_format(1, 8)
    encoder = build("convnet", item_format, projection="mlp", projection_dim=4).train()
    encoder(draw(item_format, 6)).square()[:, 0].sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert silent == []


def test_double_precision_stays():
    item_format = ItemFormat("vector", 7, 1)
    encoder = build("mlp", item_format).double()
    assert encoder(draw(item_format).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("asked", "meant"), [("convnt", "convnet"), ("resnet81", "resnet18"), ("MLP", None)]
)
def test_an_unknown_encoder_is_refused_with_the_nearest(asked, meant):
    with pytest.raises(InputError, match=f"Unknown encoder '{asked}'") as error:
        build(asked, image_format(1, 8))
    message = str(error.value)
    assert f"Did you mean '{meant}'?" in message or meant is None
    assert all(name in message for name in (*ENCODERS, "timm:<name>"))


@pytest.mark.parametrize("name", ["convnet", "resnet18", "timm:resnet18"])
def test_an_image_encoder_refuses_vectors(name):
    with pytest.raises(InputError, match="use 'mlp'"):
        build(name, ItemFormat("vector", 7, 1))


def test_without_timm_its_encoders_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm.*pip install 'setrep\[timm\]'"):
        build("timm:resnet18", image_format(1, 8))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")
@pytest.mark.filterwarnings("ignore")  # of timm's own
def test_a_timm_encoder_is_built_by_name_or_refused_with_the_nearest():
    check_shape("timm:resnet10t", image_format(1, 32))
    check_shape("timm:vit_tiny_patch16_224", image_format(3, 64))
    with pytest.raises(InputError, match="Did you mean 'resnet18'"):
        build("timm:resnet18x", image_format(1, 32))
