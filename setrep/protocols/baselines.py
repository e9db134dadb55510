"""The same measures for any function of items: raw pixels, an untrained encoder, a trained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from setrep.data.dataset import ItemDataset
from setrep.data.one_shot import OneShotTask
from setrep.protocols.collections import Aggregator, evaluate_collections
from setrep.protocols.items import evaluate_items
from setrep.protocols.one_shot import evaluate_one_shot
from setrep.protocols.results import Scores

Embed = Callable[[Shaped[Tensor, "item ..."]], Float[Tensor, "item dim"]]


def pixel_embeddings(items: Shaped[Tensor, "item ..."]) -> Float[Tensor, "item dim"]:
    """Return the raw values of each item as its embedding; uint8 is divided by 255."""
    flat = items.flatten(start_dim=1)
    return flat.float() / 255 if flat.dtype == torch.uint8 else flat.float()


@torch.no_grad()
def embed_dataset(
    dataset: ItemDataset, embed: Embed, *, batch_size: int = 512
) -> Float[Tensor, "item dim"]:
    """Embed every item in order; `embed` gets batches on the CPU. Embeddings are on the CPU."""
    starts = range(0, len(dataset), batch_size)
    batches = (range(at, min(at + batch_size, len(dataset))) for at in starts)
    return torch.cat([embed(dataset.gather(batch)).float().cpu() for batch in batches])


def labels_as_in(dataset: ItemDataset, other: ItemDataset) -> Int64[Tensor, " item"]:
    """Return the labels of `other` with the numbers that `dataset` has for their names.

    Names that `dataset` lacks get numbers of their own, after its.
    """
    known = {name: number for number, name in enumerate(dataset.label_names)}
    numbers = [known.setdefault(name, len(known)) for name in other.label_names]
    return torch.tensor(numbers, dtype=torch.int64)[torch.from_numpy(other.labels)]


def evaluate_embedding(
    embed: Embed,
    dataset: ItemDataset,
    aggregator: Aggregator,
    sizes: Sequence[int],
    *,
    seed: int,
    knn_k: int = 20,
    knn_temperature: float = 0.1,
    num_bootstrap: int = 1000,
    one_shot: OneShotTask | None = None,
    bank: ItemDataset | None = None,
) -> Scores:
    """Measure items, collections and, for image data and a task, one-shot classification.

    With a bank (`train_bank`) items are compared with its items, as they are, not augmented, and
    without MAP@R, for which thousands of training items would be relevant to each.
    """
    embeddings = embed_dataset(dataset, embed)
    return Scores(
        items=evaluate_items(
            embeddings,
            torch.from_numpy(dataset.labels),
            knn_k=knn_k,
            knn_temperature=knn_temperature,
            bank=embed_dataset(bank, embed) if bank else None,
            bank_labels=labels_as_in(dataset, bank) if bank else None,
            with_map_at_r=bank is None,
        ),
        collections=tuple(
            evaluate_collections(
                embeddings, dataset, aggregator, sizes, seed=seed, num_bootstrap=num_bootstrap
            )
        ),
        one_shot=evaluate_one_shot(one_shot, embed, dataset.item_format) if one_shot else None,
    )
