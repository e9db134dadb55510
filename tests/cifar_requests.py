"""Requests for CIFAR on a machine without a network, and what they are refused with."""

from __future__ import annotations

from urllib.error import URLError

import pytest

from setrep.data import cifar_files
from setrep.data.registry import load_dataset
from setrep.errors import InputError


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path, monkeypatch):
    """Give each test a cache of its own and no network."""
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SETREP_DATA", raising=False)

    def download(cifar, into):
        raise URLError("no network in tests")

    monkeypatch.setattr(cifar_files, "download", download)


def refusal(name, root, **named):
    """Return the message of the one line in which a request is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset(name, data_root=root, **named)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
