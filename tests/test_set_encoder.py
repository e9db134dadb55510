"""Items and collections in every form get one embedding, or are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from setrep.collection import CollectionBatch
from setrep.data.dataset import ItemFormat
from setrep.errors import InputError
from tests.set_encoders import VECTOR, make_encoder, make_images
from tests.set_encoders import model as model


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


def test_sizes_of_batches_below_one_are_refused(model):
    with pytest.raises(InputError, match="batch_size"):
        model.encode(make_images(1), batch_size=0)
