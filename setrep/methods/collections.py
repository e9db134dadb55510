"""Learning the embeddings of collections from labels: at group level, not item by item."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from setrep.aggregators import Aggregator
from setrep.collection import CollectionBatch
from setrep.data.batch import Batch
from setrep.encoders import ItemEncoder
from setrep.errors import InputError
from setrep.losses.supcon import SupConLoss
from setrep.losses.triplet import TripletMarginLoss
from setrep.methods.method import Method
from setrep.methods.supervised import supervise
from setrep.miners import Miner


class Objective(NamedTuple):
    """A loss, and the miner of its triplets where it takes any."""

    loss: TripletMarginLoss | SupConLoss
    miner: Miner | None = None


class CollectionMethod(Method):
    r"""Train collections so that those of one label lie together (Karimov 2024, section 6: open).

    $$ L = w\, L\big(f(G_1), \dots, f(G_B)\big) + (1 - w)\, L(x_1, \dots, x_N) $$

    The loss compares the aggregated embeddings of an episode's collections as if they were items,
    each against those of other collections only, and learns encoder and aggregator through them.
    With `items` a loss on the items is mixed in, whose weight is 1 - `weight`. Collections may be
    of any sizes, singletons too. Under several processes each takes its own collections as anchors
    against those of all, with the gradient of one process on the whole batch.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        aggregator: Aggregator,
        collections: Objective,
        items: Objective | None = None,
        *,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if (items is None) != (weight == 1.0) or not 0 <= weight <= 1:
            raise InputError(
                f"weight must be 1 without a loss on items, and from 0 to below 1 beside one; "
                f"found {weight}."
            )
        self.encoder = encoder
        self.aggregator = aggregator
        self.collections, self.items, self.weight = collections, items, weight

    def step(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Embed the collections of an episode, and take the loss of them and of their items."""
        assert batch.labels is not None
        embeddings = self.encoder(batch.views[0])
        aggregated, labels = aggregate(self.aggregator, embeddings, batch)
        loss, metrics = supervise(*self.collections, aggregated, labels)
        if self.items is None:
            return loss, metrics
        of_items, of_items_metrics = supervise(
            *self.items, embeddings, batch.labels, batch.collections
        )
        named = {f"item_{name}": value for name, value in of_items_metrics.items()}
        return self.weight * loss + (1 - self.weight) * of_items, metrics | named


def aggregate(
    aggregator: Aggregator, embeddings: Float[Tensor, "item dim"], batch: Batch
) -> tuple[Float[Tensor, "collection dim_out"], Int64[Tensor, " collection"]]:
    """Embed the collections of a batch, and return the label of each."""
    assert batch.offsets is not None
    assert batch.labels is not None
    aggregated = aggregator(CollectionBatch(embeddings, batch.offsets))
    return aggregated, batch.labels[batch.offsets[:-1]]
