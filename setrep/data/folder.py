"""Image files in `DIR/<label>/<collection>/*` or `DIR/<label>/*`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from setrep.data.archive import Archive, open_archive
from setrep.data.cache import decode_items
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.images import IMAGE_SUFFIXES, is_grey
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.splits import hold_out, number_names, split_labels
from setrep.errors import InputError

logger = logging.getLogger(__name__)

INFO = DatasetInfo(
    name="folder",
    summary="image files of your own, in DIR/<label>/<collection>/* or DIR/<label>/*",
    splits=SPLITS,
    label_levels=("label",),
    collection_levels=("sampled", "collection"),
    subsets=("full",),
    needs="--data-root DIR, a directory, zip or tar; its sub-directories may be train, validation "
    "and test, else the labels are split by split_seed",
)
DEFAULT_SIZE = 64
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class File:
    """Place one file in its split folder (or none), label and collection (or none)."""

    name: str
    split: str | None
    label: str
    key: str | None


def load(request: DatasetRequest) -> ItemDataset:
    """Read the images of one split: three channels, or one if no image of any split has colour.

    Each image is cut to its centre square and scaled. With split folders a label has one number in
    all splits; labels that were split by seed are numbered in each split for itself.
    """
    if request.data_root is None:
        raise InputError("The data set 'folder' needs a directory. Name it with --data-root DIR.")
    archive = open_archive(request.data_root)
    files = read_layout(archive)
    if request.collection_level == "collection" and files[0].key is None:
        raise InputError(
            f"{archive.path} has no collections: its images lie right below their label. "
            f"Use collection_level=sampled, or sort them into <label>/<collection>/."
        )
    chosen = {file.name: file for file in _files_of_split(files, request)}
    channels = 1 if _all_grey(archive, [file.name for file in files]) else 3
    item_format = ItemFormat("image", channels, request.image_size or DEFAULT_SIZE)
    decoded = decode_items(archive, list(chosen), item_format, on_bad_image=request.on_bad_image)
    kept = [chosen[name] for name in decoded.names]
    has_folders = files[0].split is not None
    known = sorted({file.label for file in (files if has_folders else kept)})
    labels, label_names = number_names([file.label for file in kept], known)
    has_keys = request.collection_level == "collection"
    keys, key_names = number_names([f"{f.label}/{f.key}" for f in kept]) if has_keys else (None, ())
    skipped = len(decoded.skipped)
    return ItemDataset(
        name="folder",
        split=request.split,
        items=decoded.items,
        labels=labels,
        label_names=label_names,
        item_format=item_format,
        label_level=request.label_level,
        collection_level=request.collection_level,
        keys=keys,
        key_names=key_names,
        source_note=f"{archive.title}, {len({f.label for f in kept})} of "
        f"{len({f.label for f in files})} labels, {len(kept)} images"
        + (f"; {skipped} unreadable images skipped" if skipped else ""),
    )


def read_layout(archive: Archive) -> list[File]:
    """Sort the image files of an archive into splits, labels and collections.

    Raises:
        InputError: there are no images, or they lie at different depths, or at an unknown one.
    """
    names = [name for name in archive.names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise InputError(
            f"{archive.path} holds no images ({', '.join(IMAGE_SUFFIXES)}); "
            f"expected <label>/<collection>/* or <label>/*."
        )
    _report_empty(archive, names)
    has_folders = {name.split("/")[0] for name in names} <= set(SPLIT_FOLDERS)
    files: list[File] = []
    for name in names:
        above = name.split("/")[:-1]
        split = SPLIT_FOLDERS[above.pop(0)] if has_folders and above else None
        if len(above) not in (1, 2) or (files and (files[0].key is None) != (len(above) == 1)):
            depths = f"{archive.where(names[0])} and {archive.where(name)}"
            raise InputError(
                f"The images must all lie in <label>/<collection>/ or all in <label>/; "
                f"found {depths if name != names[0] else archive.where(name)}."
            )
        files.append(File(name, split, above[0], above[1] if len(above) == 2 else None))
    return files


def _report_empty(archive: Archive, names: Sequence[str]) -> None:
    """Name the directories whose files are no images, which become no label."""
    tops = {name.split("/")[0] for name in archive.names if "/" in name}
    for top in sorted(tops - {name.split("/")[0] for name in names}):
        logger.warning("%s holds no images and is left out.", archive.where(top))


def _files_of_split(files: Sequence[File], request: DatasetRequest) -> list[File]:
    if files[0].split is None:
        labels = split_labels([file.label for file in files], request, "label")
        return [file for file in files if file.label in labels[request.split]]
    found = {file.split for file in files}
    if "validation" in found and request.has_validation_groups:
        raise InputError(
            "There is a validation directory already; drop validation_groups and "
            "num_validation_groups, or the directory."
        )
    is_held_out = request.split == "validation" and "validation" not in found
    source = "train" if is_held_out else request.split
    chosen = [file for file in files if file.split == source]
    if not chosen:
        raise InputError(
            f"There is no directory for the split '{source}' beside "
            f"{', '.join(sorted(str(split) for split in found))}. Add it or name another split."
        )
    if source == "train":
        labels = hold_out([file.label for file in chosen], request, "label")
        return [file for file in chosen if file.label in labels[request.split]]
    return chosen


def _all_grey(archive: Archive, names: Iterable[str]) -> bool:
    return all(is_grey(content) for _, content in archive.read_many(names))
