"""The handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.images import to_item
from setrep.data.request import SPLITS, DatasetInfo, DatasetRequest
from setrep.data.splits import hold_out, number_names

INFO = DatasetInfo(
    name="digits",
    summary="1,797 handwritten digits of 8x8 pixels; the classes 7, 8 and 9 are the test split",
    splits=SPLITS,
    label_levels=("digit",),
    collection_levels=("sampled",),
    subsets=("full",),
    needs="nothing: the images ship with scikit-learn",
)
TEST_DIGITS = ("7", "8", "9")
BRIGHTEST = 16


def load(request: DatasetRequest) -> ItemDataset:
    """Read the digits of one split; ink is bright already."""
    from sklearn.datasets import load_digits

    source = load_digits()
    item_format = ItemFormat("image", 1, request.image_size or 8)
    names = [str(digit) for digit in range(10)]
    digits = {"test": list(TEST_DIGITS)}
    if request.split != "test":
        digits |= hold_out([name for name in names if name not in TEST_DIGITS], request, "digit")
    chosen = digits[request.split]
    rows = np.flatnonzero(np.isin(source.target, [int(name) for name in chosen]))
    pixels = np.rint(source.images[rows] * (255 / BRIGHTEST)).astype(np.uint8)
    items = np.stack([to_item(Image.fromarray(image), item_format) for image in pixels])
    labels, label_names = number_names([str(digit) for digit in source.target[rows]], chosen)
    return ItemDataset(
        name="digits",
        split=request.split,
        items=items,
        labels=labels,
        label_names=label_names,
        item_format=item_format,
        label_level=request.label_level,
        source_note=f"scikit-learn digits, classes {', '.join(chosen)}, {len(rows)} images",
    )
