"""The Omniglot one-shot task as its files have it (Lake et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from setrep.data.archive import Archive, open_archive
from setrep.errors import InputError


@dataclass(frozen=True, eq=False)
class OneShotRun:
    """One run: which training image shows the character of each test image?

    Images are encoded files; `answers[i]` is the position in `training` of the right one.
    """

    name: str
    test: list[bytes]
    training: list[bytes]
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class OneShotTask:
    """All runs of a task."""

    runs: tuple[OneShotRun, ...]
    source_note: str


def load_one_shot(path: str | Path) -> OneShotTask:
    """Read `runNN/{training,test}/*` and `runNN/class_labels.txt` from a zip or directory.

    A line of `class_labels.txt` is `test_path training_path`, relative to the root of the task,
    which may itself lie in a folder (`all_runs/`).

    Raises:
        InputError: there are no runs, or a line names an image that is not there.
    """
    archive = open_archive(Path(path))
    members = set(archive.names)
    lists = [name for name in archive.names if PurePosixPath(name).name == "class_labels.txt"]
    if not lists:
        raise InputError(
            f"{path} is not a one-shot task: it has no runNN/class_labels.txt. "
            f"Give the official zip or the directory it unpacks to."
        )
    runs = tuple(_read_run(archive, members, name) for name in lists)
    return OneShotTask(runs, f"Omniglot one-shot task, {len(runs)} of 20 runs")


def _read_run(archive: Archive, members: set[str], labels_file: str) -> OneShotRun:
    """Read the run that a list of answers belongs to."""
    folder = PurePosixPath(labels_file).parent
    pairs = []
    for number, line in enumerate(archive.read(labels_file).decode().splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        paths = [str(folder.parent / field) for field in fields]
        if len(paths) != 2 or not members.issuperset(paths):
            raise InputError(
                f"Line {number} of {labels_file} must name a test and a training image "
                f"of the task; found '{line.strip()}'."
            )
        pairs.append(paths)
    if not pairs:
        raise InputError(f"{labels_file} names no images.")
    training = sorted({right for _, right in pairs})
    return OneShotRun(
        folder.name,
        [archive.read(test) for test, _ in pairs],
        [archive.read(name) for name in training],
        np.array([training.index(right) for _, right in pairs], dtype=np.int64),
    )
