"""Learning item embeddings from labels: triplets with mining, or supervised contrastive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep import distributed
from setrep.aggregators import Aggregator
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.functional import Triplets, all_triplets
from setrep.losses.supcon import SupConLoss
from setrep.losses.triplet import TripletMarginLoss
from setrep.methods.method import Method
from setrep.miners import Miner

Mines = Callable[..., Triplets]  # a miner, called as (embeddings, labels, collections, anchors=)


class SupervisedMethod(Method):
    """Train items so that those of one label lie together (Karimov 2024, instance level).

    Mining begins at step `start_step`; until then every valid triplet with a positive of its own
    collection counts. The hardest negatives draw a random network into one point (Schroff et al.
    2015, section 3.2); one that can tell collections apart goes on learning from them.
    Under several processes each takes its own items as anchors against those of all, with the
    gradient of one process on the whole batch; a loss of other classes is computed whole by each.
    """

    steps_done: Int64[Tensor, ""]

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        loss: TripletMarginLoss | SupConLoss,
        miner: Miner | None = None,
        *,
        start_step: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.aggregator = aggregator
        self.loss = loss
        self.miner = miner
        self.start_step = start_step
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Embed one view, mine triplets where the loss wants them, and take the loss."""
        assert batch.labels is not None
        embeddings = self.encoder(batch.views[0])
        is_warm_up = bool(self.start_step) and int(self.steps_done) < self.start_step
        miner = all_of_own_collection if is_warm_up else self.miner
        return supervise(self.loss, miner, embeddings, batch.labels, batch.collections)

    def after_step(self, step: int) -> None:
        """Count, so that a continued run begins to mine where an unbroken one does."""
        self.steps_done.fill_(step + 1)


def supervise(
    loss: TripletMarginLoss | SupConLoss,
    miner: Mines | None,
    embeddings: Float[Tensor, "n dim"],
    labels: Int64[Tensor, " n"],
    collections: Int64[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Take a loss of labelled embeddings with this process's as anchors against those of all.

    Averaged over processes it is the loss of the whole batch, also with unequal shares.
    """
    own, total, scale = share_of_batch(loss, embeddings)
    if collections is not None:
        first, _ = distributed.share_of(int(collections.max()) + 1, labels.device)
        collections = distributed.gather(collections + first)  # each rank's start from 0
    embeddings, labels = distributed.gather(embeddings), distributed.gather(labels)
    if miner is None:
        value, metrics = loss.with_metrics(
            embeddings, labels, collections=collections, **own, **total
        )
    else:
        triplets = miner(embeddings, labels, collections, **own)
        value, metrics = loss.with_metrics(embeddings, labels, triplets, **total)
    return scale * value, metrics | {"embedding_spread": embedding_spread(embeddings)}


def all_of_own_collection(
    embeddings: Float[Tensor, "n dim"],
    labels: Int64[Tensor, " n"],
    collections: Int64[Tensor, " n"] | None = None,
    *,
    anchors: Int64[Tensor, " anchor"] | None = None,
) -> Triplets:
    """Mine nothing: take every valid triplet with a positive of the anchor's own collection."""
    return all_triplets(labels, collections, "same_collection", anchors)


def share_of_batch(
    loss: TripletMarginLoss | SupConLoss, embeddings: Float[Tensor, "n dim"]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return what names this process's anchors, what adds counts, and the scale of its loss.

    Gradients are averaged over processes, but their parts of one loss must be added.
    """
    knows_anchors = type(loss) in (TripletMarginLoss, SupConLoss)  # not a subclass
    if distributed.world_size() == 1 or not knows_anchors:
        return {}, {}, 1
    start, _ = distributed.share_of(len(embeddings), embeddings.device)
    anchors = torch.arange(start, start + len(embeddings), device=embeddings.device)
    return {"anchors": anchors}, {"total": distributed.total}, distributed.world_size()


@torch.no_grad()
def embedding_spread(embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Return the root mean square distance to the mean over that to the origin; 0 is collapse."""
    scatter = (embeddings - embeddings.mean(dim=0)).square().sum(dim=1).mean()
    return (scatter / embeddings.square().sum(dim=1).mean().clamp(min=1e-30)).sqrt()
