"""The files of Omniglot: where they lie, how they are fetched, and what is missing or wrong."""

from __future__ import annotations

import os
import socket
from urllib.error import URLError

import pytest

from setrep.data import load_dataset, omniglot_files
from setrep.errors import InputError
from tests.fakes import PARTS, fake_omniglot, write_files
from tests.fakes import omniglot_files as part_files


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path, monkeypatch):
    """Give each test a cache of its own and no network."""
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))

    def download(part, into):
        raise URLError("no network in tests")

    monkeypatch.setattr(omniglot_files, "download", download)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("SETREP_DATA", raising=False)
    return fake_omniglot(tmp_path / "data")


def load(root, **named):
    return load_dataset("omniglot", data_root=root, image_size=14, **named)


def refusal(root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load(root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_nothing_is_written_to_the_data_root(root):
    def state():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = state()
    load(root, subset="small2", split="validation")
    load(root, subset="small2")
    assert state() == before


def test_a_missing_file_is_named_after_a_short_wait_for_the_network(tmp_path, monkeypatch):
    waits = []

    def download(part, into):
        waits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(omniglot_files, "download", download)
    message = refusal(fake_omniglot(tmp_path / "data", {"images_evaluation": {"Yi": 1}}))
    assert "Put the official images_background.zip" in message
    assert f"at {tmp_path / 'data/omniglot-py/images_background.zip'}" in message
    assert "(timed out)" in message
    assert waits[0] <= 5
    assert socket.getdefaulttimeout() is None


def test_without_a_data_root_the_message_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("SETREP_DATA", raising=False)
    message = refusal(None)
    assert "DATA/omniglot-py/images_background.zip" in message
    assert "--data-root or SETREP_DATA" in message


def test_a_data_root_that_is_not_there_is_refused_at_once(tmp_path, root, monkeypatch):
    monkeypatch.setattr(omniglot_files, "download", None)
    assert f"The data root {tmp_path / 'none'} does not exist" in refusal(tmp_path / "none")
    monkeypatch.setenv("SETREP_DATA", str(tmp_path / "none"))
    assert "(from SETREP_DATA)" in refusal(None)
    archive = root / "omniglot-py/images_background.zip"
    assert "is a file" in refusal(archive)


def test_the_environment_names_the_data_root(root, monkeypatch):
    monkeypatch.setenv("SETREP_DATA", str(root))
    assert len(load(None)) == 40


def test_a_missing_part_is_downloaded_once(tmp_path, monkeypatch):
    calls = []

    def download(part, into):
        calls.append(part)
        return write_files(into / f"{part}.zip", part_files(part, PARTS[part], 4))

    monkeypatch.setattr(omniglot_files, "download", download)
    root = fake_omniglot(tmp_path / "data", {"images_evaluation": {"Yi": 1}})
    for _ in range(2):
        assert len(load(root)) == 40
        load(root, split="test")
    assert calls == ["images_background"]
    assert [path.name for path in root.rglob("*.zip")] == ["images_evaluation.zip"]


def test_torchvision_fetches_the_official_archive_and_checks_its_sum(tmp_path, monkeypatch, capsys):
    utils = pytest.importorskip("torchvision.datasets.utils")
    monkeypatch.undo()
    asked = []

    def download_url(url, root, filename, md5):
        asked.append((url, md5))
        print("progress")
        part = filename.removesuffix(".zip")
        write_files(tmp_path / "made" / filename, part_files(part, PARTS[part], 1)).rename(
            os.path.join(root, filename)
        )

    monkeypatch.setattr(utils, "download_url", download_url)
    path = omniglot_files.download("images_background", tmp_path / "into")
    assert path == tmp_path / "into/images_background.zip"
    assert len(list(path.parent.iterdir())) == 1
    assert asked[0][0].endswith("/omniglot/master/python/images_background.zip")
    assert asked[0][1] == "68d2efa1b9178cc56df9314c21c6e718"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "name",
    [
        "images_evaluation/Yi/character01/0001_01.png",
        "images_background/Yi/0001_01.png",
        "other/images_background/Yi/character01/0001_01.png",
        "0001_01.png",
        "notes.txt",
    ],
)
def test_another_layout_is_refused(name, tmp_path):
    write_files(tmp_path / "data/omniglot-py/images_background.zip", {name: b""})
    assert "expected images_background/<Alphabet>/<character>/<drawing>.png" in refusal(
        tmp_path / "data"
    )


def test_a_zip_that_is_none_or_would_write_elsewhere_is_refused(tmp_path):
    path = tmp_path / "data/omniglot-py/images_background.zip"
    write_files(path, {"images_background/../../x.png": b""})
    assert "would land outside" in refusal(tmp_path / "data")
    path.write_text("<html>404</html>")
    assert "not a whole zip" in refusal(tmp_path / "data")
