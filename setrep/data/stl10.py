"""STL-10: 13,000 photos of 10 classes, 96x96 pixels (Coates et al. 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from setrep.data.dataset import ItemDataset
from setrep.data.images import to_items
from setrep.data.published import Official, PublishedItems, published_split, to_dataset
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.shared_classes import Named
from setrep.errors import InputError

INFO = DatasetInfo(
    name="stl10",
    summary="13,000 labelled photos of 10 classes, 96x96 pixels; train and test share their "
    "classes",
    splits=SPLITS,
    label_levels=("class",),
    collection_levels=("sampled",),
    subsets=("full",),
    needs="DATA/stl10_binary/ with train_X.bin, train_y.bin, test_X.bin, test_y.bin and "
    "class_names.txt, as the official stl10_binary.tar.gz unpacks; nothing is downloaded",
    shares_classes=True,
)
OFFICIAL = Official("stl10", "STL-10", 10, 96, {"train": 5_000, "test": 8_000})
FOLDER = "stl10_binary"  # as torchvision names it


def load(request: DatasetRequest) -> ItemDataset:
    """Map the images of one split from the disk; `shared_classes.choose_rows` says which.

    The 100,000 unlabelled images are not read: every item of an `ItemDataset` has a label.
    """
    root = request.data_root
    folder = root / FOLDER if root else None
    if folder is None or not folder.is_dir():
        hint = "" if root else " and name DATA with --data-root or SETREP_DATA"
        raise InputError(
            f"STL-10 is not at hand, and nothing downloads its 2.6 GB. Unpack the official "
            f"{FOLDER}.tar.gz to {root or 'DATA'}/{FOLDER}/{hint}."
        )
    split = published_split(request)
    names = _class_names(folder / "class_names.txt")
    items = _images(folder / f"{split}_X.bin")
    labels = _labels(folder / f"{split}_y.bin", len(items), len(names))
    item_format = OFFICIAL.item_format(request)
    if item_format.size != OFFICIAL.size:
        items = to_items(items, item_format)
    published = PublishedItems(items, Named(labels, names), "original")
    return to_dataset(OFFICIAL, published, request)


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(_read(path).decode(errors="replace").split())
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path} has {len(names)} class names, not all distinct. Fetch it again.")
    return names


def _images(path: Path) -> NDArray[np.uint8]:
    """Map `[N, channel, column, row]`, seen as `[N, channel, row, column]`."""
    side = OFFICIAL.size
    try:
        num_bytes = path.stat().st_size
        if num_bytes == 0 or num_bytes % (3 * side * side):
            raise InputError(
                f"{path} is cut short or no file of STL-10: its {num_bytes} bytes are not whole "
                f"images of {3 * side * side}. Fetch it again."
            )
        stored = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 3, side, side)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    return stored.transpose(0, 1, 3, 2)


def _labels(path: Path, num_images: int, num_classes: int) -> NDArray[np.int64]:
    """Read one byte an image; the published labels count from 1."""
    labels = np.frombuffer(_read(path), dtype=np.uint8).astype(np.int64)
    if len(labels) != num_images:
        raise InputError(
            f"{path} has {len(labels)} labels for {num_images} images. Fetch it again."
        )
    wrong = np.flatnonzero((labels < 1) | (labels > num_classes))
    if len(wrong):
        raise InputError(
            f"{path} has the label {labels[wrong[0]]} at position {wrong[0]}, but its classes are "
            f"1 to {num_classes}. Fetch it again."
        )
    return labels - 1


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
