"""Image files in `<split>/<class>/*`, of a directory or an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from setrep.data.archive import Archive
from setrep.data.cache import decode_items
from setrep.data.image_encoding import describe_encoding
from setrep.data.images import IMAGE_SUFFIXES
from setrep.data.published import Official, PublishedItems, published_split
from setrep.data.request import DatasetRequest
from setrep.data.shared_classes import Named
from setrep.data.splits import number_names
from setrep.errors import InputError


@dataclass(frozen=True)
class ImageFile:
    """Place one file in its published split and class."""

    name: str
    split: str
    class_name: str


def read_class_folders(archive: Archive, folders: Mapping[str, str]) -> list[ImageFile]:
    """Read `<folder>/<class>/*`; `folders` names the published split of each folder.

    Raises:
        InputError: an image lies elsewhere.
    """
    files = []
    for name in archive.names:
        if not name.lower().endswith(IMAGE_SUFFIXES):
            continue
        above = name.split("/")[:-1]
        if len(above) != 2 or above[0] not in folders:
            wanted = " and ".join(f"{folder}/<class>/*" for folder in folders)
            raise InputError(
                f"{archive.where(name)} is not where an image is looked for; expected {wanted}."
            )
        files.append(ImageFile(name, folders[above[0]], above[1]))
    return files


def decode_split(
    archive: Archive, files: Sequence[ImageFile], official: Official, request: DatasetRequest
) -> PublishedItems:
    """Decode the images of one published split; classes are numbered alike in both.

    Raises:
        InputError: there are none, or one is broken.
    """
    split = published_split(request)
    chosen = {file.name: file.class_name for file in files if file.split == split}
    if not chosen:
        raise InputError(
            f"{archive.path} holds no {split} images of {official.title} "
            f"({', '.join(IMAGE_SUFFIXES)}). Run `setrep data info {official.name}` for its layout."
        )
    decoded = decode_items(
        archive, list(chosen), official.item_format(request), on_bad_image=request.on_bad_image
    )
    known = sorted({file.class_name for file in files})
    classes = Named(*number_names([chosen[name] for name in decoded.names], known))
    encoding = describe_encoding(archive, chosen)
    return PublishedItems(decoded.items, classes, encoding, len(decoded.skipped))
