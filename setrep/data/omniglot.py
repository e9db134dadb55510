"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people (Lake et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from setrep.data.cache import decode_items
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.omniglot_files import PARTS, Drawing, open_part
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.splits import choose_groups, hold_out, number_names, take_rows
from setrep.errors import InputError

INFO = DatasetInfo(
    name="omniglot",
    summary="drawings of characters: background alphabets to train on, evaluation ones to test on",
    splits=SPLITS,
    label_levels=("character", "alphabet"),
    collection_levels=("sampled", "character"),
    subsets=("full", "small1", "small2"),
    needs="DATA/omniglot-py/images_background.zip and images_evaluation.zip (for the subsets also "
    "images_background_small1.zip, images_background_small2.zip), or directories of these names; "
    "else a network",
)
BACKGROUND = "images_background"
SIDE = 105
MAX_NAMED = 5


def load(request: DatasetRequest) -> ItemDataset:
    """Read the drawings of one split, ink bright on black.

    Validation alphabets come out of the background. With a subset they are background alphabets
    that the subset does not have, so that train keeps all of it; all of them if none is named.
    """
    if request.label_level == "character" and request.collection_level == "character":
        raise InputError(
            "With label_level=character and collection_level=character a label is one single "
            "collection, so nothing could be retrieved. Use label_level=alphabet, or "
            "collection_level=sampled."
        )
    part = _part(request)
    archive, drawings = open_part(part, request.data_root)
    chosen = _alphabets(drawings, request)
    item_format = ItemFormat("image", 1, request.image_size or SIDE, is_inverted=True)
    # The whole part is decoded once, so that another choice of alphabets finds it in the cache.
    decoded = decode_items(
        archive, [d.file for d in drawings], item_format, on_bad_image=request.on_bad_image
    )
    by_file = {drawing.file: drawing for drawing in drawings}
    rows = [row for row, name in enumerate(decoded.names) if by_file[name].alphabet in chosen]
    kept = [by_file[decoded.names[row]] for row in rows]
    skipped = sum(by_file[name].alphabet in chosen for name in decoded.skipped)
    characters = number_names([drawing.character for drawing in kept])
    alphabets = number_names([drawing.alphabet for drawing in kept])
    labels, label_names = characters if request.label_level == "character" else alphabets
    keys, key_names = characters if request.collection_level == "character" else (None, ())
    return ItemDataset(
        name="omniglot",
        split=request.split,
        items=take_rows(decoded.items, np.array(rows, dtype=np.int64)),
        labels=labels,
        label_names=label_names,
        item_format=item_format,
        label_level=request.label_level,
        collection_level=request.collection_level,
        keys=keys,
        key_names=key_names,
        source_note=_source_note(part, kept, request, skipped),
    )


def _part(request: DatasetRequest) -> str:
    if request.split == "test":
        return "images_evaluation"
    is_subset = request.subset != "full" and request.split == "train"
    return f"{BACKGROUND}_{request.subset}" if is_subset else BACKGROUND


def _alphabets(drawings: Sequence[Drawing], request: DatasetRequest) -> list[str]:
    """Return the alphabets of the split asked for, among those of the part it is read from."""
    found = sorted({drawing.alphabet for drawing in drawings})
    if request.split == "test":
        return found
    if request.subset == "full":
        return hold_out(found, request, "background alphabet")[request.split]
    if request.split == "train":
        _refuse_overlap(found, request)
        return found
    _, inside = open_part(f"{BACKGROUND}_{request.subset}", request.data_root)
    taken = {drawing.alphabet for drawing in inside}
    _refuse_overlap(sorted(taken), request)
    outside = [name for name in found if name not in taken]
    if not request.has_validation_groups:
        return outside
    return list(choose_groups(outside, request, f"background alphabet outside {request.subset}"))


def _refuse_overlap(inside: Sequence[str], request: DatasetRequest) -> None:
    for name in request.validation_groups:
        if name in inside:
            raise InputError(
                f"The alphabet '{name}' belongs to the subset {request.subset}, which is trained "
                f"on whole. Validate on alphabets outside it, not on {', '.join(inside)}."
            )


def _source_note(part: str, kept: Sequence[Drawing], request: DatasetRequest, skipped: int) -> str:
    """Say what was really read, measured against the official counts."""
    alphabets = sorted({drawing.alphabet for drawing in kept})
    num_characters = len({drawing.character for drawing in kept})
    official = PARTS[part]
    is_whole = len(alphabets) == official.num_alphabets
    share = "all" if is_whole else f"{len(alphabets)} of"
    is_complete = num_characters == official.num_characters
    characters = f"{num_characters}" + (
        f" of {official.num_characters}" if is_whole and not is_complete else ""
    )
    note = (
        f"Omniglot, {share} {official.num_alphabets} {official.title} alphabets, "
        f"{characters} characters, {len(kept)} drawings"
    )
    if request.split == "validation":
        where = "" if request.subset == "full" else f" outside {request.subset}"
        is_short = len(alphabets) <= MAX_NAMED
        named = ", ".join(alphabets) if is_short else f"{len(alphabets)} alphabets{where}"
        note += f" (validation: {named})"
    return note + (f"; {skipped} unreadable images skipped" if skipped else "")
