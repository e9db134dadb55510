"""Splits where train and test share their classes: which training images are in a split."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from setrep.data.collections import derive_generator
from setrep.data.request import DatasetRequest
from setrep.data.splits import hold_out
from setrep.errors import InputError


class Named(NamedTuple):
    """Number the name of each item."""

    numbers: NDArray[np.int64]  # [N], index names
    names: tuple[str, ...]


def choose_rows(
    labels: Named, classes: Named, request: DatasetRequest
) -> Int64[np.ndarray, " row"]:
    """Return which of the published training images are train, or validation, in their order.

    The two never share an image. A label may have several classes.

    - `validation_groups` or `num_validation_groups`: all images of these labels are validation,
      all others train.
    - `num_validation_items=n`: n images of each class are validation, all others train.
    - Neither: all are train, and validation is refused.

    `num_train_items=n` keeps n images of train, of each class in proportion. Each class has one
    order, drawn by `split_seed`: validation takes from its front and train from its end, so that
    with classes of one size these n do not depend on `num_validation_items`.

    Raises:
        InputError: more is asked for than there is, or a split would be empty.
    """
    position, size = _positions(classes.numbers, request.split_seed)
    if request.has_validation_groups:
        present = [labels.names[label] for label in np.unique(labels.numbers)]
        held = [labels.names.index(n) for n in hold_out(present, request, "class")["validation"]]
        is_held = np.isin(labels.numbers, held)
    else:
        _check_validation(classes, size, request)
        is_held = position < request.num_validation_items
    if request.split == "validation":
        return np.flatnonzero(is_held)
    if request.num_train_items is None:
        return np.flatnonzero(~is_held)
    share = _shares(classes, is_held, request.num_train_items)
    return np.flatnonzero(size - position <= share[classes.numbers])  # what is held lies before


def proportional(total: int, sizes: Int64[np.ndarray, " class"]) -> Int64[np.ndarray, " class"]:
    """Part `total` in proportion to `sizes`, by largest remainders; of equal ones the first."""
    counts, remainders = np.divmod(total * sizes, sizes.sum())
    largest = np.argsort(-remainders, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def _positions(
    classes: NDArray[np.int64], seed: int
) -> tuple[Int64[np.ndarray, " item"], Int64[np.ndarray, " item"]]:
    """Return the position of each item in the order of its class, and the size of its class."""
    position, size = np.empty_like(classes), np.empty_like(classes)
    for number in np.unique(classes).tolist():
        rows = np.flatnonzero(classes == number)
        generator = derive_generator(seed, number)
        position[rows] = torch.randperm(len(rows), generator=generator).numpy()
        size[rows] = len(rows)
    return position, size


def _check_validation(classes: Named, size: NDArray[np.int64], request: DatasetRequest) -> None:
    if request.split == "validation" and not request.num_validation_items:
        raise InputError(
            "The split 'validation' is empty: nothing is held out. Set num_validation_items "
            "(images of each class), validation_groups (classes) or num_validation_groups."
        )
    smallest = int(size.argmin())
    if request.num_validation_items >= size[smallest]:
        raise InputError(
            f"num_validation_items is {request.num_validation_items}, but the class "
            f"'{classes.names[classes.numbers[smallest]]}' has {size[smallest]} images to train "
            f"and validate on. Lower it, so that each class keeps one."
        )


def _shares(classes: Named, is_held: NDArray[np.bool_], total: int) -> Int64[np.ndarray, " class"]:
    sizes = np.bincount(classes.numbers[~is_held], minlength=len(classes.names))
    if total > sizes.sum():
        raise InputError(
            f"num_train_items is {total}, but there are only {sizes.sum()} images to train on."
        )
    shares = proportional(total, sizes)
    if (shares[sizes > 0] == 0).any():
        raise InputError(
            f"num_train_items is {total}, too few for each of {np.count_nonzero(sizes)} classes "
            f"to get one. Raise it."
        )
    return shares
