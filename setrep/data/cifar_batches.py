"""CIFAR as its authors published it: pickled batches of images (Krizhevsky 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setrep.data.archive import Archive
from setrep.data.batch_pickles import read_pickle, text
from setrep.data.images import to_items
from setrep.data.published import PublishedItems
from setrep.data.shared_classes import Named
from setrep.errors import InputError
from setrep.item_format import ItemFormat

SIDE = 32


@dataclass(frozen=True)
class BatchFiles:
    """Say which files hold the images of a split and the names of the classes, and under what."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels_key: str
    names_key: str

    def of_split(self, split: str) -> tuple[str, ...]:
        """Return the files of a published split."""
        return self.test if split == "test" else self.train


def read_batches(
    archive: Archive, files: BatchFiles, split: str, item_format: ItemFormat
) -> PublishedItems:
    """Read the images of one published split, in their order, and scale them if asked.

    Raises:
        InputError: a batch is missing, damaged, of another shape, or its labels do not fit.
    """
    names = files.of_split(split)
    found = _read_files(archive, (*names, files.meta))
    class_names = _class_names(archive.where(files.meta), found[files.meta], files.names_key)
    images, labels = [], []
    for name in names:
        where = archive.where(name)
        images.append(_images(where, found[name]))
        labels += _labels(
            where, found[name].get(files.labels_key), len(images[-1]), len(class_names)
        )
    items = np.concatenate(images)
    if item_format.size != SIDE:
        items = to_items(items, item_format)
    return PublishedItems(items, Named(np.array(labels, dtype=np.int64), class_names), "original")


def _read_files(archive: Archive, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read pickles by the last part of their names, for an archive has a directory above them."""
    stored = {name.split("/")[-1]: name for name in archive.names}
    for name in names:
        if name not in stored:
            raise InputError(
                f"{archive.path} lacks the file {name}; expected {', '.join(names)}. "
                f"Fetch it again."
            )
    found = {}
    for path, content in archive.read_many([stored[name] for name in names]):
        try:
            found[path.split("/")[-1]] = read_pickle(content)
        except ValueError as error:
            raise InputError(
                f"{archive.where(path)} is no batch of CIFAR ({error}). Fetch it again."
            ) from error
    return found


def _class_names(where: str, meta: dict[str, Any], key: str) -> tuple[str, ...]:
    try:
        names = tuple(text(name) for name in meta[key])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} has no list of names '{key}'. Fetch it again.") from error
    if not names or len(set(names)) < len(names):
        raise InputError(f"{where} has {len(names)} names in '{key}', not all distinct.")
    return names


def _images(where: str, batch: dict[str, Any]) -> NDArray[np.uint8]:
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * SIDE * SIDE:
        found = f"shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(
            f"{where} has no images in 'data': expected [N, {3 * SIDE * SIDE}], found {found}. "
            f"Fetch it again."
        )
    return np.ascontiguousarray(data).reshape(-1, 3, SIDE, SIDE)


def _labels(where: str, labels: Any, num_images: int, num_classes: int) -> list[int]:
    found = len(labels) if isinstance(labels, list) else 0
    if not isinstance(labels, list) or found != num_images:
        raise InputError(f"{where} has {num_images} images but {found} labels. Fetch it again.")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < num_classes:
            raise InputError(
                f"{where} has the label {label!r:.40} at position {position}, but its classes are "
                f"0 to {num_classes - 1}. Fetch it again."
            )
    return labels
