"""`tau_plus="auto"`: the class prior of a loss, estimated from a few labels."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep import priors
from setrep.errors import InputError

NUM_LABELLED = 500  # training items whose labels are looked at


class HasPrior(Protocol):
    """A loss that corrects for a class prior."""

    tau_plus: float


class LabelledPrior(nn.Module):
    """Keep `tau_plus`, estimated once from the labels of five hundred random training items.

    Counting labels is unbiased from the first step on. An estimate from similarities would need an
    encoder that tells classes apart, and more labels for the same spread.
    """

    tau_plus: Float[Tensor, ""]
    interval: Float[Tensor, " 2"]

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._known: float | None = None  # so that no step waits for the GPU
        self.register_buffer("tau_plus", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("interval", torch.full((2,), torch.nan, dtype=torch.float64))

    def apply_to(self, loss: HasPrior) -> None:
        """Set the prior that a loss corrects for, once it is estimated."""
        if self._known is None and not self.tau_plus.isnan():
            self._known = float(self.tau_plus)
        if self._known is not None:
            loss.tau_plus = self._known

    def prepare(self, labels: Int64[Tensor, " item"]) -> None:
        """Estimate the prior from the training items' labels, unless that is done.

        Raises:
            InputError: no two of the items share a label, or all do.
        """
        if not self.tau_plus.isnan():
            return
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(labels), generator=generator)[:NUM_LABELLED]
        found = priors.from_labels(labels[chosen])
        if not 0 < found.value < 1:
            share = "all" if found.value else "none"
            raise InputError(
                f"tau_plus='auto' counts pairs of one label, but {share} of the pairs of "
                f"{len(chosen)} random training items are. Give loss.tau_plus as a number."
            )
        self.tau_plus.fill_(found.value)
        self.interval.copy_(torch.tensor(found.interval))

    def metrics(self) -> dict[str, Tensor]:
        """What to log."""
        low, high = self.interval.unbind()
        return {"tau_plus": self.tau_plus, "tau_plus_low": low, "tau_plus_high": high}
