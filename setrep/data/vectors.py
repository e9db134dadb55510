"""Vectors of one's own, from an `.npz` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from setrep.data.archive_kinds import BROKEN, one_line
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.splits import number_names, split_labels, take_rows
from setrep.errors import InputError

INFO = DatasetInfo(
    name="vectors",
    summary="vectors of your own: an .npz with values [N, D], labels [N] and perhaps keys [N]",
    splits=SPLITS,
    label_levels=("label",),
    collection_levels=("sampled", "key"),
    subsets=("full",),
    needs="--data-root FILE.npz; the labels are split by split_seed",
)


def load(request: DatasetRequest) -> ItemDataset:
    """Read the vectors of one split, as float32; labels are parted as those of `folder` are."""
    path = request.data_root
    if path is None:
        raise InputError("The data set 'vectors' needs a file. Name it with --data-root FILE.npz.")
    arrays = _read(path)
    _check(path, arrays)
    labels = [str(label) for label in arrays["labels"]]
    parts = split_labels(labels, request, "label")
    chosen = set(parts[request.split])
    rows = np.flatnonzero([label in chosen for label in labels])
    numbers, label_names = number_names([labels[row] for row in rows])
    keys, key_names = _keys(path, arrays, labels, rows, request)
    return ItemDataset(
        name="vectors",
        split=request.split,
        items=take_rows(arrays["values"].astype(np.float32), rows),
        labels=numbers,
        label_names=label_names,
        item_format=ItemFormat("vector", arrays["values"].shape[1], 1),
        label_level=request.label_level,
        collection_level=request.collection_level,
        keys=keys,
        key_names=key_names,
        source_note=f"{path.name}, {len(chosen)} of {len(set(labels))} labels, {len(rows)} vectors",
    )


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in ("values", "labels", "keys") if name in file}
    except (*BROKEN, MemoryError, KeyError, TypeError, AttributeError) as error:
        why = f" ({one_line(error)})" if isinstance(error, OSError) else ""
        raise InputError(
            f"{path} is not an .npz of plain arrays named values, labels and keys{why}."
        ) from error


def _check(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    for name in ("values", "labels"):
        if name not in arrays:
            raise InputError(f"{path} has no array '{name}'; found {', '.join(arrays) or 'none'}.")
    values = arrays["values"]
    if values.ndim != 2 or values.dtype.kind != "f" or 0 in values.shape:
        raise InputError(
            f"{path}: values must be floats of shape [N, D], not {values.dtype} {values.shape}."
        )
    for name in sorted(arrays.keys() - {"values"}):
        if arrays[name].shape != (len(values),) or arrays[name].dtype.kind not in "iuU":
            raise InputError(
                f"{path}: {name} must be {len(values)} whole numbers or strings, one for each "
                f"vector, not {arrays[name].dtype} {arrays[name].shape}."
            )
    # Checked after the cast, which turns what float32 cannot hold into infinity.
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(values.astype(np.float32)).all(axis=1)
    if not is_finite.all():
        raise InputError(
            f"{path}: row {int(np.flatnonzero(~is_finite)[0])} of values is not finite in float32 "
            f"({int((~is_finite).sum())} such rows). Remove them."
        )


def _keys(
    path: Path,
    arrays: dict[str, NDArray[np.generic]],
    labels: list[str],
    rows: NDArray[np.int64],
    request: DatasetRequest,
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    if request.collection_level != "key":
        return None, ()
    if "keys" not in arrays:
        raise InputError(f"{path} has no array 'keys'. Use collection_level=sampled or add keys.")
    keys = [str(key) for key in arrays["keys"]]
    label_of: dict[str, str] = {}
    for key, label in zip(keys, labels, strict=True):
        if label_of.setdefault(key, label) != label:
            raise InputError(
                f"{path}: the key '{key}' has the labels '{label_of[key]}' and '{label}'; "
                f"the items of a key share one label."
            )
    return number_names([keys[row] for row in rows])
