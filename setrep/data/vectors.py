"""Vectors of one's own, from an `.npz` file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from setrep.data.archive import admit
from setrep.data.archive_kinds import BROKEN, MEMBERS, ArchiveLimits, one_line
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.splits import number_names, split_labels, take_rows
from setrep.errors import InputError

INFO = DatasetInfo(
    name="vectors",
    summary="vectors of your own: an .npz with values [N, D], labels [N], perhaps keys and splits",
    splits=SPLITS,
    label_levels=("label",),
    collection_levels=("sampled", "key"),
    subsets=("full",),
    needs="--data-root FILE.npz; without splits the labels are split by split_seed",
)
NAMES = ("values", "labels", "keys", "splits")
LIMITS = ArchiveLimits(member_bytes=2**36)  # one member is a whole data set here, not one image
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def load(request: DatasetRequest) -> ItemDataset:
    """Read the vectors of one split, as float32.

    Where `splits` names the split of each vector, that counts, and a label has one number in all
    of them; else labels are parted as those of `folder` are.
    """
    path = request.data_root
    if path is None:
        raise InputError("The data set 'vectors' needs a file. Name it with --data-root FILE.npz.")
    arrays = _read(path)
    labels = [str(label) for label in arrays["labels"]]
    if "splits" in arrays:
        rows = _rows_of_split(path, arrays["splits"], request)
        numbers, label_names = number_names([labels[row] for row in rows], sorted(set(labels)))
    else:
        parted = set(split_labels(labels, request, "label")[request.split])
        rows = np.flatnonzero([label in parted for label in labels])
        numbers, label_names = number_names([labels[row] for row in rows])
    chosen = {labels[row] for row in rows}
    keys, key_names = _keys(path, arrays, labels, rows, request)
    return ItemDataset(
        name="vectors",
        split=request.split,
        items=take_rows(arrays["values"], rows),
        labels=numbers,
        label_names=label_names,
        item_format=ItemFormat("vector", arrays["values"].shape[1], 1),
        label_level=request.label_level,
        collection_level=request.collection_level,
        keys=keys,
        key_names=key_names,
        source_note=f"{path.name}, {len(chosen)} of {len(set(labels))} labels, {len(rows)} vectors",
    )


def _rows_of_split(
    path: Path, splits: NDArray[np.generic], request: DatasetRequest
) -> NDArray[np.int64]:
    """Return the rows that are named after the split; whole labels cannot be held out besides."""
    found = sorted(set(map(str, splits)))
    if not set(found) <= set(SPLITS):
        unknown = next(name for name in found if name not in SPLITS)
        raise InputError(f"{path}: splits holds '{unknown}'; known: {', '.join(SPLITS)}.")
    if request.has_validation_groups:
        raise InputError(
            f"{path} names the split of each vector already; drop validation_groups and "
            f"num_validation_groups, or the array 'splits'."
        )
    if request.split not in found:
        raise InputError(f"{path} has no vector of the split '{request.split}'.")
    return np.flatnonzero(splits.astype(str) == request.split)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the arrays after their headers were checked; values become float32, once."""
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            admit(path, MEMBERS["zip"](path, LIMITS), LIMITS)
            found = [name for name in NAMES if f"{name}.npy" in archive.namelist()]
            _check_headers(path, {name: _header(archive, name) for name in found})
            for name in found:
                with archive.open(f"{name}.npy") as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                arrays[name] = _as_float32(path, array) if name == "values" else array
    except InputError:
        raise
    except (*BROKEN, MemoryError, LookupError, TypeError, AttributeError, TokenError) as error:
        why = f" ({one_line(error)})" if isinstance(error, OSError) else ""
        raise InputError(
            f"{path} is not an .npz of plain arrays named values, labels and keys{why}."
        ) from error
    return arrays


def _header(archive: ZipFile, name: str) -> Header:
    """Read what an array says of itself; no more bytes are believed than the member has."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        shape, _, dtype = HEADERS[version](member)
        has_all = info.file_size - member.tell() == math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or not has_all:
        raise ValueError("holds objects, or another number of bytes than its header says")
    return Header(shape, dtype)


def _check_headers(path: Path, headers: dict[str, Header]) -> None:
    for name in ("values", "labels"):
        if name not in headers:
            raise InputError(f"{path} has no array '{name}'; found {', '.join(headers) or 'none'}.")
    values = headers["values"]
    if len(values.shape) != 2 or values.dtype.kind != "f" or 0 in values.shape:
        raise InputError(
            f"{path}: values must be floats of shape [N, D], not {values.dtype} {values.shape}."
        )
    for name in sorted(headers.keys() - {"values"}):
        shape, dtype = headers[name]
        if shape != values.shape[:1] or dtype.kind not in "iuU":
            raise InputError(
                f"{path}: {name} must be {values.shape[0]} whole numbers or strings, one for each "
                f"vector, not {dtype} {shape}."
            )


def _as_float32(path: Path, values: NDArray[np.generic]) -> NDArray[np.float32]:
    # Checked after the cast, which turns what float32 cannot hold into infinity.
    with np.errstate(over="ignore"):
        cast = values.astype(np.float32, copy=False)
    is_finite = np.isfinite(cast).all(axis=1)
    if not is_finite.all():
        raise InputError(
            f"{path}: row {int(np.flatnonzero(~is_finite)[0])} of values is not finite in float32 "
            f"({int((~is_finite).sum())} such rows). Remove them."
        )
    return cast


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
