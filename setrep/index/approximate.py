"""Approximate search of vectors that never change, through FAISS; scores stay exact.

The kinds other than flat stay on the CPU, also where FAISS has a GPU: it has no HNSW there, and an
index copied to a GPU would have to be copied back to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from setrep.errors import InputError
from setrep.index.faiss_door import load_faiss
from setrep.index.kinds import FEWEST, Kind, SearchKind
from setrep.index.metric import Metric

SPARE = 4  # candidates fetched beyond k, which rounding may have put in the wrong order
LINKS, BUILD_WIDTH = 32, 80  # of HNSW
PIECE = 4  # values of a vector that a byte of PQ stands for
VECTORS_AT_ONCE = 100_000

Vectors = Float[NDArray[np.float32], "row dim"]
Live = Bool[NDArray[np.bool_], " row"]


@dataclass(frozen=True, eq=False)
class Approximate:
    """An index of FAISS, and how to search it."""

    index: Any
    found: SearchKind

    def candidates(
        self, queries: Float[Tensor, "query dim"], k: int, live: Live | None = None
    ) -> Int64[Tensor, "query candidate"]:
        """Propose rows that may be the `k` nearest, of those that live; -1 where there are none."""
        return self.propose(queries, self.fetched(k), live)

    def propose(
        self, queries: Float[Tensor, "query dim"], count: int, live: Live | None = None
    ) -> Int64[Tensor, "query candidate"]:
        """Propose so many rows of each query."""
        faiss = require_faiss(self.found.kind)
        # FAISS reads the bitmap as it searches; `chosen` keeps it.
        bitmap = None if live is None else np.packbits(live, bitorder="little")
        chosen = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        if self.found.kind == "hnsw":
            width = max(count, self.found.parameters["efSearch"])
            how = faiss.SearchParametersHNSW(efSearch=width, sel=chosen)
        else:
            how = faiss.SearchParametersIVF(nprobe=self.found.parameters["nprobe"], sel=chosen)
        asked = np.ascontiguousarray(queries.numpy(), np.float32)
        try:
            rows = self.index.search(asked, count, params=how)[1]
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"FAISS cannot search {asked.shape} for {count}: {error}.") from error
        if rows.size and not -1 <= rows.min() <= rows.max() < self.index.ntotal:
            raise InputError("The approximate index is damaged: set the kind of the index again.")
        return torch.from_numpy(rows)

    def fetched(self, k: int) -> int:
        """Return how many candidates are fetched for `k` neighbours."""
        return max(k + SPARE, k * self.found.parameters.get("overfetch", 1))

    def with_parameters(self, **changed: int) -> Approximate:
        """Return the same index, searched otherwise."""
        parameters = self.found.parameters | changed
        return Approximate(self.index, replace(self.found, parameters=parameters))

    def content(self) -> memoryview:
        """Return the index as the bytes of a file."""
        return memoryview(require_faiss(self.found.kind).serialize_index(self.index))


def read_index(path: Path, found: SearchKind, count: int, dim: int) -> Approximate:
    """Map an index of a file that is known to be whole.

    Raises:
        InputError: FAISS is missing, or cannot read it.
    """
    faiss = require_faiss(found.kind)
    flag = faiss.IO_FLAG_MMAP_IFC if found.kind == "hnsw" else faiss.IO_FLAG_MMAP
    try:
        index = faiss.read_index(str(path), flag | faiss.IO_FLAG_READ_ONLY)
        if not is_of(faiss, index, found) or (index.ntotal, index.d) != (count, dim):
            raise InputError(f"{path} is not of these vectors; set the kind of the index again.")
        return Approximate(index, found)
    except RuntimeError as error:
        raise InputError(
            f"FAISS {faiss.__version__} cannot read {path}; set the kind of the index again."
        ) from error


def is_of(faiss: ModuleType, index: Any, found: SearchKind) -> bool:
    """Say whether an index is of a kind, with as many lists as its parameters say."""
    kinds = {"ivf": faiss.IndexIVFFlat, "hnsw": faiss.IndexHNSWFlat, "pq": faiss.IndexIVFPQ}
    if type(index) is not kinds[found.kind]:
        return False
    return found.kind == "hnsw" or bool(index.nlist == found.parameters.get("nlist"))


def build_index(
    vectors: Vectors, metric: Metric, kind: Kind, parameters: Mapping[str, int] | None = None
) -> Approximate:
    """Build an index that is not measured yet; k-means draws by FAISS's own fixed seeds.

    Several threads that build HNSW may link it differently each time; one thread never does.

    Raises:
        InputError: there are too few vectors, or FAISS is missing.
    """
    if len(vectors) < FEWEST:
        raise InputError(
            f"An index of kind '{kind}' needs {FEWEST} collections or more, not {len(vectors)}."
        )
    faiss = require_faiss(kind)
    code = faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    build: Callable[..., tuple[Any, dict[str, int]]] = {"ivf": _ivf, "hnsw": _hnsw, "pq": _pq}[kind]
    index, used = build(faiss, vectors, code, parameters or {})
    for start in range(0, len(vectors), VECTORS_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + VECTORS_AT_ONCE]))
    return Approximate(index, SearchKind(kind, 0.0, used))


def _hnsw(
    faiss: ModuleType, vectors: Vectors, code: int, parameters: Mapping[str, int]
) -> tuple[Any, dict[str, int]]:
    """Make a graph of neighbours that a search walks along."""
    defaults = {"M": LINKS, "efConstruction": BUILD_WIDTH, "efSearch": 16}
    used = {**defaults, **parameters}
    index = faiss.IndexHNSWFlat(vectors.shape[1], used["M"], code)
    index.hnsw.efConstruction = used["efConstruction"]
    return index, used


def _ivf(
    faiss: ModuleType, vectors: Vectors, code: int, parameters: Mapping[str, int]
) -> tuple[Any, dict[str, int]]:
    """Make lists of vectors by the nearest of some centres, of which a search opens few."""
    nlist = _num_lists(len(vectors), parameters)
    quantizer = faiss.IndexFlat(vectors.shape[1], code)
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], nlist, code)
    return _trained(index, vectors), {"nlist": nlist, "nprobe": 1} | _search_of(parameters, nlist)


def _pq(
    faiss: ModuleType, vectors: Vectors, code: int, parameters: Mapping[str, int]
) -> tuple[Any, dict[str, int]]:
    """Make lists of codes, a byte for every few values; the vectors themselves are not in it."""
    dim, nlist = vectors.shape[1], _num_lists(len(vectors), parameters)
    m = parameters.get("m") or max(m for m in range(1, max(1, dim // PIECE) + 1) if dim % m == 0)
    if dim % m:
        raise InputError(f"m must divide the dimension of the vectors, {dim}; {m} does not.")
    most = min(8, len(vectors).bit_length() - 1)  # a code needs as many vectors as it has values
    nbits = min(parameters.get("nbits", most), most)
    quantizer = faiss.IndexFlat(dim, code)
    index = faiss.IndexIVFPQ(quantizer, dim, nlist, m, nbits, code)
    index.pq.cp.min_points_per_centroid = 1
    used = {"nlist": nlist, "m": m, "nbits": nbits, "nprobe": 1, "overfetch": 1}
    return _trained(index, vectors), used | _search_of(parameters, nlist)


def _num_lists(count: int, parameters: Mapping[str, int]) -> int:
    """Return the number of lists: as asked, or four times the root; each of some 40 or more."""
    return max(1, min(parameters.get("nlist", int(4 * count**0.5)), count // 39))


def _search_of(parameters: Mapping[str, int], nlist: int) -> dict[str, int]:
    """Return those parameters that are of the search, as far as there are lists."""
    kept = {name: parameters[name] for name in ("nprobe", "overfetch") if name in parameters}
    return {name: min(value, nlist) if name == "nprobe" else value for name, value in kept.items()}


def _trained(index: Any, vectors: Vectors) -> Any:
    """Train on a sample that is large enough for every list."""
    index.cp.min_points_per_centroid = 1  # fewer would be told on the terminal
    most = index.nlist * index.cp.max_points_per_centroid
    chosen = np.random.default_rng(0).permutation(len(vectors))[: max(most, 65_536)]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    return index


def require_faiss(kind: str) -> ModuleType:
    """Return FAISS, with the threads that torch has.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        faiss = load_faiss(is_required=True)
    except InputError as error:
        raise InputError(
            f"An index of kind '{kind}' needs FAISS: pip install faiss-cpu, or set the kind 'flat'."
        ) from error
    assert faiss is not None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
