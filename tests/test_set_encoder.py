from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from setrep.aggregators import CentroidAggregator
from setrep.collection import CollectionBatch
from setrep.config import EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.errors import InputError
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
        aggregator_name="centroid",
        metadata={"dataset": "none"},
    )


def make_images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *IMAGE.shape)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model() -> SetEncoder:
    return make_encoder()


def test_items_in_every_form_get_the_same_embedding(model, tmp_path):
    images = make_images(3)
    expected = model.encode(images)
    assert expected.shape == (3, 4)
    assert expected.dtype == torch.float32
    pictures = [Image.fromarray(255 - image[0].numpy()) for image in images]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    contents = []
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
        contents.append(path.read_bytes())
    read_only = images.numpy().copy()
    read_only.setflags(write=False)
    forms = [
        images.float() / 255,
        images.double() / 255,
        read_only,
        list(images),
        tuple(images.numpy()),
        pictures,
        paths,
        [str(path) for path in paths],
        contents,
        [images[0], images[1].float() / 255, paths[2]],
    ]
    for form in forms:
        torch.testing.assert_close(model.encode(form), expected)


def test_one_item_gives_one_vector(model, tmp_path):
    image = make_images(1)[0]
    buffer = io.BytesIO()
    Image.fromarray(255 - image[0].numpy()).save(buffer, "PNG")
    (tmp_path / "one.png").write_bytes(buffer.getvalue())
    expected = model.encode(image.unsqueeze(0))[0]
    for item in (image, image.numpy(), buffer.getvalue(), tmp_path / "one.png"):
        assert model.is_item(item)
        torch.testing.assert_close(model.encode(item), expected)


def test_vectors_of_any_number_type_are_taken_as_they_are():
    model = make_encoder(VECTOR, name="identity", projection="none", normalize=False)
    vectors = torch.arange(10).reshape(2, 5)
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float64):
        torch.testing.assert_close(model.encode(vectors.to(dtype)), vectors.float())
    assert model.encode(vectors[0]).shape == (5,)


def test_no_items_give_no_embeddings(model):
    assert model.encode([]).shape == (0, 4)
    assert model.encode(make_images(0)).shape == (0, 4)


@given(st.integers(1, 12), st.integers(1, 15), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_batch_size_and_the_company_do_not_change_an_embedding(count, batch_size, is_list):
    model, images = make_encoder(), make_images(count)
    items = list(images) if is_list else images
    torch.testing.assert_close(model.encode(items, batch_size=batch_size), model.encode(images))


def test_encoding_leaves_modes_statistics_and_gradients_alone():
    model = make_encoder().train()
    frozen = model.encoder.backbone.layers[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    embeddings = model.encode_collections([make_images(4), make_images(2)])
    assert not embeddings.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert not frozen.training
    with pytest.raises(InputError):
        model.encode(make_images(1)[0, 0])
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_forward_has_gradients(model):
    batch = CollectionBatch.from_list([make_images(4), make_images(2)])
    out = make_encoder()(batch)
    assert out.shape == (2, 4)
    assert out.requires_grad


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_collection_is_embedded_as_the_mean_of_its_items_in_any_form(sizes):
    model, images = make_encoder(), make_images(sum(sizes))
    collections = list(images.split(sizes))
    expected = torch.stack([model.encode(collection).mean(dim=0) for collection in collections])
    forms = [
        collections,
        tuple(collection.numpy() for collection in collections),
        [list(collection) for collection in collections],
        CollectionBatch.from_list(collections),
    ]
    for form in forms:
        torch.testing.assert_close(model.encode_collections(form, batch_size=3), expected)


BAD_ITEMS = {
    "another size": (torch.zeros(2, 1, 9, 9), r"float32 items of shape \(1, 9, 9\).*\(1, 8, 8\)"),
    "no channel": (torch.zeros(3, 8), r"items of shape \(8,\)"),
    "a scalar": (np.float32(1), "not float32"),
    "integers": (torch.zeros(1, 1, 8, 8, dtype=torch.int64), "int64 items"),
    "complex numbers": (torch.zeros(1, 1, 8, 8, dtype=torch.cfloat), "complex64 items"),
    "text": (np.array([["a"]]), "<U1 items"),
    "NaN": (torch.full((1, 1, 8, 8), torch.nan), "NaN"),
    "a number": ([3], "must be an array or an image, not int"),
    "a mapping": ({"a": 1}, "must be an array or a list, not dict"),
    "a missing file": ("missing.png", "missing.png"),
    "a broken file": ([b"not an image"], "not an image"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_items_of_another_kind_are_refused_in_one_line(model, name):
    items, message = BAD_ITEMS[name]
    with pytest.raises(InputError, match=message) as caught:
        model.encode(items)
    assert "\n" not in str(caught.value)


def test_images_are_refused_where_vectors_are_taken(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    model = make_encoder(VECTOR)
    with pytest.raises(InputError, match=r"takes vectors of shape \(5,\)"):
        model.encode(tmp_path / "image.png")
    with pytest.raises(InputError, match=r"shape \(6,\).*takes vectors of shape \(5,\)"):
        model.encode(torch.zeros(2, 6))


BAD_COLLECTIONS = {
    "nothing": ([], "the list is empty"),
    "an empty collection": ([make_images(1), []], "Collection 1 is empty"),
    "a bare item": ([make_images(1)[0]], "Collection 0 is one item"),
    "a bare path": (["image.png"], "Collection 0 is one item"),
    "a path": ("image.png", "must be a list"),
    "an array": (make_images(2), "must be a list"),
    "a number": ([3], "Collection 0 must be"),
}


@pytest.mark.parametrize("name", BAD_COLLECTIONS)
def test_bad_collections_are_refused_in_one_line(model, name):
    collections, message = BAD_COLLECTIONS[name]
    with pytest.raises(InputError, match=message) as caught:
        model.encode_collections(collections)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item_format", "name"), [(IMAGE, "convnet"), (IMAGE, "identity"), (VECTOR, "mlp")]
)
def test_a_saved_model_comes_back_the_same(item_format, name, tmp_path):
    model = make_encoder(item_format, name=name)
    if name == "convnet":
        model = model.to(memory_format=torch.channels_last)
    items = make_images(3) if item_format is IMAGE else torch.arange(15.0).reshape(3, 5)
    expected = model.encode_collections([items])
    model.save_pretrained(tmp_path / "run")
    before = torch.random.get_rng_state()
    found = SetEncoder.from_pretrained(tmp_path / "run")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not found.training
    torch.testing.assert_close(found.encode_collections([items]), expected, rtol=1e-6, atol=1e-6)
    assert found.metadata == {"dataset": "none"}
    assert (found.item_format, found.encoder_config) == (item_format, model.encoder_config)
    assert found.fingerprint == model.fingerprint


def test_the_fingerprint_is_the_hash_of_the_file_of_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    content = (tmp_path / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == description["sha256"] == model.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert description["schema"] == 1
    assert description["encoder"] == model.encoder_config.model_dump(mode="json")


def test_the_fingerprint_tells_weights_and_settings_apart():
    bright = ItemFormat("image", 1, 8)
    models = [
        make_encoder(),
        make_encoder(seed=1),
        make_encoder(normalize=False),
        make_encoder(bright),
        make_encoder(name="identity", projection="none"),
        make_encoder(name="identity", projection="none", normalize=False),
    ]
    assert len({model.fingerprint for model in models}) == len(models)
    assert make_encoder().fingerprint == models[0].fingerprint


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "no description": (lambda d: (d / "model.json").unlink(), "holds no trained model"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "cannot be read"),
    "a truncated description": (
        lambda d: (d / "model.json").write_bytes((d / "model.json").read_bytes()[:50]),
        "is damaged",
    ),
    "a description that is a list": (lambda d: (d / "model.json").write_text("[]"), "schema None"),
    "truncated weights": (
        lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:-7]
        ),
        "is damaged or of another model",
    ),
    "a flipped bit": (
        lambda d: flip_last_byte(d / "model.safetensors"),
        "is damaged or of another",
    ),
    "a later schema": (lambda d: edit(d / "model.json", schema=2), "schema 2"),
    "changed settings": (
        lambda d: edit(d / "model.json", item_format={"kind": "image", "channels": 1, "size": 8}),
        "was changed",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_models_are_refused_in_one_line(model, name, tmp_path):
    damage, message = DAMAGES[name]
    model.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        SetEncoder.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_their_settings_are_refused(tmp_path):
    model = make_encoder()
    model.encoder = build_encoder(EncoderConfig(name="mlp", projection_dim=3), IMAGE)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot build") as caught:
        SetEncoder.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_settings_of_a_later_version_are_refused(tmp_path, monkeypatch):
    model = make_encoder()
    settings_now = model._settings()
    settings_later = {**settings_now, "encoder": {**settings_now["encoder"], "new_knob": 1}}
    monkeypatch.setattr(model, "_settings", lambda: settings_later)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot build"):
        SetEncoder.from_pretrained(tmp_path)


def write_tampered(folder: Path, header: str, description: dict | str | None = None) -> None:
    """Write a model whose checksum is right."""
    weights = save({"x": torch.zeros(1)}, metadata={"setrep": header})
    (folder / "model.safetensors").write_bytes(weights)
    if not isinstance(description, str):
        sha256 = hashlib.sha256(weights).hexdigest()
        description = json.dumps({"schema": 1, "sha256": sha256, **(description or {})})
    (folder / "model.json").write_text(description)


@pytest.mark.parametrize(
    ("header", "description", "message"),
    [
        ("[1]", None, "is not a safetensors file of setrep"),
        ("3", None, "is not a safetensors file of setrep"),
        ("[" * 100_000, None, "is not a safetensors file of setrep"),
        ("{}", "[" * 100_000, "is damaged: it is not JSON"),
        ("{}", json.dumps({"schema": "x" * 100_000}), "is of schema 'xxx"),
    ],
    ids=["a list", "a number", "a deep header", "a deep description", "a long schema"],
)
def test_tampered_headers_are_refused_in_one_short_line(header, description, message, tmp_path):
    write_tampered(tmp_path, header, description)
    with pytest.raises(InputError, match=message) as caught:
        SetEncoder.from_pretrained(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_format": {"channels": "x"}}, "channels of a format of vectors must be"),
        ({"item_format": {"channels": 10**30}}, "channels of a format of vectors must be"),
        ({"item_format": {"kind": "bogus", "size": -1}}, "not 'bogus'"),
        ({"item_format": {"size": -1}}, "size of a format of vectors must be"),
        ({"item_format": {"is_inverted": "yes"}}, "is_inverted must be"),
        ({"encoder": {"projection_dim": 10**11}}, "projection_dim"),
        ({"encoder": {"projection_dim": -1}}, "projection_dim"),
        ({"encoder": {"name": "bogus"}}, "bogus"),
        ({"aggregator": "bogus"}, "bogus"),
        ({"aggregator": ["centroid"]}, "aggregator is no name but list"),
        ({"metadata": "x"}, "metadata are no mapping but str"),
    ],
)
def test_tampered_settings_are_refused_in_one_line(changes, message, tmp_path):
    description: dict = {
        "encoder": {"name": "identity", "projection": "linear", "projection_dim": 3},
        "aggregator": "centroid",
        "item_format": {"kind": "vector", "channels": 4, "size": 1},
        "metadata": {},
    }
    for key, value in changes.items():
        is_section = isinstance(value, dict)
        description[key] = {**description[key], **value} if is_section else value
    write_tampered(tmp_path, json.dumps(description), description)
    with pytest.raises(InputError, match=f"cannot build.*{message}") as caught:
        SetEncoder.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("bogus", 1, 8), "'image' or a 'vector', not 'bogus'"),
        ((["image"], 1, 8), "'image' or a 'vector'"),
        (("image", 0, 8), "channels .* from 1 to .* not 0"),
        (("image", 1, -1), "size .* from 1 to .* not -1"),
        (("image", 1, 10**9), "size .* not 1000000000"),
        (("image", True, 8), "channels .* not True"),
        (("image", 1, 8.0), "size .* not 8.0"),
        (("image", 1, "8" * 10_000), "size .* not '888"),
        (("vector", 5, 2), "size .* from 1 to 1, not 2"),
        (("image", 1, 8, 1), "is_inverted must be true or false, not 1"),
    ],
)
def test_a_format_that_no_item_has_is_refused(values, message):
    with pytest.raises(InputError, match=message) as caught:
        ItemFormat(*values)
    assert len(str(caught.value)) < 200


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    make_encoder().save_pretrained(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("setrep.files.os.fsync", fail)
        with pytest.raises(InputError, match="No space left on device"):
            make_encoder(seed=1).save_pretrained(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert SetEncoder.from_pretrained(tmp_path).fingerprint == make_encoder().fingerprint


def test_what_cannot_be_written_is_said_in_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        model.save_pretrained(tmp_path / "file")
    model_with_objects = make_encoder()
    model_with_objects.metadata = {"made": object()}
    with pytest.raises(InputError, match="must be JSON"):
        model_with_objects.save_pretrained(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sizes_of_batches_below_one_are_refused(model):
    with pytest.raises(InputError, match="batch_size"):
        model.encode(make_images(1), batch_size=0)
