"""A saved model comes back the same, and a damaged or tampered one is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from setrep.config import EncoderConfig
from setrep.data.dataset import ItemFormat
from setrep.encoders import build_encoder
from setrep.errors import InputError
from setrep.set_encoder import SetEncoder
from tests.set_encoders import IMAGE, VECTOR, make_encoder, make_images
from tests.set_encoders import model as model


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
