"""Where CIFAR lies, as image files or as batches, and how it is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from setrep.data.archive import open_archive
from setrep.data.archive_kinds import one_line
from setrep.data.cache import cache_dir
from setrep.data.cifar_batches import BatchFiles, read_batches
from setrep.data.class_folders import decode_split, read_class_folders
from setrep.data.downloads import NO_DOWNLOAD, fetch, stalls_bounded
from setrep.data.published import Official, PublishedItems, published_split
from setrep.data.request import DatasetRequest
from setrep.errors import InputError

FOLDERS = {"train": "train", "test": "test"}


@dataclass(frozen=True)
class Cifar:
    """Name the files of one of the two data sets; `archive` and `folder` are torchvision's."""

    official: Official
    archive: str
    folder: str
    batches: BatchFiles


def read_published(cifar: Cifar, request: DatasetRequest) -> PublishedItems:
    """Read the published split that holds what was asked for, from the first place that has it.

    Places are the data root, then earlier downloads; in each, image files come before batches.

    Raises:
        InputError: it is nowhere and cannot be downloaded, or is not what its name says.
    """
    root = request.data_root
    name, title = cifar.official.name, cifar.official.title
    if root and not root.is_dir():
        raise InputError(f"The data root of {name} is a directory, but {root} is a file.")
    downloads = cache_dir() / "downloads"
    for place in [root, downloads] if root else [downloads]:
        for file in (f"{name}.tar.xz", name, cifar.folder, cifar.archive):
            if (place / file).exists():
                return _read(cifar, place / file, request)
    try:
        with stalls_bounded(root):
            path = download(cifar, downloads)
    except NO_DOWNLOAD as error:
        hint = "" if root else " and name DATA with --data-root or SETREP_DATA"
        raise InputError(
            f"{title} is neither at hand nor to be downloaded ({one_line(error)}). Put the "
            f"official {cifar.archive} (or its directory {cifar.folder}) into {root or 'DATA'}, "
            f"or {name}.tar.xz with train/<class>/* and test/<class>/*{hint}."
        ) from error
    return _read(cifar, path, request)


def _read(cifar: Cifar, path: Path, request: DatasetRequest) -> PublishedItems:
    archive = open_archive(path)
    if path.name in (cifar.folder, cifar.archive):
        item_format = cifar.official.item_format(request)
        return read_batches(archive, cifar.batches, published_split(request), item_format)
    return decode_split(archive, read_class_folders(archive, FOLDERS), cifar.official, request)


def download(cifar: Cifar, into: Path) -> Path:
    """Fetch the official archive through torchvision, which knows its sum."""
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[cifar.official.name]
    return fetch(source.url, cifar.archive, source.tgz_md5, into)
