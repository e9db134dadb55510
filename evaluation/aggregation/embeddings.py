"""The encoder of a cell, and the embeddings that its aggregators are compared on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.aggregation.plan import SOURCES, Cell, encoder_settings
from setrep.config import merge, resolve
from setrep.data.dataset import ItemDataset
from setrep.protocols.baselines import embed_dataset
from setrep.reports import runs
from setrep.set_encoder import SetEncoder
from setrep.training.build import load_split

NOISE = 0.5  # deviation of what is added to pixels in [0, 1]
OCCLUDED = 0.6  # side of the square that is painted over, of that of the image


def train_encoder(cell: Cell, place: Path, max_minutes: float | None) -> SetEncoder | None:
    """Train the encoder of a cell, or continue; none if it ran out of time."""
    directory = place / "encoder"
    more = {"output_dir": str(directory), "training": {"max_minutes": max_minutes}}
    config = resolve(merge(encoder_settings(cell), more))
    if not (directory / "evaluation.json").exists():
        run = runs.train(config, resume=(directory / "config.yaml").exists())
        if run.evaluation is None:
            return None
    return SetEncoder.from_pretrained(directory)


def splits_of(cell: Cell) -> dict[str, ItemDataset]:
    """Read the items of a cell: trained classes, and two sets of classes held out."""
    data = resolve(encoder_settings(cell)).data
    found = {split: load_split(data, split) for split in ("train", "validation", "test")}
    if SOURCES[cell.source].shares_held_out:  # half of the classes held out stand for the test
        held_out = found["validation"]
        classes = np.random.default_rng(0).permutation(np.unique(held_out.labels))
        is_first = np.isin(held_out.labels, classes[: len(classes) // 2])
        found["validation"] = held_out.subset(np.flatnonzero(is_first))
        found["test"] = held_out.subset(np.flatnonzero(~is_first))
    return found


def write_embeddings(
    cell: Cell, encoder: SetEncoder, place: Path, *, is_corrupted_too: bool = True
) -> Path:
    """Embed every item, those held out also as noisy and occluded; return the file of vectors."""
    path = place / "embeddings.npz"
    if path.exists():
        return path
    values, labels, splits = [], [], []
    for split, dataset in splits_of(cell).items():
        values.append(embed_dataset(dataset, encoder.encode).numpy())
        labels += [f"{split} {dataset.label_names[label]}" for label in dataset.labels]
        splits += [split] * len(dataset)
        if is_corrupted_too and split != "train":
            np.savez(place / f"{split}.npz", **embed_corrupted(dataset, encoder))
    scratch = path.with_suffix(".part.npz")
    np.savez(scratch, values=np.concatenate(values), labels=np.array(labels), splits=splits)
    scratch.replace(path)
    return path


def embed_corrupted(dataset: ItemDataset, encoder: SetEncoder) -> dict[str, NDArray[Any]]:
    """Embed all items with noise, and all occluded, each item with draws of its own."""
    found = {}
    for name, change in (("noise", add_noise), ("occlusion", occlude)):
        generator = torch.Generator().manual_seed(0)  # carried on from batch to batch
        corrupt = partial(change, generator=generator)
        found[name] = embed_dataset(dataset, lambda x, c=corrupt: encoder.encode(c(x))).numpy()
    return found


def add_noise(items: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to bytes of images, or to vectors."""
    drawn = torch.randn(items.shape, generator=generator)
    if items.dtype != torch.uint8:
        return items + NOISE * items.std() * drawn
    return (items.float() + NOISE * 255 * drawn).clamp(0, 255).to(torch.uint8)


def occlude(items: Tensor, generator: torch.Generator) -> Tensor:
    """Paint a square of each image in its mean colour, somewhere; of vectors, as many entries."""
    if items.ndim == 2:
        is_hidden = torch.rand(items.shape, generator=generator) < OCCLUDED**2
        return items.masked_fill(is_hidden, float(items.float().mean()))
    size = items.shape[-1]
    side = round(OCCLUDED * size)
    corner = torch.randint(size - side + 1, (len(items), 2, 1, 1), generator=generator)
    at = torch.arange(size)
    rows, columns = at.view(1, size, 1) - corner[:, 0], at.view(1, 1, size) - corner[:, 1]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    mean = items.float().mean(dim=(2, 3), keepdim=True).to(items.dtype)
    return torch.where(inside.unsqueeze(1), mean, items)
