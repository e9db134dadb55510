"""The decoded cache: keyed by content, whole or not there, and mended when it is damaged."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.data import cache
from setrep.data.archive import open_archive
from setrep.data.cache import decode_items
from setrep.data.images import read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fakes import encoded, glyph, write_files

SMALL = ItemFormat("image", 1, 16, is_inverted=True)
NAMES = [f"cat/{number}.png" for number in range(5)]
TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from setrep.data.archive import open_archive
from setrep.data.cache import decode_items
from setrep.item_format import ItemFormat
root, me, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
archive = open_archive(root / "files.zip")
(root / me).touch()
while not (root / other).exists():
    time.sleep(0.001)
decoded = decode_items(archive, archive.names, ItemFormat("image", 1, 16, is_inverted=True))
print(decoded.items.sum(), len(decoded.names))
"""


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files():
    return {name: encoded(glyph(name)) for name in NAMES}


@pytest.fixture
def archive(tmp_path, files):
    return open_archive(write_files(tmp_path / "files.zip", files))


def entries(root: Path) -> list[Path]:
    return list((root / "items").iterdir())


def refusal(call, *arguments, **named):
    """Return the message of the one line in which a call refuses its input."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_items_are_those_of_the_files_in_the_order_of_the_names(archive, files):
    decoded = decode_items(archive, NAMES[::-1], SMALL)
    assert decoded.names == tuple(NAMES)
    assert decoded.skipped == ()
    expected = np.stack([read_image(files[name], SMALL) for name in NAMES])
    np.testing.assert_array_equal(decoded.items, expected)
    assert isinstance(decoded.items, np.memmap)
    assert not decoded.items.flags.writeable


def test_a_second_call_decodes_nothing(archive, cache_root, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        first = decode_items(archive, NAMES, SMALL)
    assert "Decoding 5 images of files.zip into the cache." in caplog.messages
    monkeypatch.setattr(cache, "read_image", None)
    np.testing.assert_array_equal(decode_items(archive, NAMES, SMALL).items, first.items)
    assert len(entries(cache_root)) == 1


@pytest.mark.parametrize("name", ["files", "files.zip", "files.tar"])
def test_one_changed_byte_of_an_image_is_seen(name, tmp_path, files, cache_root):
    before = decode_items(open_archive(write_files(tmp_path / name, files)), NAMES, SMALL).items
    image = Image.open(write_files(tmp_path / "one", {"x.png": files[NAMES[2]]}) / "x.png")
    files[NAMES[2]] = encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    after = decode_items(open_archive(write_files(tmp_path / name, files)), NAMES, SMALL).items
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [
        number != 2 for number in range(5)
    ]
    assert len(entries(cache_root)) == 2


def test_another_format_or_another_choice_of_files_is_another_entry(archive, cache_root):
    for names, item_format, choice in [
        (NAMES, SMALL, "fail"),
        (NAMES[:3], SMALL, "fail"),
        (NAMES, ItemFormat("image", 1, 16), "fail"),
        (NAMES, ItemFormat("image", 3, 16, is_inverted=True), "fail"),
        (NAMES, ItemFormat("image", 1, 15, is_inverted=True), "fail"),
        (NAMES, SMALL, "skip"),
    ]:
        decoded = decode_items(archive, names, item_format, on_bad_image=choice)
        assert decoded.items.shape == (len(names), *item_format.shape)
    assert len(entries(cache_root)) == 6


def cut_the_items(entry):
    items = entry / "items.npy"
    items.write_bytes(items.read_bytes()[:-100])


def change_a_byte_of_the_items(entry):
    content = bytearray((entry / "items.npy").read_bytes())
    content[-1] ^= 1
    (entry / "items.npy").write_bytes(content)


def lose_the_items(entry):
    (entry / "items.npy").unlink()


def lose_the_manifest(entry):
    (entry / "manifest.json").unlink()


def cut_the_manifest(entry):
    (entry / "manifest.json").write_text((entry / "manifest.json").read_text()[:-9])


def empty_the_manifest(entry):
    (entry / "manifest.json").write_text("[]")


def change_a_name(entry):
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["names"][0] = NAMES[1]
    (entry / "manifest.json").write_text(json.dumps(manifest))


def put_a_file_in_its_place(entry):
    cut_the_items(entry)
    lose_the_items(entry)
    lose_the_manifest(entry)
    entry.rmdir()
    entry.write_text("")


DAMAGES = [
    cut_the_items,
    change_a_byte_of_the_items,
    lose_the_items,
    lose_the_manifest,
    cut_the_manifest,
    empty_the_manifest,
    change_a_name,
    put_a_file_in_its_place,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_built_again(damage, archive, cache_root, caplog):
    first = np.array(decode_items(archive, NAMES, SMALL).items)
    (entry,) = entries(cache_root)
    damage(entry)
    again = decode_items(archive, NAMES, SMALL)
    np.testing.assert_array_equal(again.items, first)
    assert again.names == tuple(NAMES)
    assert f"The cache entry {entry.name} is damaged" in caplog.text
    assert entries(cache_root) == [entry]


def test_items_in_use_outlive_the_damage_and_the_mending_of_their_entry(archive, cache_root):
    held = decode_items(archive, NAMES, SMALL).items
    first = np.array(held)
    lose_the_manifest(entries(cache_root)[0])
    decode_items(archive, NAMES, SMALL)
    np.testing.assert_array_equal(held, first)


def test_who_finishes_second_takes_the_entry_of_the_first(archive, cache_root, monkeypatch):
    started = []

    def read_while_another_builds(content, item_format):
        if not started:
            started.append(True)
            decode_items(archive, NAMES, SMALL)
        return read_image(content, item_format)

    monkeypatch.setattr(cache, "read_image", read_while_another_builds)
    decoded = decode_items(archive, NAMES, SMALL)
    assert decoded.names == tuple(NAMES)
    assert len(entries(cache_root)) == 1


def test_two_processes_build_one_entry_at_once(archive, tmp_path, cache_root):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path), *order],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for order in (("a", "b"), ("b", "a"))
    ]
    done = [worker.communicate(timeout=300) for worker in workers]
    expected = decode_items(archive, NAMES, SMALL).items.sum()
    assert done == [(f"{expected} 5\n", "")] * 2
    assert len(entries(cache_root)) == 1


@pytest.mark.parametrize("bad", [encoded(glyph("x"))[:150], b"no image", b""])
@pytest.mark.parametrize("name", ["files", "files.zip", "files.tar.gz"])
def test_a_broken_image_is_named_or_skipped_and_counted(
    name, bad, tmp_path, files, cache_root, caplog
):
    archive = open_archive(write_files(tmp_path / name, files | {NAMES[1]: bad}))
    message = refusal(decode_items, archive, NAMES, SMALL)
    assert archive.where(NAMES[1]) in message
    assert "--on-bad-image skip" in message
    assert entries(cache_root) == []
    good = [name for name in NAMES if name != NAMES[1]]
    for _ in range(2):
        decoded = decode_items(archive, NAMES, SMALL, on_bad_image="skip")
        assert (decoded.names, decoded.skipped) == (tuple(good), (NAMES[1],))
        np.testing.assert_array_equal(
            decoded.items, np.stack([read_image(files[name], SMALL) for name in good])
        )
    skips = [text for text in caplog.messages if "Skipped" in text]
    assert len(skips) == 1
    assert archive.where(NAMES[1]) in skips[0]


def test_a_source_without_one_whole_image_is_refused_even_when_skipping(tmp_path):
    archive = open_archive(write_files(tmp_path / "files", dict.fromkeys(NAMES, b"no image")))
    assert "all 5 are damaged" in refusal(decode_items, archive, NAMES, SMALL, on_bad_image="skip")


def test_a_cache_directory_that_cannot_be_written_is_named(archive, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "a file" / "cache"))
    message = refusal(decode_items, archive, NAMES, SMALL)
    assert str(tmp_path / "a file" / "cache") in message
    assert "set SETREP_CACHE" in message


def test_a_full_disk_leaves_nothing_half_written(archive, cache_root, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write_items", write)
    message = refusal(decode_items, archive, NAMES, SMALL)
    assert os.strerror(errno.ENOSPC) in message
    assert entries(cache_root) == []


def test_what_killed_processes_left_is_removed_after_a_day(archive, cache_root):
    old, new = (cache_root / "items" / f".building-{age}" for age in ("old", "new"))
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "items.npy").touch()
    os.utime(old, (0, 0))
    decode_items(archive, NAMES, SMALL)
    assert not old.exists()
    assert new.exists()
