"""What difficulty weighting found: two encoders compared, and negatives that they disagree on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from setrep.config import Config
from setrep.data.dataset import ItemDataset
from setrep.files import write_atomically
from setrep.losses.difficulty import difficulty_weights
from setrep.protocols.baselines import embed_dataset, labels_as_in
from setrep.protocols.items import evaluate_items
from setrep.protocols.results import ItemResult
from setrep.reports.evaluation import EvaluationData
from setrep.reports.pages import picture, render, scatter
from setrep.set_encoder import SetEncoder

NUM_COMPARED = 2000  # items among which negatives are ranked
NUM_MAPPED = 1000  # points of a map
MOST_CLASSES = 10  # with a colour of their own
NUM_ANCHORS = 6
NUM_SHOWN = 5
NAMES = {"difficulty_weighted": "Difficulty-weighted (kept)", "biased": "Biased"}


@dataclass(frozen=True)
class Negative:
    """A negative of an anchor under both encoders."""

    item: int  # its position in the split
    label: str
    cosine: float
    biased_cosine: float
    weight: float  # 1 to 2: how much harder it is for the encoder than for the biased one
    is_of_the_same_class: bool  # a hidden positive


@dataclass(frozen=True)
class Anchor:
    """An item with its easiest and hardest negatives, the most extreme first."""

    item: int
    label: str
    easiest: tuple[Negative, ...]
    hardest: tuple[Negative, ...]


def write_report(
    directory: Path,
    set_encoder: SetEncoder,
    biased: SetEncoder,
    data: EvaluationData,
    config: Config,
) -> dict[str, Any]:
    """Write `difficulty.json` and `difficulty.html` into a run's directory, and return the first.

    Weights are those of the loss, but of the embeddings that are kept, without the projections that
    training threw away, and among up to 2,000 items of the split that is evaluated.
    """
    embeddings = {
        name: embed_dataset(data.dataset, encoder.encode)
        for name, encoder in (("difficulty_weighted", set_encoder), ("biased", biased))
    }
    scores = {
        name: score(values, encoder, data, config)
        for (name, values), encoder in zip(embeddings.items(), (set_encoder, biased), strict=True)
    }
    generator = torch.Generator().manual_seed(config.training.seed)
    chosen = torch.randperm(len(data.dataset), generator=generator)
    anchors = find_anchors(
        normalize(embeddings["difficulty_weighted"]),
        normalize(embeddings["biased"]),
        chosen[:NUM_COMPARED],
        data.dataset,
        config.loss.temperature,
    )
    report = {
        "schema": 1,
        "run": directory.name,
        "source_note": data.dataset.source_note,
        "split": data.dataset.split,
        "encoders": {name: asdict(found) for name, found in scores.items()},
        "anchors": [asdict(anchor) for anchor in anchors],
    }
    write_atomically(directory / "difficulty.json", (json.dumps(report, indent=1) + "\n").encode())
    maps = [
        (NAMES[name], scatter(*layout(values, data.dataset, chosen, config.training.seed)))
        for name, values in embeddings.items()
    ]
    page = render(
        "difficulty.html.jinja",
        report=report,
        names=NAMES,
        most=f"{NUM_COMPARED:,}",
        maps=maps,
        picture=lambda item: picture(data.dataset, item),
    )
    write_atomically(directory / "difficulty.html", page.encode())
    return report


def score(
    embeddings: Float[Tensor, "item dim"],
    set_encoder: SetEncoder,
    data: EvaluationData,
    config: Config,
) -> ItemResult:
    """Measure items as `evaluation.json` does."""
    bank = bank_labels = None
    if data.bank is not None:
        bank = embed_dataset(data.bank, set_encoder.encode)
        bank_labels = labels_as_in(data.dataset, data.bank)
    return evaluate_items(
        embeddings,
        torch.from_numpy(data.dataset.labels),
        bank=bank,
        bank_labels=bank_labels,
        knn_k=config.evaluation.knn_k,
        knn_temperature=config.evaluation.knn_temperature,
        with_map_at_r=bank is None,
    )


def find_anchors(
    own: Float[Tensor, "item dim"],
    biased: Float[Tensor, "item dim"],
    chosen: Int64[Tensor, " chosen"],
    dataset: ItemDataset,
    temperature: float,
) -> list[Anchor]:
    """Rank the negatives of the first item of each of a few classes by their weight."""
    labels = torch.from_numpy(dataset.labels)[chosen]
    first = np.unique(labels.numpy(), return_index=True)[1]
    places = sorted(first.tolist())[:NUM_ANCHORS]
    cosines = [of[chosen[places]] @ of[chosen].T for of in (own, biased)]
    is_negative = torch.ones(cosines[0].shape, dtype=torch.bool)
    is_negative[torch.arange(len(places)), places] = False
    weights = difficulty_weights(cosines[0] / temperature, cosines[1] / temperature, is_negative)
    anchors = []
    for row, place in enumerate(places):
        order = weights[row].argsort(stable=True)
        order = order[order != place]

        def negative(at: Tensor, row: int = row, place: int = place) -> Negative:
            return Negative(
                int(chosen[at]),
                dataset.label_names[int(labels[at])],
                float(cosines[0][row, at]),
                float(cosines[1][row, at]),
                float(weights[row, at]),
                bool(labels[at] == labels[place]),
            )

        anchors.append(
            Anchor(
                int(chosen[place]),
                dataset.label_names[int(labels[place])],
                tuple(negative(at) for at in order[:NUM_SHOWN]),
                tuple(negative(at) for at in order.flip(0)[:NUM_SHOWN]),
            )
        )
    return anchors


def layout(
    embeddings: Float[Tensor, "item dim"],
    dataset: ItemDataset,
    chosen: Int64[Tensor, " chosen"],
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """Place items of the ten most frequent classes in the plane by t-SNE (cosine distances)."""
    from sklearn.manifold import TSNE

    counts = np.bincount(dataset.labels, minlength=len(dataset.label_names))
    shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    items = chosen.numpy()
    items = items[np.isin(dataset.labels[items], shown)][:NUM_MAPPED]
    names = [dataset.label_names[label] for label in dataset.labels[items]]
    if len(items) < 3:  # nothing to lay out
        return np.eye(len(items), 2), names
    perplexity = min(30.0, max(1.0, (len(items) - 1) / 3))
    tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=seed)
    points = tsne.fit_transform(embeddings[items].double().numpy())
    return points, names
