"""The official Omniglot one-shot task: which of the training drawings is this test drawing's?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64, UInt8

from setrep.data.archive import Archive, open_archive
from setrep.data.archive_kinds import clean_name
from setrep.data.images import IMAGE_SUFFIXES, read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat

LABELS = "class_labels.txt"
# 20 runs of 20 test and 20 training drawings (Lake et al. 2015).
OFFICIAL_RUNS = tuple(f"run{number:02}" for number in range(1, 21))
OFFICIAL_WAYS = 20
CHECK = ItemFormat("image", 1, 8)


@dataclass(frozen=True, eq=False)
class OneShotRun:
    """Hold the encoded images of one run; `answers[i]` is where `training` has test image `i`."""

    name: str
    test: list[bytes]
    training: list[bytes]
    answers: Int64[np.ndarray, " test"]
    test_names: tuple[str, ...] = ()  # where the images were read, for messages
    training_names: tuple[str, ...] = ()

    def decode(
        self, item_format: ItemFormat
    ) -> tuple[UInt8[np.ndarray, "test c h w"], UInt8[np.ndarray, "training c h w"]]:
        """Return the test and the training images as items.

        Raises:
            InputError: an image is damaged.
        """
        return (
            _decode(self.test, self.test_names, f"{self.name}/test", item_format),
            _decode(self.training, self.training_names, f"{self.name}/training", item_format),
        )


@dataclass(frozen=True, eq=False)
class OneShotTask:
    """Hold the runs of the task, sorted by name, and what was read."""

    runs: tuple[OneShotRun, ...]
    source_note: str


def load_one_shot(path: str | Path) -> OneShotTask:
    """Read `runNN/{training,test}/*` and `runNN/class_labels.txt` from an archive or a directory.

    A line is `test_path training_path`, relative to the folder that holds the runs (it may be
    `all_runs/` or the like) or to the root. Every training image of a run is a possible answer.

    Raises:
        InputError: there are no runs, the answers of one do not fit its images, or an image is
            damaged.
    """
    archive = open_archive(path)
    folders = [name.removesuffix(LABELS) for name in archive.names if _is_labels(name)]
    if not folders:
        zips = [Path(path) / name for name in archive.names if name.lower().endswith(".zip")]
        hint = f" Name an archive in it, as {zips[0]}." if zips else ""
        raise InputError(
            f"{archive.path} holds no one-shot runs; expected run01/{LABELS}, run01/training/* "
            f"and run01/test/*, and so on.{hint}"
        )
    suffixes = (LABELS, *IMAGE_SUFFIXES)
    inside = [n for n in archive.names if n.startswith(tuple(folders)) and _ends(n, suffixes)]
    content = dict(archive.read_many(inside))
    runs = tuple(_read_run(archive, folder, content) for folder in folders)
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{archive.path} holds the one-shot run '{name}' more than once.")
    for run in runs:
        run.decode(CHECK)  # a damaged image is better found now than after training
    return OneShotTask(runs, _source_note(runs))


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _source_note(runs: tuple[OneShotRun, ...]) -> str:
    """Say what was read; only runs that look official are counted against the official ones."""
    names = [run.name for run in runs]
    sizes = {(len(run.test), len(run.training)) for run in runs}
    count = f"{len(runs)} runs"
    if set(names) <= set(OFFICIAL_RUNS) and sizes == {(OFFICIAL_WAYS, OFFICIAL_WAYS)}:
        first = OFFICIAL_RUNS.index(names[0])
        is_span = len(names) > 2 and OFFICIAL_RUNS.index(names[-1]) - first == len(names) - 1
        which = f"{names[0]} to {names[-1]}" if is_span else ", ".join(names)
        count = f"{len(runs)} of the official {len(OFFICIAL_RUNS)} runs ({which})"
    ways = " and ".join(str(way) for way in sorted({way for _, way in sizes}))
    num_tests = sum(len(run.test) for run in runs)
    return f"Omniglot one-shot task, {count}, {ways}-way, {num_tests} decisions"


def _is_labels(name: str) -> bool:
    return PurePosixPath(name).name == LABELS and "/" in name


def _read_run(archive: Archive, folder: str, content: dict[str, bytes]) -> OneShotRun:
    pairs = _read_pairs(archive, folder, content)
    training = sorted(name for name in content if name.startswith(f"{folder}training/"))
    unasked = {name for name in content if name.startswith(f"{folder}test/")} - set(pairs)
    if unasked:
        raise InputError(
            f"{archive.where(folder + LABELS)} has no line for {sorted(unasked)[0]} "
            f"({len(unasked)} test images without an answer)."
        )
    return OneShotRun(
        name=PurePosixPath(folder).name,
        test=[content[name] for name in pairs],
        training=[content[name] for name in training],
        answers=np.array([training.index(right) for right in pairs.values()], dtype=np.int64),
        test_names=tuple(archive.where(name) for name in pairs),
        training_names=tuple(archive.where(name) for name in training),
    )


def _read_pairs(archive: Archive, folder: str, content: dict[str, bytes]) -> dict[str, str]:
    """Read `test_path training_path` lines, in their order, as member names."""
    where = archive.where(folder + LABELS)
    try:
        lines = content[folder + LABELS].decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not a text file.") from error
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise InputError(f"{where}, line {number}: expected 'test_path training_path'.")
        names = [_resolve(field, folder, content) for field in fields]
        for field, name, part in zip(fields, names, ("test", "training"), strict=True):
            if not name.startswith(f"{folder}{part}/"):
                raise InputError(f"{where}, line {number}: there is no {part} image '{field}'.")
        if names[0] in pairs:
            raise InputError(f"{where}, line {number}: '{fields[0]}' has an answer already.")
        pairs[names[0]] = names[1]
    if not pairs:
        raise InputError(f"{where} is empty.")
    return pairs


def _resolve(field: str, folder: str, content: dict[str, bytes]) -> str:
    """Return the member that a path names, or nothing."""
    above = folder.rstrip("/").rpartition("/")[0]
    candidates = (clean_name(f"{above}/{field}"), clean_name(field))
    return next((name for name in candidates if name in content), "")


def _decode(
    images: list[bytes], names: tuple[str, ...], part: str, item_format: ItemFormat
) -> UInt8[np.ndarray, "n c h w"]:
    items = []
    for number, content in enumerate(images):
        try:
            items.append(read_image(content, item_format))
        except InputError as error:
            name = names[number] if names else f"{part}, image {number}"
            raise InputError(f"{name}: {error}") from error
    return np.stack(items)
