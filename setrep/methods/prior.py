"""`tau_plus="auto"`: the class prior of a loss, estimated anew while training."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep import distributed, priors
from setrep.errors import InputError
from setrep.methods.method import TrainingItems

NUM_LABELLED = 1000  # items whose labels are looked at
NUM_POSITIVES = 500  # pairs of them that share a label
NUM_RANDOM = 200_000  # pairs of any two training items


class HasPrior(Protocol):
    """A loss that corrects for a class prior."""

    tau_plus: float


class PriorTracker(nn.Module):
    """Keep `tau_plus`, estimated from the embeddings at the start of each epoch but the first.

    Known positive pairs are those of one label among a thousand random training items; labels are
    used for nothing else. Until the first estimate the loss keeps the value it was built with.
    """

    tau_plus: Float[Tensor, ""]
    interval: Float[Tensor, " 2"]

    def __init__(self, tau_plus: float, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("tau_plus", torch.tensor(tau_plus, dtype=torch.float64))
        self.register_buffer("interval", torch.full((2,), torch.nan, dtype=torch.float64))

    def apply_to(self, loss: HasPrior) -> None:
        """Set the prior that a loss corrects for."""
        loss.tau_plus = float(self.tau_plus)

    def update(self, epoch: int, training: TrainingItems) -> None:
        """Estimate the prior, once the encoder has had an epoch to learn.

        Raises:
            InputError: the labels give no positive pairs.
        """
        if epoch == 0:
            return
        # One process decides: batch statistics, and so embeddings, are each process's own.
        found = distributed.from_rank_0(lambda: self._estimate(epoch, training))
        self.tau_plus.fill_(min(max(found.value, 1e-8), 0.999))
        self.interval.copy_(torch.tensor(found.interval))

    def _estimate(self, epoch: int, training: TrainingItems) -> priors.PriorEstimate:
        generator = torch.Generator().manual_seed(self.seed + epoch)
        embeddings = nn.functional.normalize(training.embed())
        positives = positive_pairs(training.labels, generator)
        randoms = random_pairs(len(embeddings), generator)
        return priors.estimate(
            *(similarity(embeddings, pairs) for pairs in (positives, randoms)), seed=self.seed
        )

    def metrics(self) -> dict[str, Tensor]:
        """What to log."""
        low, high = self.interval.unbind()
        found = {"tau_plus": self.tau_plus}
        return found if low.isnan() else found | {"tau_plus_low": low, "tau_plus_high": high}


def positive_pairs(
    labels: Int64[Tensor, " item"], generator: torch.Generator
) -> Int64[Tensor, "pair 2"]:
    """Draw pairs of one label among a few items, whatever the sizes of their classes."""
    chosen = torch.randperm(len(labels), generator=generator)[:NUM_LABELLED]
    found = labels[chosen]
    pairs = torch.triu(found.unsqueeze(0) == found.unsqueeze(1), diagonal=1).nonzero()
    if not len(pairs):
        raise InputError(
            f"tau_plus='auto' needs pairs of one label, but no two of {len(chosen)} random "
            f"training items share one. Give loss.tau_plus as a number."
        )
    order = torch.randperm(len(pairs), generator=generator)[:NUM_POSITIVES]
    return chosen[pairs[order]]


def random_pairs(num_items: int, generator: torch.Generator) -> Int64[Tensor, "pair 2"]:
    """Draw pairs of two different items."""
    first = torch.randint(num_items, (NUM_RANDOM,), generator=generator)
    step = torch.randint(1, num_items, (NUM_RANDOM,), generator=generator)
    return torch.stack([first, (first + step) % num_items], dim=1)


def similarity(
    embeddings: Float[Tensor, "item dim"], pairs: Int64[Tensor, "pair 2"]
) -> Float[Tensor, " pair"]:
    """Return the inner product of each pair, a part at a time."""
    parts = [
        (embeddings[part[:, 0]] * embeddings[part[:, 1]]).sum(dim=1)
        for part in torch.split(pairs, 8192)
    ]
    return torch.cat(parts)
