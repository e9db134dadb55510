"""Vectors with known classes, on which small differences can be resolved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_CLASSES = 10
DIM = 32
SPREAD = 2.4  # distance of an item from the centre of its class, which has length 1
NUM_TRAIN, NUM_TEST = 2000, 2000


def write_mixture(path: Path) -> None:
    """Write a mixture of ten equal Gaussians; the same file on every machine."""
    generator = np.random.default_rng(20231)
    centres = generator.normal(size=(NUM_CLASSES, DIM))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.arange(NUM_TRAIN + NUM_TEST) % NUM_CLASSES
    noise = generator.normal(size=(len(labels), DIM)) * SPREAD / np.sqrt(DIM)
    write(path, (centres[labels] + noise).astype(np.float32), labels, NUM_TRAIN)


def write_digits(path: Path) -> None:
    """Write scikit-learn's digits as vectors of 64 values in [0, 1]; two thirds to train on."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(20231).permutation(len(labels))
    write(path, (values[order] / 16).astype(np.float32), labels[order], 1200)


def write(path: Path, values: np.ndarray, labels: np.ndarray, num_train: int) -> None:
    """Write what the data set `vectors` reads, the first items as its training split."""
    is_train = np.arange(len(labels)) < num_train
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, values=values, labels=labels, splits=np.where(is_train, "train", "test"))
