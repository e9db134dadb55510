"""How often the 95 % interval over classes holds the truth: `python -m evaluation.coverage`.

Simulated recall: that of a class is drawn from Beta(4, 2), its 10 queries are right by that chance.
Writes `evaluation/results/interval_coverage.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from setrep.metrics import bootstrap_over_classes

NUM_SAMPLES, NUM_RESAMPLES, NUM_QUERIES, TRUTH = 1000, 1000, 10, 4 / 6
FILE = Path(__file__).parent / "results" / "interval_coverage.json"


def main() -> None:
    """Measure and write the shares for several numbers of classes."""
    rows = []
    for num_classes in (5, 10, 20, 50):
        generator = np.random.default_rng(num_classes)
        hits = np.zeros(2)
        for seed in range(NUM_SAMPLES):
            chance = generator.beta(4, 2, (num_classes, 1))
            right = (generator.random((num_classes, NUM_QUERIES)) < chance).astype(float)
            hits += [low <= TRUTH <= high for low, high in (expanded(right, seed), plain(right))]
        shares = (hits / NUM_SAMPLES).round(3).tolist()
        rows.append({"classes": num_classes, "expanded": shares[0], "plain": shares[1]})
        print(rows[-1])
    content = {"samples": NUM_SAMPLES, "resamples": NUM_RESAMPLES, "rows": rows}
    FILE.write_text(json.dumps(content, indent=2) + "\n")


def expanded(right: np.ndarray, seed: int) -> tuple[float, float]:
    """Take setrep's interval."""
    labels = torch.arange(len(right)).repeat_interleave(right.shape[1])
    found = bootstrap_over_classes(torch.from_numpy(right).flatten(), labels, NUM_RESAMPLES, seed)
    assert found is not None
    return found


def plain(right: np.ndarray) -> tuple[float, float]:
    """Take the plain percentiles of resampled means."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(right), size=(NUM_RESAMPLES, len(right)))
    low, high = np.quantile(right.mean(axis=1)[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
