"""Learning the embeddings of collections without their labels, from disjoint parts of each."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setrep.aggregators import Aggregator
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.errors import InputError
from setrep.losses import ContrastiveLoss, NPairLoss
from setrep.methods.collections import aggregate
from setrep.methods.contrastive import contrast
from setrep.methods.method import Method, TrainingItems
from setrep.methods.prior import HasPrior, LabelledPrior
from setrep.methods.supervised import embedding_spread


class SubcollectionMethod(Method):
    r"""Sub-collection contrast: disjoint parts of one collection are views of it (new here).

    A batch holds, of each of $B$ unlabelled collections, $V$ disjoint random parts
    $S_1, \dots, S_V$. Their aggregated embeddings are the views of a contrastive loss: parts of
    one collection are positives, those of the others negatives.

    Why debiased losses fit. Let the collections be random parts of the pools of their hidden
    labels: a random partition of the items of each label. Then all items of a label are
    exchangeable, and any two disjoint sets of places of that random arrangement have the same
    joint law; so two disjoint parts of one collection are distributed exactly as two parts, of the
    same sizes, of two collections of one label. Hence, given that $x$ is a part of a
    collection of label $y$,

    $$ v_j \sim p_x^+, \qquad
       u_i \sim p = \tau^+ p_x^+ + (1 - \tau^+) p_x^-, $$

    with $\tau^+$ the probability that two collections share their label: the assumptions of
    debiased contrastive learning (Chuang et al. 2020, section 3; with equal priors). Augmentations
    only approximate the first: views of one image are much more alike than images of one class.
    Here it is exact, over the draw of partition and parts, and disjoint parts share no item by
    which they could be told. (One fixed partition shows a collection only its own items.)
    Where collections differ within their label (a product photographed by one person), the
    positive is drawn from a narrower law than $p_x^+$, as with augmentations, and what is
    corrected for is only a part.

    With `item_head` the loss on augmented views of the single items is mixed in, whose weight is
    1 - `weight`. Labels reach the losses only where their options ask for them, or where
    `tau_plus` is counted: then from the labels of collections.
    """

    draws = "subcollections"

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        head: nn.Module,
        loss: ContrastiveLoss | NPairLoss,
        *,
        num_parts: int = 2,
        item_head: nn.Module | None = None,
        weight: float = 1.0,
        num_views: int = 2,
        prior: LabelledPrior | None = None,
    ) -> None:
        super().__init__()
        if num_parts < 2:
            raise InputError(
                f"A collection is compared with parts of itself: at least 2, not {num_parts}."
            )
        self.encoder = encoder
        self.aggregator = aggregator
        self.head, self.item_head = head, item_head
        self.loss, self.weight, self.prior = loss, weight, prior
        self.num_parts = num_parts
        self.num_views = 1 if item_head is None else num_views

    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Embed every part, and take the loss of this process's collections against all."""
        if self.prior is not None:
            self.prior.apply_to(cast("HasPrior", self.loss))
        embeddings = self.encoder(batch.views[0])
        aggregated, labels = aggregate(self.aggregator, embeddings, batch)
        # The parts of a collection follow each other in a batch.
        parts = self.head(aggregated).unflatten(0, (-1, self.num_parts)).unbind(dim=1)
        loss, metrics = contrast(self.loss, list(parts), labels[:: self.num_parts])
        metrics["embedding_spread"] = embedding_spread(aggregated)
        if self.prior is not None:
            metrics |= self.prior.metrics()
        if self.item_head is None:
            return loss, metrics
        views = [self.item_head(self.encoder.features(view)) for view in batch.views]
        of_items, of_items_metrics = contrast(self.loss, views, batch.labels)
        named = {f"item_{name}": value for name, value in of_items_metrics.items()}
        return self.weight * loss + (1 - self.weight) * of_items, metrics | named

    def before_epoch(self, epoch: int, training: TrainingItems) -> None:
        """Estimate the prior of collections before the first step, where that is asked for."""
        if self.prior is not None:
            assert training.keys is not None
            self.prior.prepare(labels_of_collections(training.labels, training.keys))


def labels_of_collections(
    labels: Int64[Tensor, " item"], keys: Int64[Tensor, " item"]
) -> Int64[Tensor, " collection"]:
    """Return the label of each natural collection, in the order of their keys."""
    found, place = torch.unique(keys, return_inverse=True)
    return labels.new_zeros(len(found)).scatter(0, place, labels)
