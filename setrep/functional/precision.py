"""The precision that sums and distances are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return half-precision input as float32 and other input unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
