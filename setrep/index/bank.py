"""A bank that many queries search: checked, and moved to where float32 is fine, once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.index.metric import LARGEST_VALUE, Metric
from setrep.index.scores import centre_of, move


@dataclass(frozen=True, eq=False)
class Bank:
    """Items as they are, and as float32 products see them; the same memory where that is enough.

    `widest` is at least the norm of every item, or none where no bound asks for it.
    """

    values: Float[Tensor, "item dim"]
    near: Float32[Tensor, "item dim"]
    metric: Metric
    centre: Float64[Tensor, " dim"] | None
    widest: Float64[Tensor, ""] | None

    @classmethod
    @torch.no_grad()
    def of(cls, values: Float[Tensor, "item dim"], metric: Metric) -> Bank:
        """Prepare a bank of at least one item.

        Raises:
            InputError: it holds NaN, infinity or values too large.
        """
        values = values.detach()
        check_values("bank", values)
        wide = torch.promote_types(values.dtype, torch.float32)
        norms = torch.linalg.vector_norm(values, dim=1, dtype=wide)
        centre = centre_of(values, norms) if metric == "euclidean" else None
        lost = values.shape[1] * torch.finfo(wide).tiny  # squares below the exponents
        widest = (norms.max().double().square() + lost).sqrt() if len(norms) else None
        near = move(values, centre, torch.float32)
        return cls(values, near, metric, centre, None if metric == "euclidean" else widest)

    def take(self, rows: Int64[Tensor, " row"]) -> Bank:
        """Return a bank of some items, in rising order; what holds for all holds for them."""
        if len(rows) == len(self):
            return self
        values = self.values[rows]
        near = values if self.near is self.values else self.near[rows]
        return replace(self, values=values, near=near)

    def __len__(self) -> int:
        return len(self.values)


def check_values(name: str, values: Tensor) -> None:
    """Refuse values that no score can be measured of."""
    least, most = (float(end) for end in values.aminmax()) if values.numel() else (0.0, 0.0)
    if not (least > -LARGEST_VALUE and most < LARGEST_VALUE):  # so for NaN, too
        raise InputError(
            f"The {name} hold NaN, infinity or values beyond {LARGEST_VALUE:g}. "
            f"Check the model's weights, or scale the embeddings."
        )
