"""How near are the estimates of tau_plus? `python -m evaluation.priors RUN... [--data-root DATA]`.

Takes the encoder of each run and the training items of its data set, and compares four estimates
with the share of equal pairs among all labels, over ten draws. Writes
`evaluation/results/priors.json`, a row for each data set; other rows stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from setrep.config import Config
from setrep.data.augmentation import Augmentation
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.files import write_atomically
from setrep.priors import CheckedPairs, PriorEstimate, estimate, from_labels, pairs_to_check
from setrep.protocols.baselines import embed_dataset
from setrep.reports import runs
from setrep.training.build import load_split

FILE = Path(__file__).parent / "results" / "priors.json"
NUM_DRAWS, NUM_LABELS, NUM_POSITIVE, NUM_CHECKED, NUM_RANDOM = 10, 500, 500, 500, 500_000


def main() -> None:
    """Measure the runs that are named."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.priors", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data-root")
    parser.add_argument("--subset", help="of the data set, if not that of the run")
    asked = parser.parse_args()
    rows = json.loads(FILE.read_text()) if FILE.exists() else {}
    for run in asked.runs:
        chosen = {"data_root": asked.data_root, "subset": asked.subset}
        change = {"data": {name: value for name, value in chosen.items() if value}}
        encoder, config, _ = runs.open_for_evaluation(run, change)
        dataset = load_split(config.data, "train")
        embeddings = normalize(embed_dataset(dataset, encoder.encode)).double()

        augmented = partial(augment, dataset, config, encoder.encode)
        row = measure(embeddings, torch.from_numpy(dataset.labels), augmented)
        row |= {"source_note": dataset.source_note, "encoder": config.encoder.name}
        row |= {"loss": config.loss.name, "num_steps": config.training.max_steps}
        rows[" ".join(filter(None, (dataset.name, asked.subset, dataset.label_level)))] = row
        print(json.dumps(row, indent=1))
        write_atomically(FILE, (json.dumps(rows, indent=1) + "\n").encode())


def augment(
    dataset: ItemDataset,
    config: Config,
    encode: Callable[[Tensor], Tensor],
    chosen: Int64[Tensor, " n"],
    seed: int,
) -> Float[Tensor, "n dim"]:
    """Embed items as training augments them."""
    items = Augmentation(config.augmentation)(
        dataset.gather(chosen), torch.Generator().manual_seed(seed)
    )
    return normalize(encode(items)).double()


def measure(
    embeddings: Float[Tensor, "item dim"],
    labels: Int64[Tensor, " item"],
    augmented: Callable[[Int64[Tensor, " n"], int], Float[Tensor, "n dim"]],
) -> dict[str, object]:
    """Compare the estimates with the truth: ratios to it, and how often intervals hold it."""
    truth = from_labels(labels).value
    found: dict[str, list[PriorEstimate]] = {}
    for seed in range(NUM_DRAWS):
        for name, value in estimates(embeddings, labels, augmented, seed).items():
            found.setdefault(name, []).append(value)
    row: dict[str, object] = {"num_items": len(labels), "truth": truth}
    for name, values in found.items():
        ratios = np.array([value.value for value in values]) / truth
        row[name] = {
            "num_draws": len(values),
            "ratio_mean": round(float(ratios.mean()), 3),
            "ratio_sd": round(float(ratios.std(ddof=1)), 3) if len(ratios) > 1 else None,
            "within_20_percent": float((abs(ratios - 1) <= 0.2).mean()),
            "intervals_hold_truth": float(
                np.mean([v.interval[0] <= truth <= v.interval[1] for v in values])
            ),
        }
    return row


def estimates(
    embeddings: Tensor,
    labels: Tensor,
    augmented: Callable[[Int64[Tensor, " n"], int], Float[Tensor, "n dim"]],
    seed: int,
) -> dict[str, PriorEstimate]:
    """Draw labels and pairs once, and estimate from them in four ways; leave out what refuses."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.randint(len(labels), (NUM_RANDOM,), generator=generator)
    other = (one + torch.randint(1, len(labels), one.shape, generator=generator)) % len(labels)
    random = similarity(embeddings, one, other)
    first, second = positive_pairs(labels, generator)
    positive = similarity(embeddings, first, second)
    places = pairs_to_check(positive, random, NUM_CHECKED, seed=seed)
    checked = CheckedPairs(random[places], labels[one[places]] == labels[other[places]])
    chosen = torch.randperm(len(labels), generator=generator)
    views = (embeddings[chosen[:NUM_POSITIVE]] * augmented(chosen[:NUM_POSITIVE], seed)).sum(dim=1)
    ways: dict[str, Callable[[], PriorEstimate]] = {
        "labels": lambda: from_labels(labels[chosen[:NUM_LABELS]]),
        "similarities_checked": lambda: estimate(positive, random, checked=checked),
        "similarities": lambda: estimate(positive, random, num_bootstrap=50),
        "augmentations": lambda: estimate(views, random, num_bootstrap=50),
    }
    found = {}
    for name, way in ways.items():
        try:
            found[name] = way()
        except InputError as error:
            print(f"{name}: {error}")
    return found


def positive_pairs(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random pairs of one label: a class as often as it has pairs."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(dim=0) - counts
    weights = (counts * (counts - 1)).double()
    classes = torch.multinomial(weights, NUM_POSITIVE, replacement=True, generator=generator)
    sizes = counts[classes]
    first = (torch.rand(NUM_POSITIVE, generator=generator) * sizes).long()
    step = 1 + (torch.rand(NUM_POSITIVE, generator=generator) * (sizes - 1)).long()
    return order[starts[classes] + first], order[starts[classes] + (first + step) % sizes]


def similarity(embeddings: Tensor, one: Tensor, other: Tensor) -> Float[Tensor, " pair"]:
    """Return cosines, a part at a time."""
    parts = zip(torch.split(one, 8192), torch.split(other, 8192), strict=True)
    return torch.cat([(embeddings[a] * embeddings[b]).sum(dim=1) for a, b in parts])


if __name__ == "__main__":
    main()
