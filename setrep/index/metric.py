"""What engines and searches share that needs no torch: writing an index imports none."""

from __future__ import annotations

from typing import Literal

Metric = Literal["inner_product", "euclidean"]

LARGEST_VALUE = 1e15  # squares and sums of larger ones overflow float32
