"""Every bound on random and adversarial triples: how often it was checked, violated, how tight."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.bounds.draws import SHAPES, Points, sizes_and_dim, weights
from setrep import bounds
from setrep.aggregators import build_aggregator
from setrep.bounds import Bound, LowerBound
from setrep.collection import CollectionBatch

AT_ONCE = 100  # triples of the same sizes
CHAIN = ("q12", "q1", "chamfer", "margin_plus_max", "karimov")
PLAIN = (
    *CHAIN,
    "symmetric",
    "symmetric_chamfer",
    "mean_distance",
    "w1",
    "lb1",
    "lb0",
    "margin_hull",
    "score_gap",
)


def check_shape(shape: str, count: int, seed: int) -> dict[str, Any]:
    """Check every bound on `count` triples of one shape, and that the chain is in order."""
    generator = np.random.default_rng([seed, list(SHAPES).index(shape)])
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    out_of_order = 0
    for _ in range(count // AT_ONCE):
        sizes, dim = sizes_and_dim(generator)
        points = SHAPES[shape](generator, AT_ONCE, sizes, dim)
        chain: dict[str, Bound] = {}
        for name, bound in every_bound(points, generator):
            found.setdefault(name, []).append((bound.holds, bound.tightness))
            if name in CHAIN:
                chain[name] = bound
        for tighter, looser in itertools.pairwise(CHAIN):
            over = chain[tighter].bound - chain[looser].bound
            out_of_order += int((over > chain[looser].tolerance).sum())
    return {
        "shape": shape,
        "num_triples": count // AT_ONCE * AT_ONCE,
        "out_of_order": out_of_order,
        "bounds": {name: summary(parts) for name, parts in found.items()},
    }


def summary(parts: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Count checks and violations of one bound, and rank how tight it is."""
    holds = torch.cat([one for one, _ in parts])
    tightness = torch.cat([one for _, one in parts])
    tightness = tightness[tightness.isfinite()]
    return {
        "num_checked": len(holds),
        "num_violations": int((~holds).sum()),
        "tightness_median": float(tightness.median()) if len(tightness) else None,
        "tightness_max": float(tightness.max()) if len(tightness) else None,
    }


def every_bound(
    points: list[Points], generator: np.random.Generator
) -> Iterator[tuple[str, Bound]]:
    """Compute every bound of some triples of the same sizes."""
    triples = bounds.measure(*points)
    for name in PLAIN:
        yield name, getattr(bounds, name)(triples)
    for factor in (0.0, 0.3, -2.0):
        margin = factor * float(triples.scale.median())
        yield "mean_loss", bounds.mean_loss(triples, margin)
        yield "batch_hard", bounds.batch_hard(triples, margin)
    halves = [half for half in np.array_split(points[2], 2, axis=1) if half.shape[1]]
    parts = [bounds.measure(*points[:2], half) for half in halves]
    yield "multi_negative", bounds.multi_negative(parts)
    yield from of_hulls(points, triples, generator)
    yield from of_aggregators(points, triples)


def of_hulls(
    points: list[Points], triples: bounds.Triples, generator: np.random.Generator
) -> Iterator[tuple[str, Bound]]:
    """Compute the bounds of convex embeddings, under weights drawn at random."""
    shares = [torch.from_numpy(weights(generator, len(x), x.shape[1])) for x in points]
    means = [
        torch.einsum("ti,tid->td", p, torch.from_numpy(x))
        for p, x in zip(shares, points, strict=True)
    ]
    same, other = distance(means[0], means[1]), distance(means[0], means[2])
    yield "weighted", bounds.weighted(triples, *shares[:2])
    yield "total_variation", bounds.total_variation(triples, *shares[:2])
    yield "convex", bounds.convex(triples, same)
    yield "hull_upper", bounds.hull_upper(triples, other)
    hull = bounds.hull_distance(points[0], points[2])
    yield "hull_lower", LowerBound(other, hull.lower, triples.scale_outside)
    margin = bounds.margin_hull(triples).bound
    yield "margin_hull", LowerBound(hull.upper, margin, triples.scale_outside)
    lengths = torch.stack([torch.linalg.vector_norm(mean, dim=-1) for mean in means])
    large = (lengths > 1e-3).all(dim=0)
    if bool(large.any()):
        a, b, w = (torch.from_numpy(x)[large] for x in points)
        kept = bounds.measure(a, b, w)
        inner = bounds.weighted(kept, *(share[large] for share in shares[:2]))
        yield "normalized", bounds.normalized(inner, means[0][large], means[1][large])
        below = LowerBound(other[large], hull.lower[large], kept.scale_outside)
        yield "normalized_lower", bounds.normalized_lower(below, means[0][large], means[2][large])


def of_aggregators(points: list[Points], triples: bounds.Triples) -> Iterator[tuple[str, Bound]]:
    """Compute the bounds of embeddings that leave the hull."""
    dim = points[0].shape[2]
    unit = float(triples.scale.amax()) or 1.0
    items = [torch.from_numpy(np.abs(x - points[0][:, :1]) / unit) for x in points]
    positive = bounds.measure(*items)
    for power in (1.0, 1.5, 3.0):
        yield "gem", bounds.gem(positive, power)
    for name, parts in (("max", 1), ("median", 1), ("quantiles", 3)):
        found = bounds.coordinatewise(triples, apart(name, points), num_parts=parts)
        yield "max" if name == "max" else "coordinatewise", found
    yield "mean_std", bounds.mean_std(triples, apart("mean_std", points))
    torch.manual_seed(0)
    phi, rho = nn.Linear(dim, 6).double(), nn.Linear(6, 4).double()
    with torch.no_grad():
        features = [torch.relu(phi(x)) for x in items]
        out = [torch.tanh(rho(x.mean(dim=1))) for x in features]
        norm = float(torch.linalg.matrix_norm(rho.weight, ord=2))
    value = distance(out[0], out[1])
    yield "deep_sets", bounds.deep_sets(bounds.measure(*features), value, rho_lipschitz=norm)


def apart(name: str, points: list[Points]) -> Tensor:
    """Return the distances of A and B under an aggregator of the package."""
    aggregator = build_aggregator(name, points[0].shape[2])
    a, b = (aggregator(CollectionBatch.from_list(list(torch.from_numpy(x)))) for x in points[:2])
    return distance(a, b)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances of vectors."""
    found: Tensor = torch.linalg.vector_norm(x - y, dim=-1)
    return found
