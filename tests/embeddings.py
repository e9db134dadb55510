"""Random embeddings, alone or around the centres of their labels."""

import torch

from setrep.data.dataset import ItemDataset, ItemFormat

METRICS = ("inner_product", "euclidean")


def random_vectors(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def clustered(num_items, num_classes, *, noise=1.0, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, dim, generator=generator)
    labels = torch.arange(num_items) % num_classes
    return centres[labels] + noise * torch.randn(num_items, dim, generator=generator), labels


def vector_dataset(values, labels, keys=None):
    return ItemDataset(
        name="clusters",
        split="test",
        items=values.numpy(),
        labels=labels.numpy(),
        label_names=tuple(f"class {i}" for i in range(int(labels.max()) + 1)),
        item_format=ItemFormat("vector", values.shape[1], 1),
        label_level="label",
        collection_level="sampled" if keys is None else "key",
        keys=None if keys is None else keys.numpy(),
    )
