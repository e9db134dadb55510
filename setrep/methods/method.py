"""What a training method is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep.aggregators import Aggregator
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder

# What a batch holds: collections of some classes, single items, or for some natural collections
# disjoint parts of each, whose labels are then not known.
Draws = Literal["episodes", "items", "subcollections"]


class TrainingItems(NamedTuple):
    """What may be asked of the training data between epochs, on the CPU."""

    embed: Callable[[], Float[Tensor, "item dim"]]  # every item as it is, in evaluation mode
    labels: Int64[Tensor, " item"]
    keys: Int64[Tensor, " item"] | None = None  # of natural collections


class Method(nn.Module, ABC):
    """Own every network, loss, queue and prototype of a way to train; do what one step does.

    All state that must survive a restart is in parameters and buffers, so that `state_dict` is
    complete. The encoder and aggregator that are handed over are `encoder` and `aggregator`.
    """

    encoder: ItemEncoder
    aggregator: Aggregator
    num_views = 1  # of each item in a batch
    draws: Draws = "episodes"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups, with a `lr_scale` or `weight_decay` of their own."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @abstractmethod
    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of a batch and what to log."""

    def other_encoders(self) -> dict[str, ItemEncoder]:
        """Name encoders that are kept beside the one handed over, each in a folder of the run."""
        return {}

    def after_step(self, step: int) -> None:
        """Update what the optimiser does not: queues, averaged networks."""

    def before_epoch(self, epoch: int, training: TrainingItems) -> None:
        """Prepare an epoch: cluster the training items, estimate priors."""
