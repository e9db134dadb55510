"""CIFAR-10: 60,000 photos of 10 classes, 32x32 pixels (Krizhevsky 2009)."""

from __future__ import annotations

from setrep.data.cifar_batches import BatchFiles
from setrep.data.cifar_files import Cifar, read_published
from setrep.data.dataset import ItemDataset
from setrep.data.published import Official, to_dataset
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest

INFO = DatasetInfo(
    name="cifar10",
    summary="60,000 photos of 10 classes, 32x32 pixels; train and test share their classes",
    splits=SPLITS,
    label_levels=("class",),
    collection_levels=("sampled",),
    subsets=("full",),
    needs="DATA/cifar10.tar.xz or a directory DATA/cifar10/, with train/<class>/* and "
    "test/<class>/* image files; or DATA/cifar-10-batches-py/ or DATA/cifar-10-python.tar.gz, as "
    "torchvision has them; else a network",
    shares_classes=True,
)
CIFAR10 = Cifar(
    Official("cifar10", "CIFAR-10", 10, 32, {"train": 50_000, "test": 10_000}),
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    batches=BatchFiles(
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        meta="batches.meta",
        labels_key="labels",
        names_key="label_names",
    ),
)


def load(request: DatasetRequest) -> ItemDataset:
    """Read the images of one split; `shared_classes.choose_rows` says which are validation."""
    return to_dataset(CIFAR10.official, read_published(CIFAR10, request), request)
