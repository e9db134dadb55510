"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from setrep.data import (
    cifar10,
    cifar100,
    digits,
    folder,
    omniglot,
    stl10,
    tinyimagenet,
    vectors,
)
from setrep.data.dataset import ItemDataset
from setrep.data.partition import partition
from setrep.data.request import DatasetInfo, DatasetRequest, resolve_data_root
from setrep.errors import InputError, nearest

PARTITION = "partition"  # a collection level of every data set
DATASETS: dict[str, tuple[DatasetInfo, Callable[[DatasetRequest], ItemDataset]]] = {
    module.INFO.name: (module.INFO, module.load)
    for module in (digits, omniglot, cifar10, cifar100, tinyimagenet, stl10, folder, vectors)
}


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Describe every data set that can be named."""
    return tuple(info for info, _ in DATASETS.values())


def dataset_info(name: str) -> DatasetInfo:
    """Describe one data set.

    Raises:
        InputError: the name is unknown.
    """
    _check("data set", name, tuple(DATASETS))
    return DATASETS[name][0]


def load_dataset(
    name: str,
    *,
    split: str = "train",
    data_root: str | Path | None = None,
    subset: str = "full",
    label_level: str | None = None,
    collection_level: str = "sampled",
    image_size: int | None = None,
    validation_groups: Sequence[str] = (),
    num_validation_groups: int = 0,
    num_validation_items: int = 0,
    num_train_items: int | None = None,
    split_seed: int = 0,
    on_bad_image: str = "fail",
    partition_size: int = 10,
) -> ItemDataset:
    """Read one split of a data set.

    `label_level=None` and `image_size=None` stand for the data set's own. For `folder` the data
    root is the directory, for `vectors` the `.npz` file. Beside its own collection levels each has
    `partition`: the items of a label in fixed random collections of `partition_size`.

    Raises:
        InputError: a name is unknown, or the data is missing or broken.
    """
    _check("data set", name, tuple(DATASETS))
    info, load = DATASETS[name]
    _check(f"split of {name}", split, info.splits)
    _check(f"subset of {name}", subset, info.subsets)
    label_level = info.label_levels[0] if label_level is None else label_level
    _check(f"label level of {name}", label_level, info.label_levels)
    _check(f"collection level of {name}", collection_level, (*info.collection_levels, PARTITION))
    _check("value of on_bad_image", on_bad_image, ("fail", "skip"))
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size must be at least 1, not {image_size}.")
    request = DatasetRequest(
        split=split,
        label_level=label_level,
        data_root=resolve_data_root(data_root),
        subset=subset,
        collection_level="sampled" if collection_level == PARTITION else collection_level,
        image_size=image_size,
        validation_groups=tuple(validation_groups),
        num_validation_groups=num_validation_groups,
        num_validation_items=num_validation_items,
        num_train_items=num_train_items,
        split_seed=split_seed,
        on_bad_image=on_bad_image,
    )
    _check_counts(info, request)
    dataset = load(request)
    if collection_level != PARTITION:
        return dataset
    return partition(dataset, partition_size, seed=split_seed)


def _check_counts(info: DatasetInfo, request: DatasetRequest) -> None:
    """Refuse counts of items and groups that contradict each other or the data set."""
    named, num_groups = request.validation_groups, request.num_validation_groups
    if num_groups < 0 or (num_groups and named):
        raise InputError(
            "Give validation_groups (names) or num_validation_groups (at least 0), not both; found "
            f"{list(named)} and {num_groups}."
        )
    if request.num_validation_items < 0:
        raise InputError(
            f"num_validation_items must be at least 0, not {request.num_validation_items}."
        )
    if request.num_train_items is not None and request.num_train_items < 1:
        raise InputError(f"num_train_items must be at least 1, not {request.num_train_items}.")
    if request.num_validation_items and request.has_validation_groups:
        raise InputError(
            "Hold out whole classes (validation_groups, num_validation_groups) or images of each "
            "(num_validation_items), not both."
        )
    asks_items = request.num_validation_items or request.num_train_items is not None
    if asks_items and not info.shares_classes:
        known = ", ".join(other.name for other in list_datasets() if other.shares_classes)
        raise InputError(
            f"num_validation_items and num_train_items count images of data sets whose splits "
            f"share their classes ({known}), not of {info.name}. Use num_validation_groups."
        )


def _check(kind: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise InputError(
            f"Unknown {kind}: '{asked}'.{nearest(asked, known)} Known: {', '.join(known)}."
        )
