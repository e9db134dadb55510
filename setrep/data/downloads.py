"""One file from the network, through torchvision."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

logger = logging.getLogger(__name__)

STALL_SECONDS = 20.0
# Whoever names a data root expects the files there, and an answer soon if they are not.
STALL_SECONDS_WITH_ROOT = 4.0
NO_DOWNLOAD = (OSError, RuntimeError, HTTPException)  # what a failed download raises


@contextlib.contextmanager
def stalls_bounded(data_root: Path | None) -> Iterator[None]:
    """Bound each wait for the network; torchvision has no argument for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS_WITH_ROOT if data_root else STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch(url: str, name: str, md5: str | None, into: Path) -> Path:
    """Fetch a file and check its sum, if one is known."""
    from torchvision.datasets.utils import download_url

    into.mkdir(parents=True, exist_ok=True)
    logger.warning("Downloading %s to %s.", name, into)
    # Renamed when whole; torchvision prints its progress to stdout, where only results belong.
    with tempfile.TemporaryDirectory(dir=into) as folder, contextlib.redirect_stdout(sys.stderr):
        download_url(url, folder, filename=name, md5=md5)
        return Path(folder, name).replace(into / name)
