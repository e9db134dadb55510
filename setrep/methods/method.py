"""What a training method is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder


class TrainingItems(NamedTuple):
    """What may be asked of the training data between epochs, on the CPU."""

    embed: Callable[[], Float[Tensor, "item dim"]]  # every item as it is, in evaluation mode
    labels: Int64[Tensor, " item"]


class Method(nn.Module, ABC):
    """Own every network, loss, queue and prototype of a way to train; do what one step does.

    All state that must survive a restart is in parameters and buffers, so that `state_dict` is
    complete. The encoder and aggregator that are handed over are `encoder` and `aggregator`.
    """

    encoder: ItemEncoder
    aggregator: nn.Module
    num_views = 1  # of each item in a batch
    draws_episodes = True  # else batches of single items

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
