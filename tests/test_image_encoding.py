"""What image files were stored as is read off the files."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from setrep.data.archive import open_archive
from setrep.data.image_encoding import describe_encoding, jpeg_quality
from tests.fakes import encoded, write_files

NOISE = Image.effect_noise((20, 30), 90)


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_quality_of_a_jpeg_is_found_again(mode, subsampling):
    for quality in (1, 30, 50, 75, 90, 95, 100):
        content = jpeg(NOISE.convert(mode), quality=quality, subsampling=subsampling)
        assert jpeg_quality(content) == quality


def test_other_tables_and_other_files_have_no_quality():
    assert jpeg_quality(jpeg(NOISE, qtables=[list(range(1, 65))])) is None
    assert jpeg_quality(encoded(NOISE)) is None
    assert jpeg_quality(b"") is None


def described(tmp_path, files):
    archive = open_archive(write_files(tmp_path / "files.zip", files))
    return describe_encoding(archive, archive.names)


def test_the_files_are_described_as_they_are(tmp_path):
    good, poor = jpeg(NOISE, quality=90), jpeg(NOISE, quality=40)
    cases = {
        "JPEG q90": {"a.jpg": good, "b.JPEG": good},
        "JPEG": {"a.jpg": good, "b.jpeg": poor},
        "PNG": {"a.png": encoded(NOISE)},
        "JPEG and PNG": {"a.png": encoded(NOISE), "b.jpg": good},
    }
    for expected, files in cases.items():
        assert described(tmp_path, files) == expected
