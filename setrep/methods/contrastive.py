"""Learning item embeddings from views of the same items, without labels."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep import distributed
from setrep.aggregators import Aggregator
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.errors import InputError
from setrep.losses import ContrastiveLoss, NPairLoss
from setrep.methods.method import Method, TrainingItems
from setrep.methods.prior import HasPrior, LabelledPrior
from setrep.methods.supervised import embedding_spread


class ContrastiveMethod(Method):
    """Train items so that views of one lie together and apart from those of others.

    The loss sees a projection of the features that are kept. Labels reach it only where its options
    ask for them, or where `tau_plus` is estimated. Under several processes each takes its own items
    as anchors against those of all, with the gradient of one process on the whole batch; batch
    statistics are those of each process.
    """

    draws = "items"

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        head: nn.Module,
        loss: ContrastiveLoss | NPairLoss,
        *,
        num_views: int = 2,
        prior: LabelledPrior | None = None,
    ) -> None:
        super().__init__()
        if prior is not None and not hasattr(loss, "tau_plus"):
            raise InputError(f"{type(loss).__name__} corrects for no prior: give none.")
        self.encoder = encoder
        self.aggregator = aggregator
        self.head = head
        self.loss = loss
        self.num_views = num_views
        self.prior = prior

    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Embed every view, and take the loss of this process's items against all."""
        if self.prior is not None:
            self.prior.apply_to(cast("HasPrior", self.loss))
        views = [self.head(self.encoder.features(view)) for view in batch.views]
        loss, metrics = contrast(self.loss, views, batch.labels)
        metrics["embedding_spread"] = embedding_spread(views[0].float())
        return loss, metrics | (self.prior.metrics() if self.prior is not None else {})

    def before_epoch(self, epoch: int, training: TrainingItems) -> None:
        """Estimate the class prior before the first step, where that is asked for."""
        if self.prior is not None:
            self.prior.prepare(training.labels)


def contrast(
    loss: ContrastiveLoss | NPairLoss,
    views: list[Float[Tensor, "n dim"]],
    labels: Int64[Tensor, " n"] | None,
    **more: Any,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Take a loss with this process's items as anchors and those of all as keys.

    Averaged over processes it is the loss of the whole batch, also with unequal shares.
    """
    start, total = distributed.share_of(len(views[0]), views[0].device)
    everyone = [distributed.gather(view) for view in views]
    more = {name: [distributed.gather(view) for view in of] for name, of in more.items()}
    if loss.uses_labels and labels is None:
        raise InputError("This loss asks for labels, and the data has none.")
    labels = distributed.gather(labels) if loss.uses_labels and labels is not None else None
    own = torch.arange(start, start + len(views[0]), device=views[0].device)
    value, metrics = loss.with_metrics(*everyone, labels=labels, anchors=own, **more)
    share = len(own) / total
    watched = torch.stack([metric.double() for metric in metrics.values()]) * share
    metrics = dict(zip(metrics, distributed.total(watched).unbind(), strict=True))
    return value * share * distributed.world_size(), metrics
