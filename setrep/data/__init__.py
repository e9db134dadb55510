"""Data sets, how they are read, and the episodes and collections drawn from them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setrep.data.augmentation import Augmentation, add_rotated_classes
    from setrep.data.batch import Batch
    from setrep.data.dataset import ItemDataset, ItemFormat
    from setrep.data.images import read_image
    from setrep.data.one_shot import OneShotRun, OneShotTask, load_one_shot
    from setrep.data.registry import list_datasets, load_dataset
    from setrep.data.request import DatasetInfo
    from setrep.data.sampler import EpisodeSampler
    from setrep.data.tasks import EpisodeTaskset, episodes_from_taskset

__all__ = [
    "Augmentation",
    "Batch",
    "DatasetInfo",
    "EpisodeSampler",
    "EpisodeTaskset",
    "ItemDataset",
    "ItemFormat",
    "OneShotRun",
    "OneShotTask",
    "add_rotated_classes",
    "episodes_from_taskset",
    "list_datasets",
    "load_dataset",
    "load_one_shot",
    "read_image",
]
_MODULES = {
    "Augmentation": "augmentation",
    "Batch": "batch",
    "DatasetInfo": "request",
    "EpisodeSampler": "sampler",
    "EpisodeTaskset": "tasks",
    "ItemDataset": "dataset",
    "ItemFormat": "dataset",
    "OneShotRun": "one_shot",
    "OneShotTask": "one_shot",
    "add_rotated_classes": "augmentation",
    "episodes_from_taskset": "tasks",
    "list_datasets": "registry",
    "load_dataset": "registry",
    "load_one_shot": "one_shot",
    "read_image": "images",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that a small command stays quick."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
