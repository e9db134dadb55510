"""The kinds of index that an engine may search by, and what was measured of the one it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from setrep.errors import InputError, nearest

Kind = Literal["flat", "ivf", "hnsw", "pq"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEARCHED_BY: dict[Kind, set[str]] = {
    "flat": set(),
    "ivf": {"nprobe"},
    "hnsw": {"efSearch"},
    "pq": {"nprobe", "overfetch"},
}
BUILT_BY = {
    "ivf": ("nlist", "nprobe"),
    "hnsw": ("M", "efConstruction", "efSearch"),
    "pq": ("nlist", "m", "nbits", "nprobe", "overfetch"),
}
FEWEST = 2  # collections, since recall is of the others
MOST = 2**20  # of what any parameter counts


@dataclass(frozen=True)
class SearchKind:
    """A kind of index, its parameters by FAISS's names, and its recall@10 when it was built.

    Recall is the share of the 10 nearest that was found, for up to 1,000 of the index's own vectors
    that took no part in the choice of parameters, each left out of what it finds. It is of queries
    that look like the index, and flatters HNSW, whose graph links these very vectors: new draws of
    one distribution found up to 6 points less. It says nothing of other queries, of more neighbours
    than 10, of collections added since, which are searched exactly, or deleted since, or of
    searches with a filter, which are exact, too.
    """

    kind: Kind = "flat"
    recall_at_10: float = 1.0
    parameters: dict[str, int] = field(default_factory=dict)


FLAT = SearchKind()


def kind_for(count: int) -> Kind:
    """Return the kind that `auto` takes for so many collections.

    On one thread, d = 128, flat answers a single query in 10 ms of 100,000 and 80 ms of a million;
    IVF is built several times as fast as HNSW, and keeps its recall for new queries.
    """
    return "flat" if count < 200_000 else "ivf"


def kind_of(content: dict[str, Any]) -> SearchKind:
    """Read a kind of what `asdict` wrote; raise `ValueError` or `LookupError` where it is none."""
    kind = KINDS[KINDS.index(content["kind"])]
    parameters, recall = dict(content["parameters"]), float(content["recall_at_10"])
    are_counts = all(type(of) is int and 1 <= of <= MOST for of in parameters.values())
    if not (are_counts and parameters.keys() >= SEARCHED_BY[kind] and 0 <= recall <= 1):
        raise ValueError("parameters that no index is searched by")
    if parameters.get("nprobe", 1) > parameters.get("nlist", MOST):
        raise ValueError("more lists to open than there are")
    return SearchKind(kind, recall, parameters)


def check_kind(
    kind: str, target_recall: float, parameters: Mapping[str, int] | None = None
) -> None:
    """Refuse what no index can be built by.

    Raises:
        InputError: the kind is unknown, the recall is not above 0 and at most 1, or a parameter is
            not of the kind or no count.
    """
    if kind not in (*KINDS, "auto"):
        raise InputError(
            f"Unknown kind of index '{kind}'.{nearest(kind, (*KINDS, 'auto'))} "
            f"Use {', '.join(KINDS)} or auto."
        )
    if not 0 < target_recall <= 1:
        raise InputError(f"The recall to reach must be above 0 and at most 1, not {target_recall}.")
    known = BUILT_BY.get(kind, ())
    for name, value in (parameters or {}).items():
        if name not in known:
            raise InputError(
                f"An index of kind '{kind}' has no parameter '{name}'. Its parameters are: "
                f"{', '.join(known) or 'none'}."
            )
        if type(value) is not int or not 1 <= value <= MOST:
            raise InputError(f"{name} must be an integer from 1 to {MOST:,}, not {value!r}.")
