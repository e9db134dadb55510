"""Which sources, sizes and methods are measured, and which cells that makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from evaluation.aggregation import plan as aggregation
from evaluation.aggregation.plan import FREE, LEARNED
from setrep.set_distances import SET_DISTANCES

SUITE = "retrieval"
NUM_CANDIDATES = 20  # nearest centroids that two stages re-rank
TRAINED_UNDER = 0.0  # learned aggregators are trained on clean collections, as are the queries


class Method(NamedTuple):
    """A way to order the gallery: distance of aggregates, or of the sets of items."""

    kind: Literal["aggregator", "set distance"]
    name: str


CENTROID = Method("aggregator", "centroid")


@dataclass(frozen=True)
class Certified:
    """Galleries and queries that certificates are held against."""

    gallery_size: int  # items behind each centroid of the gallery
    sizes: tuple[int, ...]
    num_queries: int = 2000  # of each label and size


@dataclass(frozen=True)
class Source:
    """What is measured on a data set."""

    sizes: tuple[int, ...]
    max_per_label: int  # collections of a label on either side of a draw
    certified: Certified


SOURCES: dict[str, Source] = {
    "digits": Source((1, 2, 5), 2, Certified(10, (1, 2, 5))),
    # 20 drawings of each: ten for the gallery, ten for the pool.
    "omniglot_characters": Source((1, 2, 5, 10), 2, Certified(10, (1, 2, 3, 5, 10))),
    "omniglot_alphabets": Source((1, 2, 5, 10, 20), 10, Certified(10, (1, 2, 5, 10, 20, 50))),
    "cifar100": Source((1, 2, 5, 10, 20), 10, Certified(10, (1, 2, 5, 10, 20, 50))),
}
# sources, seeds, steps of an encoder, steps of an aggregator, queries of each size
PLANS: dict[str, tuple[tuple[str, ...], range, int, int, int]] = {
    "smoke": (("digits",), range(1), 30, 10, 12),
    "cpu": (("omniglot_characters", "omniglot_alphabets", "cifar100"), range(3), 600, 300, 350),
    "full": (("omniglot_characters", "omniglot_alphabets", "cifar100"), range(3), 6000, 2000, 2000),
}


@dataclass(frozen=True)
class Cell:
    """One process and one result: all methods and certificates on one encoder."""

    budget: str
    source: str
    seed: int
    max_steps: int
    learned_steps: int
    num_queries: int

    @property
    def name(self) -> str:
        """Name of the cell within its budget."""
        return f"{self.source}-seed{self.seed}"

    @property
    def encoder(self) -> aggregation.Cell:
        """The cell of the suite of aggregators that has this encoder."""
        steps = (self.max_steps, self.learned_steps, self.num_queries)
        return aggregation.Cell(self.budget, self.source, self.seed, None, *steps)


def cells(budget: str) -> list[Cell]:
    """List the cells of a budget, a seed of all sources before the next seed."""
    sources, seeds, steps, learned_steps, num_queries = PLANS[budget]
    return [
        Cell(budget, source, seed, steps, learned_steps, num_queries)
        for seed in seeds
        for source in sources
    ]


def methods_of(budget: str) -> list[Method]:
    """List the methods of a budget: aggregators with nothing to learn, learned ones, distances."""
    learned = ["attention"] if budget == "smoke" else list(LEARNED)
    return [
        *(Method("aggregator", name) for name in (*FREE, *learned)),
        *(Method("set distance", name) for name in SET_DISTANCES),
    ]


def learned_settings(cell: Cell, name: str) -> dict[str, Any]:
    """Return the settings that a learned aggregator is trained with."""
    return aggregation.learned_settings(cell.encoder, name, TRAINED_UNDER, None)
