"""Which labels are held out, and the numbering of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from setrep.data.request import DatasetRequest
from setrep.errors import InputError, nearest

TEST_SHARE = 0.3


def number_names(
    names: Sequence[str], known: Sequence[str] | None = None
) -> tuple[Int64[np.ndarray, " item"], tuple[str, ...]]:
    """Return the position of each name among `known`, by default those that occur, and `known`."""
    distinct = sorted(set(names)) if known is None else list(known)
    position = {name: number for number, name in enumerate(distinct)}
    return np.array([position[name] for name in names], dtype=np.int64), tuple(distinct)


def choose_groups(groups: Sequence[str], request: DatasetRequest, kind: str) -> tuple[str, ...]:
    """Return the groups held out for validation: those named, or some drawn by `split_seed`.

    Raises:
        InputError: a named group does not exist, or more are asked for than there are.
    """
    known = sorted(groups)
    for name in request.validation_groups:
        if name not in known:
            raise InputError(
                f"There is no {kind} '{name}' to hold out for validation."
                f"{nearest(name, known)} Known: {', '.join(known)}."
            )
    if request.num_validation_groups > len(known):
        raise InputError(
            f"num_validation_groups is {request.num_validation_groups}, "
            f"but there are only {len(known)} to choose from: {', '.join(known)}."
        )
    if request.validation_groups:
        return tuple(sorted(set(request.validation_groups)))
    return tuple(sorted(_shuffled(known, request.split_seed)[: request.num_validation_groups]))


def split_labels(labels: Sequence[str], request: DatasetRequest, kind: str) -> dict[str, list[str]]:
    """Part labels into train, validation and test, by `split_seed`.

    Test gets 30 % of the labels, rounded, and at least one; the groups for validation are held out
    of the rest, which must leave at least one label for train. The same seed gives the same test
    labels whatever is asked for validation.

    Raises:
        InputError: there are too few labels, or a split would be empty.
    """
    known = sorted(set(labels))
    if len(known) < 2:
        raise InputError(
            f"Splitting by {kind} needs at least 2 {kind}s; found {len(known)}: {', '.join(known)}."
        )
    num_test = max(1, round(TEST_SHARE * len(known)))
    test = _shuffled(known, request.split_seed)[:num_test]
    return {"test": sorted(test), **hold_out([n for n in known if n not in test], request, kind)}


def hold_out(labels: Sequence[str], request: DatasetRequest, kind: str) -> dict[str, list[str]]:
    """Part labels into train and validation.

    Raises:
        InputError: validation is asked for but no group is, or nothing is left to train on.
    """
    held = choose_groups(labels, request, kind)
    train = [name for name in sorted(set(labels)) if name not in held]
    if request.split == "validation" and not held:
        raise_no_validation(kind)
    if not train:
        raise InputError(
            f"Holding out {len(held)} of {len(held)} {kind}s leaves nothing to train on. "
            f"Lower num_validation_groups or name fewer validation_groups."
        )
    return {"train": train, "validation": list(held)}


def raise_no_validation(kind: str) -> None:
    """Say how a validation split is made."""
    raise InputError(
        f"The split 'validation' is empty: no {kind} is held out. "
        f"Set validation_groups (by name) or num_validation_groups (how many)."
    )


def take_rows(items: NDArray[np.generic], rows: Int64[np.ndarray, " n"]) -> NDArray[np.generic]:
    """Select rows; a run of neighbours stays a view, and so stays on disk."""
    start = int(rows[0]) if len(rows) else 0
    is_run = np.array_equal(rows, np.arange(start, start + len(rows)))
    return cast("NDArray[np.generic]", items[start : start + len(rows)] if is_run else items[rows])


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    return [names[int(i)] for i in order]
