"""What the bounds of `setrep.bounds` say of an index, kept with it until it changes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from setrep.bounds import RetrievalCertificate, certify_retrieval
from setrep.errors import InputError
from setrep.index.manifest import DAMAGE
from setrep.index.records import Name, Records
from setrep.retrieval.columns import label_or_id

Rows = dict[Name, list[int]]
Pools = list[Float64[Tensor, "item dim"]]
SIZES_SHOWN = (1, 2, 3, 5, 10, 20, 50, 100)
LARGEST_SIZE = 1000
DRAW = "the query is a random draw, without replacement, from the pool of its label: "
ELSEWHERE = "It says nothing of items from elsewhere"
OTHERS = (
    f"{DRAW}the items of the label outside of the one collection that stands for it. {ELSEWHERE}"
)
HELD_OUT = f"{DRAW}the held-out items that were given of it. {ELSEWHERE}"


@dataclass(frozen=True)
class LabelBounds:
    """What bounds the error of queries from the pool of one label, by size of the query.

    Attributes:
        label: the label.
        stands: id of the collection that stands for it; its items are not in the pool.
        num_pool: how many items the pool has.
        half_space: the bound R2, for each of `IndexCertificate.sizes`.
        chernoff: the bound R3, likewise.
    """

    label: Name
    stands: Name
    num_pool: int
    half_space: tuple[float, ...]
    chernoff: tuple[float, ...]

    @property
    def bound(self) -> tuple[float, ...]:
        """The smaller of the two."""
        return tuple(map(min, self.half_space, self.chernoff))


@dataclass(frozen=True)
class IndexCertificate:
    """Bound how often a random draw from a label's pool is nearest to another label's collection.

    The gallery is the index as it is, the rule the nearest centroid, and the query the centroid of
    n items drawn at random from the pool of its label, each n-subset as likely as any other. A
    collection without a label is a label of its own. It counts as an error if any collection of
    another label is as near as the one that stands for the label. Each bound is of R2 and R3 of
    docs/bounds/retrieval.md, for that draw from that pool. It says nothing of items from
    elsewhere, nor how likely one given answer is wrong.

    Attributes:
        labels: the bounds of each label.
        sizes: the sizes of query that those are for.
        deltas: the largest bound of all labels, for each size of query from 1 on.
        model: which draw that is of.
    """

    labels: tuple[LabelBounds, ...]
    sizes: tuple[int, ...]
    deltas: tuple[float, ...]
    model: str

    def delta(self, num_items: int) -> float | None:
        """Return the bound for queries of so many items, whatever the label.

        None where they are more than the smallest pool has, or than were asked for.
        """
        return self.deltas[num_items - 1] if 1 <= num_items <= len(self.deltas) else None

    def smallest_size(self, delta: float) -> int | None:
        """Return the smallest query that leaves every label an error of at most `delta`."""
        return next((i for i, found in enumerate(self.deltas, 1) if found <= delta), None)

    def explain(self, num_items: int | None) -> str:
        """Say what delta says of a query, or why there is none."""
        if num_items is None:
            return "a vector has no number of items"
        if self.delta(num_items) is None:
            return f"it is known up to {len(self.deltas)} items, the smallest pool of a label"
        smallest = min(of.num_pool for of in self.labels)
        if 2 * num_items > smallest:
            return f"{self.model}. {num_items} items are most of the smallest pool, of {smallest}"
        return self.model


def rounding_of(pools: Pools) -> float:
    """Bound how far float32 moves the centroid of a query: half a unit of its last place, doubled.

    A centroid is no longer than the longest item, and its coordinates round one by one.
    """
    longest = max(float(torch.linalg.vector_norm(pool, dim=1).max()) for pool in pools)
    finest = torch.finfo(torch.float32)
    return float(finest.eps * longest + math.sqrt(pools[0].shape[1]) * finest.tiny)


def certify(
    records: Iterable[Records],
    pools: Mapping[Name, Float[Tensor, "item dim"]] | None = None,
    max_size: int = LARGEST_SIZE,
) -> IndexCertificate:
    """Certify the collections of an index, whose embeddings are the centroids of their members.

    `pools` are items of each label, or of each id of collections without a label, none of which is
    in the index. Without them each label needs two collections: the items of all but the one that
    stands for it are its pool. The one nearest to the mean of the label stands for it. Takes time
    in proportion to collections times items of pools.

    Raises:
        InputError: there are fewer than two labels, one has no pool, or a collection no label.
    """
    gallery = Gallery.read(records, with_members=pools is None)
    if len(gallery.rows) < 2:
        raise InputError(f"A certificate tells labels apart, but there are {len(gallery.rows)}.")
    if pools is None:
        rows, items = gallery.stand_and_pool()
    else:
        rows, items = gallery.stand_for(pools)
    order = [row for of in rows.values() for row in of]
    labels = [number for number, of in enumerate(rows.values()) for _ in of]
    largest = min(max_size, *(len(pool) for pool in items))
    found = certify_retrieval(
        gallery.vectors[order],
        items,
        range(1, largest + 1),
        labels=labels,
        allowance=rounding_of(items),
    )
    stands = [gallery.ids[of[0]] for of in rows.values()]
    num_pool = [len(pool) for pool in items]
    return summarise(found, list(rows), stands, num_pool, OTHERS if pools is None else HELD_OUT)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Collections in float64, and the rows of each label, or of each id where there is none."""

    ids: tuple[Name, ...]
    vectors: Float64[Tensor, "collection dim"]
    members: tuple[Float64[Tensor, "item dim"], ...]
    rows: Mapping[Name, list[int]]
    unlabelled: Name | None  # one of those without a label

    @classmethod
    def read(cls, records: Iterable[Records], *, with_members: bool) -> Gallery:
        """Read the collections of an index."""
        ids: list[Name] = []
        vectors, members = [], []
        rows: dict[Name, list[int]] = {}
        labelled: dict[Name, bool] = {}
        unlabelled = None
        for part in records:
            vectors.append(torch.from_numpy(part.vectors.astype("float64")))
            for i, name in enumerate(part.ids):
                is_labelled, label = label_or_id(name, part.payloads[i])
                if not is_labelled:
                    unlabelled = name
                if labelled.setdefault(label, is_labelled) != is_labelled:
                    raise InputError(
                        f"{label!r} is a label, and the id of a collection without one: a "
                        f"certificate cannot tell them apart."
                    )
                rows.setdefault(label, []).append(len(ids))
                ids.append(name)
                a, b = int(part.offsets[i]), int(part.offsets[i + 1])
                if a == b:
                    raise InputError(f"Collection {name!r} has no members: it cannot be certified.")
                if with_members:
                    members.append(torch.from_numpy(part.members[a:b].astype("float64")))
        joined = torch.cat(vectors) if vectors else torch.zeros(0, 1, dtype=torch.float64)
        return cls(tuple(ids), joined, tuple(members), rows, unlabelled)

    def stand_and_pool(self) -> tuple[Rows, Pools]:
        """Let a collection stand for each label, and the items of its others be the pool."""
        if self.unlabelled is not None:
            raise InputError(
                f"Collection {self.unlabelled!r} has no label, so there are no other items of it "
                f"to draw a query from: give labels, or held-out items as pools."
            )
        alone = [label for label, of in self.rows.items() if len(of) < 2]
        if alone:
            raise InputError(
                f"Label {alone[0]!r} has only one collection, so there are no other items of it to "
                f"draw a query from ({len(alone)} labels of {len(self.rows)} are so): give "
                f"held-out items as pools."
            )
        rows = {
            label: self.first_nearest(of, self.vectors[of].mean(0))
            for label, of in self.rows.items()
        }
        return rows, [torch.cat([self.members[row] for row in of[1:]]) for of in rows.values()]

    def stand_for(self, pools: Mapping[Name, Float[Tensor, "item dim"]]) -> tuple[Rows, Pools]:
        """Let a collection stand for each label whose pool is given."""
        for label in self.rows:
            if label not in pools:
                raise InputError(f"There is no pool of held-out items of {label!r}.")
        for label in pools:
            if label not in self.rows:
                raise InputError(f"There is a pool of {label!r}, but no collection of that label.")
        items = {label: pools[label].double() for label in self.rows}
        rows = {
            label: self.first_nearest(of, items[label].mean(0)) for label, of in self.rows.items()
        }
        return rows, list(items.values())

    def first_nearest(self, rows: list[int], point: Float64[Tensor, " dim"]) -> list[int]:
        """Return rows with the one nearest to a point moved to the front."""
        apart = torch.linalg.vector_norm(self.vectors[rows] - point, dim=1)
        first = rows[int(apart.argmin())]
        return [first, *(row for row in rows if row != first)]


def summarise(
    found: RetrievalCertificate,
    labels: Sequence[Name],
    stands: Sequence[Name],
    num_pool: Sequence[int],
    model: str,
) -> IndexCertificate:
    """Keep what is shown of a certificate."""
    sizes = tuple(n for n in SIZES_SHOWN if n <= len(found.sizes))
    columns = [n - 1 for n in sizes]
    of_labels = tuple(
        LabelBounds(
            label,
            stands[number],
            num_pool[number],
            tuple(found.half_space[number, columns].tolist()),
            tuple(found.chernoff[number, columns].tolist()),
        )
        for number, label in enumerate(labels)
    )
    return IndexCertificate(of_labels, sizes, tuple(found.delta.tolist()), model)


def to_note(certificate: IndexCertificate | str) -> str:
    """Write a certificate, or why there is none, as an engine keeps it."""
    if isinstance(certificate, str):
        return json.dumps({"why_not": certificate})
    return json.dumps({"certificate": asdict(certificate)})


@lru_cache(maxsize=8)  # each query asks for it
def from_note(note: str | None) -> IndexCertificate | str:
    """Read a certificate, or why there is none.

    Raises:
        InputError: it is damaged.
    """
    if note is None:
        return "the index is not certified, or was changed since: `CollectionIndex.certify` does it"
    try:
        content = json.loads(note)
        return str(content["why_not"]) if "why_not" in content else read(content["certificate"])
    except DAMAGE as error:
        raise InputError("The certificate of the index is damaged: certify it again.") from error


def read(kept: dict[str, Any]) -> IndexCertificate:
    """Read a certificate."""
    labels = (
        LabelBounds(
            one["label"],
            one["stands"],
            one["num_pool"],
            tuple(one["half_space"]),
            tuple(one["chernoff"]),
        )
        for one in kept["labels"]
    )
    return IndexCertificate(
        tuple(labels), tuple(kept["sizes"]), tuple(kept["deltas"]), kept["model"]
    )
