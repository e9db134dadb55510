"""Learning with two encoders: one amplifies bias, the other weighs negatives by the difference."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from setrep import distributed
from setrep.aggregators import Aggregator
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.losses import DebiasedTripletLoss, DifficultyWeightedLoss
from setrep.methods.contrastive import contrast
from setrep.methods.method import Method, TrainingItems
from setrep.methods.prior import LabelledPrior
from setrep.methods.supervised import embedding_spread


class DifficultyMethod(Method):
    """Train an encoder and a biased one on the same views (Jang & Wang, CVPR 2023).

    The biased encoder learns by the debiased triplet loss, which easy negatives dominate. The other
    learns contrastively, with negatives weighted by how much harder they are for it than for the
    biased one. Their losses share no parameters; the biased one's learning rate is
    `biased_lr_scale` times the other's. The first is what is kept.
    """

    num_views = 2
    draws = "items"

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        head: nn.Module,
        loss: DifficultyWeightedLoss,
        biased_encoder: ItemEncoder,
        biased_head: nn.Module,
        biased_loss: DebiasedTripletLoss,
        *,
        biased_lr_scale: float = 10.0,
        prior: LabelledPrior | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.aggregator = encoder, aggregator
        self.head, self.loss = head, loss
        self.biased_encoder, self.biased_head = biased_encoder, biased_head
        self.biased_loss = biased_loss
        self.biased_lr_scale = biased_lr_scale
        self.prior = prior

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return a group of each encoder with its head."""
        own = [*self.encoder.parameters(), *self.head.parameters()]
        biased = [*self.biased_encoder.parameters(), *self.biased_head.parameters()]
        return [
            {"params": [p for p in own if p.requires_grad]},
            {"params": [p for p in biased if p.requires_grad], "lr_scale": self.biased_lr_scale},
        ]

    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Embed both views twice; the sum of two losses that share no parameters."""
        if self.prior is not None:
            self.prior.apply_to(self.loss)
            self.prior.apply_to(self.biased_loss)
        views = [self.head(self.encoder.features(view)) for view in batch.views]
        biased = [self.biased_head(self.biased_encoder.features(view)) for view in batch.views]
        loss, metrics = contrast(
            self.loss, views, batch.labels, biased=[v.detach() for v in biased]
        )
        biased_loss, _ = contrast(self.biased_loss, biased, batch.labels)
        metrics["biased_loss"] = distributed.total(biased_loss.detach()) / distributed.world_size()
        metrics["embedding_spread"] = embedding_spread(views[0].float())
        return loss + biased_loss, metrics | (
            self.prior.metrics() if self.prior is not None else {}
        )

    def other_encoders(self) -> dict[str, ItemEncoder]:
        """Keep the biased encoder: the report compares the two."""
        return {"biased": self.biased_encoder}

    def before_epoch(self, epoch: int, training: TrainingItems) -> None:
        """Estimate the class prior before the first step, where that is asked for."""
        if self.prior is not None:
            self.prior.prepare(training.labels)
