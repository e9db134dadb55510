"""What a data set offers, and what is asked of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from setrep.errors import InputError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """Say what a data set offers; the first label level, collection level and subset are defaults.

    `needs` tells what has to lie where before it can be read. Where `shares_classes`, the test
    split holds the classes of train (see `shared_classes.choose_rows`), else others.
    """

    name: str
    summary: str
    splits: tuple[str, ...]
    label_levels: tuple[str, ...]
    collection_levels: tuple[str, ...]
    subsets: tuple[str, ...]
    needs: str
    shares_classes: bool = False


@dataclass(frozen=True)
class DatasetRequest:
    """Hold the arguments of `load_dataset`, checked, with the label level filled in."""

    split: str
    label_level: str
    data_root: Path | None = None
    subset: str = "full"
    collection_level: str = "sampled"
    image_size: int | None = None
    validation_groups: tuple[str, ...] = ()
    num_validation_groups: int = 0
    num_validation_items: int = 0
    num_train_items: int | None = None
    split_seed: int = 0
    on_bad_image: str = "fail"

    @property
    def has_validation_groups(self) -> bool:
        """Whether groups are held out for validation."""
        return bool(self.validation_groups) or self.num_validation_groups > 0


def resolve_data_root(data_root: str | Path | None) -> Path | None:
    """Return the data root asked for, else the one in `SETREP_DATA`, else none.

    Raises:
        InputError: the data root does not exist.
    """
    named = data_root or os.environ.get("SETREP_DATA") or None
    if named is None:
        return None
    path = Path(named).expanduser()
    if not path.exists():
        origin = "" if data_root else " (from SETREP_DATA)"
        raise InputError(f"The data root {path}{origin} does not exist. Create it or name another.")
    return path
