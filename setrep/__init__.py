"""Learn, verify and search representations of collections: sets of items that share a label."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setrep.aggregators.centroid import CentroidAggregator
    from setrep.collection import CollectionBatch
    from setrep.config import Config
    from setrep.data.dataset import ItemDataset
    from setrep.data.registry import load_dataset
    from setrep.data.sampler import EpisodeSampler
    from setrep.errors import InputError
    from setrep.losses.supcon import SupConLoss
    from setrep.losses.triplet import TripletMarginLoss
    from setrep.reports.bounds import verify_bounds
    from setrep.reports.runs import configure, evaluate, train
    from setrep.retrieval import CollectionIndex
    from setrep.set_encoder import SetEncoder

__version__ = "0.1.0"

# Loaded when first asked for, so that the command line answers without importing torch.
_HOME = {
    "CentroidAggregator": "setrep.aggregators.centroid",
    "CollectionBatch": "setrep.collection",
    "CollectionIndex": "setrep.retrieval",
    "Config": "setrep.config",
    "EpisodeSampler": "setrep.data.sampler",
    "InputError": "setrep.errors",
    "ItemDataset": "setrep.data.dataset",
    "SetEncoder": "setrep.set_encoder",
    "SupConLoss": "setrep.losses.supcon",
    "TripletMarginLoss": "setrep.losses.triplet",
    "configure": "setrep.reports.runs",
    "evaluate": "setrep.reports.runs",
    "load_dataset": "setrep.data.registry",
    "train": "setrep.reports.runs",
    "verify_bounds": "setrep.reports.bounds",
}

__all__ = [
    "CentroidAggregator",
    "CollectionBatch",
    "CollectionIndex",
    "Config",
    "EpisodeSampler",
    "InputError",
    "ItemDataset",
    "SetEncoder",
    "SupConLoss",
    "TripletMarginLoss",
    "configure",
    "evaluate",
    "load_dataset",
    "train",
    "verify_bounds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'setrep' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
