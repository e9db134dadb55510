"""From an image file to an item, whatever its mode, shape, format or damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from setrep.data import read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fakes import encoded, glyph

GREY = ItemFormat("image", 1, 8)
COLOUR = ItemFormat("image", 3, 8)
INK = ItemFormat("image", 1, 8, is_inverted=True)


def refusal(source, item_format=GREY):
    """Return the message of the one line in which an image is refused."""
    with pytest.raises(InputError) as caught:
        read_image(source, item_format)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def claimed(width, height):
    """Return a PNG that claims to be large."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return head + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 99) + b"IDAT"


@pytest.mark.parametrize("item_format", [GREY, COLOUR, INK])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_becomes_an_item(mode, item_format):
    item = read_image(Image.new("L", (20, 20), 255).convert(mode), item_format)
    assert item.dtype == np.uint8
    assert item.shape == item_format.shape
    assert item.flags.c_contiguous
    if mode not in ("I;16", "I"):  # their white is 65535
        assert (item == (0 if item_format.is_inverted else 255)).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_an_image_is_the_same_from_bytes_from_a_file_and_as_an_image(file_format, tmp_path):
    content = encoded(glyph("a").convert("L"), file_format)
    (tmp_path / "ä image").write_bytes(content)
    item = read_image(content, INK)
    assert item.max() > 50
    for source in (
        tmp_path / "ä image",
        str(tmp_path / "ä image"),
        Image.open(io.BytesIO(content)),
    ):
        np.testing.assert_array_equal(read_image(source, INK), item)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 9), (8, 8), (1000, 3)])
def test_any_shape_becomes_a_square(size):
    item = read_image(Image.new("RGB", size, (10, 20, 30)), COLOUR)
    np.testing.assert_array_equal(item, np.full((3, 8, 8), [[[10]], [[20]], [[30]]]))
    one = read_image(Image.new("RGB", size, (10, 20, 30)), ItemFormat("image", 3, 1))
    np.testing.assert_array_equal(one.ravel(), [10, 20, 30])


def test_the_centre_square_is_kept():
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = np.arange(64).reshape(8, 8)
    np.testing.assert_array_equal(
        read_image(Image.fromarray(pixels), GREY)[0], np.arange(64).reshape(8, 8)
    )


def test_a_smaller_image_has_the_same_ink():
    drawing = np.asarray(glyph("a", side=96).convert("L"))
    item = read_image(Image.fromarray(drawing), ItemFormat("image", 1, 24, is_inverted=True))
    blocks = (255 - drawing).reshape(24, 4, 24, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(item[0], blocks, atol=1)


def test_transparent_parts_become_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    item = read_image(encoded(image), GREY)[0]
    assert (item[:, :4] == 0).all()
    assert (item[:, 4:] == 255).all()


def test_sixteen_bits_lose_the_lower_byte():
    wide = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    item = read_image(encoded(Image.fromarray(wide)), GREY)
    np.testing.assert_array_equal(item[0], wide >> 8)


def test_the_orientation_of_a_camera_is_undone():
    upright = Image.effect_noise((8, 8), 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(
        read_image(file.getvalue(), GREY), read_image(encoded(upright), GREY)
    )


def test_of_several_frames_the_first_counts():
    file = io.BytesIO()
    frames = [Image.new("L", (8, 8), shade) for shade in (40, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(file.getvalue(), GREY) == 40).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_a_truncated_image_is_refused(file_format):
    content = encoded(Image.effect_noise((40, 40), 90), file_format)
    for length in (0, 3, 30, len(content) // 2):
        assert "not a" in refusal(content[:length])


@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P5 1 1 255 x"])
def test_what_is_no_image_or_of_another_format_is_refused(content):
    assert refusal(content) == "not an image file."


@pytest.mark.parametrize("side", [9000, 9500, 20_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(side):
    assert "may have at most 80000000 pixels" in refusal(claimed(side, side))


def test_floating_point_pixels_are_refused():
    assert "store them as vectors" in refusal(Image.new("F", (8, 8)))


def test_a_file_is_named_in_the_message(tmp_path):
    path = tmp_path / "x.png"
    assert refusal(path) == f"Cannot read {path}: No such file or directory."
    assert refusal(tmp_path) == f"Cannot read {tmp_path}: Is a directory."
    path.write_bytes(b"text")
    assert refusal(path) == f"{path}: not an image file."
    path.write_bytes(encoded(glyph("a"))[:150])
    assert refusal(path).startswith(f"{path}: not a whole image (")
