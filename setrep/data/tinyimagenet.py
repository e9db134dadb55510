"""Tiny-ImageNet: 110,000 photos of 200 classes, 64x64 pixels (Stanford CS231n)."""

from __future__ import annotations

from pathlib import Path

from setrep.data.archive import Archive, open_archive
from setrep.data.class_folders import ImageFile, decode_split, read_class_folders
from setrep.data.dataset import ItemDataset
from setrep.data.images import IMAGE_SUFFIXES
from setrep.data.published import Official, to_dataset
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.errors import InputError

INFO = DatasetInfo(
    name="tinyimagenet",
    summary="photos of up to 200 classes of ImageNet, 64x64 pixels; train and test share their "
    "classes, and test is the published validation split",
    splits=SPLITS,
    label_levels=("class",),
    collection_levels=("sampled",),
    subsets=("full",),
    needs="DATA/tinyimagenet100.tar.xz or a directory DATA/tinyimagenet100/, with train/<wnid>/* "
    "and val/<wnid>/* image files; or the original DATA/tiny-imagenet-200.zip or the directory "
    "DATA/tiny-imagenet-200/; nothing is downloaded",
    shares_classes=True,
)
OFFICIAL = Official(
    "tinyimagenet",
    "Tiny-ImageNet",
    200,
    64,
    {"train": 100_000, "test": 10_000},
    test_title="images of the published validation split (the test split has no labels)",
)
FOLDERS = {"train": "train", "val": "test"}
ORIGINAL = "tiny-imagenet-200"
ANNOTATIONS = "val/val_annotations.txt"
PLACES = ("tinyimagenet100.tar.xz", "tinyimagenet100", ORIGINAL, f"{ORIGINAL}.zip")


def load(request: DatasetRequest) -> ItemDataset:
    """Read the images of one split, grey ones as three equal channels.

    Test is the published validation split, for the published test split has no labels.
    `shared_classes.choose_rows` says which training images are validation here.
    """
    path = _find(request.data_root)
    archive = open_archive(path)
    is_original = path.name.startswith(ORIGINAL)
    files = _read_original(archive) if is_original else read_class_folders(archive, FOLDERS)
    return to_dataset(OFFICIAL, decode_split(archive, files, OFFICIAL, request), request)


def _find(root: Path | None) -> Path:
    if root and not root.is_dir():
        raise InputError(f"The data root of tinyimagenet is a directory, but {root} is a file.")
    for name in PLACES if root else ():
        if root and (root / name).exists():
            return root / name
    hint = "" if root else " and name DATA with --data-root or SETREP_DATA"
    raise InputError(
        f"Tiny-ImageNet is not at hand, and nothing downloads it. Put the official {ORIGINAL}.zip "
        f"(or its directory {ORIGINAL}) into {root or 'DATA'}, or {PLACES[0]} with train/<wnid>/* "
        f"and val/<wnid>/*{hint}."
    )


def _read_original(archive: Archive) -> list[ImageFile]:
    """Read `train/<wnid>/images/*` and `val/images/*`, whose classes a file of their own names."""
    top = "" if archive.kind == "directory" else f"{ORIGINAL}/"
    wnid_of = _annotations(archive, top + ANNOTATIONS)
    files = []
    for name in archive.names:
        parts = name.removeprefix(top).split("/")
        if not name.lower().endswith(IMAGE_SUFFIXES) or parts[0] not in FOLDERS:
            continue
        if parts[0] == "train" and len(parts) == 4 and parts[2] == "images":
            files.append(ImageFile(name, "train", parts[1]))
        elif parts[:2] == ["val", "images"] and len(parts) == 3 and parts[2] in wnid_of:
            files.append(ImageFile(name, "test", wnid_of[parts[2]]))
        else:
            raise InputError(
                f"{archive.where(name)} is not where an image is looked for, or has no line in "
                f"{ANNOTATIONS}; expected train/<wnid>/images/* and val/images/*."
            )
    return files


def _annotations(archive: Archive, name: str) -> dict[str, str]:
    """Read `file<TAB>wnid<TAB>box` lines."""
    lines = [line for _, content in archive.read_many([name]) for line in content.splitlines()]
    if not lines:
        raise InputError(
            f"{archive.path} lacks {ANNOTATIONS}, or it is empty: its images would have no labels."
        )
    wnid_of = {}
    for number, line in enumerate(lines, start=1):
        fields = line.decode(errors="replace").split("\t")
        if len(fields) < 2 or not fields[1]:
            raise InputError(
                f"{archive.where(name)} has no class in line {number}; expected "
                f"file<TAB>wnid<TAB>box."
            )
        wnid_of[fields[0]] = fields[1]
    return wnid_of
