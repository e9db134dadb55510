"""CIFAR-100: 60,000 photos of 100 classes in 20 superclasses, 32x32 pixels (Krizhevsky 2009)."""

from __future__ import annotations

from setrep.data.cifar100_superclasses import superclasses
from setrep.data.cifar_batches import BatchFiles
from setrep.data.cifar_files import Cifar, read_published
from setrep.data.dataset import ItemDataset
from setrep.data.published import Official, to_dataset
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.errors import InputError

INFO = DatasetInfo(
    name="cifar100",
    summary="60,000 photos of 100 classes in 20 superclasses, 32x32 pixels; train and test share "
    "their classes",
    splits=SPLITS,
    label_levels=("fine", "coarse"),
    collection_levels=("sampled", "fine"),
    subsets=("full",),
    needs="DATA/cifar100.tar.xz or a directory DATA/cifar100/, with train/<class>/* and "
    "test/<class>/* image files; or DATA/cifar-100-python/ or DATA/cifar-100-python.tar.gz, as "
    "torchvision has them; else a network",
    shares_classes=True,
)
CIFAR100 = Cifar(
    Official("cifar100", "CIFAR-100", 100, 32, {"train": 50_000, "test": 10_000}),
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    batches=BatchFiles(
        train=("train",),
        test=("test",),
        meta="meta",
        labels_key="fine_labels",
        names_key="fine_label_names",
    ),
)


def load(request: DatasetRequest) -> ItemDataset:
    """Read the images of one split; `shared_classes.choose_rows` says which are validation.

    With `label_level=coarse` labels are superclasses, and the natural collections are the classes.
    """
    if request.label_level == "fine" and request.collection_level == "fine":
        raise InputError(
            "With label_level=fine and collection_level=fine a label is one single collection, so "
            "nothing could be retrieved. Use label_level=coarse, or collection_level=sampled."
        )
    published = read_published(CIFAR100, request)
    is_coarse = request.label_level == "coarse"
    names = published.classes.names
    wholes = superclasses(names, request.data_root) if is_coarse else None
    return to_dataset(CIFAR100.official, published, request, wholes)
