"""The bounds that are verified: what each computes, of which embeddings, from what knowledge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from setrep import bounds
from setrep.aggregators import (
    Aggregator,
    CentroidAggregator,
    DeepSetsAggregator,
    DirectionalMeanAggregator,
    GemAggregator,
    MaxAggregator,
    MeanStdAggregator,
    MedianAggregator,
    NormalizedAggregator,
    QuantilesAggregator,
    TrimmedMeanAggregator,
)
from setrep.aggregators.gem import GEM_FLOOR
from setrep.bounds import Bound, LowerBound, Triples, UpperBound
from setrep.bounds.aggregators import have_direction
from setrep.protocols.bound_sample import BoundSample

Knowledge = Literal["a_priori", "with_spread", "a_posteriori"]


@dataclass(frozen=True)
class Statement:
    """A bound: how it is computed, from which side it bounds, and what must be known for it.

    `why_not` says why it does not apply to an aggregator, or nothing if it does; `where` of which
    triples it speaks, if not of all.
    """

    compute: Callable[[BoundSample], Bound]
    kind: Literal["upper", "lower"]
    knowledge: Knowledge
    why_not: Callable[[Aggregator], str | None]
    where: Callable[[BoundSample], Bool[Tensor, " triple"]] | None = None


def of_centroid(aggregator: Aggregator) -> str | None:
    """Bounds of the distance of centroids."""
    return None if isinstance(aggregator, CentroidAggregator) else "It bounds centroids."


def of_convex(aggregator: Aggregator) -> str | None:
    """Bounds of every embedding in the convex hull of its items."""
    return None if aggregator.is_convex else "It bounds embeddings in the hull of their items."


def of_weighted(aggregator: Aggregator) -> str | None:
    """Bounds of weighted means whose weights are told."""
    if isinstance(aggregator, CentroidAggregator):
        return "With even weights it is q12."
    is_one = aggregator.is_convex and aggregator.has_weights
    return None if is_one else "It bounds weighted means that tell one weight for each item."


def of_normalized(aggregator: Aggregator) -> str | None:
    """Bounds of directions of centroids and of weighted means."""
    if isinstance(aggregator, DirectionalMeanAggregator):
        return None
    if not isinstance(aggregator, NormalizedAggregator):
        return "It bounds embeddings that are brought to unit length."
    if of_centroid(aggregator.inner) is None or of_weighted(aggregator.inner) is None:
        return None
    return "It bounds directions of centroids and of weighted means."


def of(*kinds: type[nn.Module], what: str) -> Callable[[Aggregator], str | None]:
    """Bounds of some aggregators alone."""
    return lambda aggregator: None if isinstance(aggregator, kinds) else f"It bounds {what}."


def plain(bound: Callable[[Triples], Bound]) -> Callable[[BoundSample], Bound]:
    """Compute a bound on centroids."""
    return lambda sample: bound(sample.triples)


def convex(sample: BoundSample) -> UpperBound:
    """Compute the bound of every convex embedding."""
    return bounds.convex(sample.triples, sample.distance_same)


def hull_upper(sample: BoundSample) -> UpperBound:
    """Compute the bound of two labels and every convex embedding."""
    return bounds.hull_upper(sample.triples, sample.distance_other)


def hull_lower(sample: BoundSample) -> LowerBound:
    """Compute the certified distance of the hulls."""
    return LowerBound(sample.distance_other, sample.hull.lower, sample.triples.scale_outside)


def margin_hull(sample: BoundSample) -> LowerBound:
    """Compute the distance of the hulls that the margin leaves."""
    bound = bounds.margin_hull(sample.triples).bound
    return LowerBound(sample.distance_other, bound, sample.triples.scale_outside)


def weighted(sample: BoundSample) -> UpperBound:
    """Compute the bound of weighted means, under the weights that were given."""
    return bounds.weighted(sample.triples, *sample.weights[:2])


def total_variation(sample: BoundSample) -> UpperBound:
    """Compute the bound of weighted means by how far from even the weights are."""
    return bounds.total_variation(sample.triples, *sample.weights[:2])


def normalized(sample: BoundSample) -> UpperBound:
    """Compute the bound of directions from that of what they are directions of."""
    if isinstance(sample.aggregator, DirectionalMeanAggregator):
        triples = bounds.measure(*directions(sample))
        means = [x.mean(dim=1) for x in directions(sample)]
        return bounds.normalized(bounds.q12(triples), means[0], means[1])
    inner = sample.inner
    found = bounds.q12(sample.triples) if of_centroid(inner) is None else weighted(sample)
    return bounds.normalized(found, *sample.inner_embeddings[:2])


def normalized_lower(sample: BoundSample) -> LowerBound:
    """Compute the lower bound of directions from the distance of the hulls."""
    if isinstance(sample.aggregator, DirectionalMeanAggregator):
        a, _, w = directions(sample)
        means, hull = (a.mean(dim=1), w.mean(dim=1)), bounds.hull_distance(a, w)
        scale = bounds.measure(a, a, w).scale_outside
    else:
        means, hull = (sample.inner_embeddings[0], sample.inner_embeddings[2]), sample.hull
        scale = sample.triples.scale_outside
    inner = LowerBound((means[0] - means[1]).norm(dim=-1), hull.lower, scale)
    return bounds.normalized_lower(inner, *means)


def directions(sample: BoundSample) -> list[Tensor]:
    """Return the items at unit length."""
    return [nn.functional.normalize(x, dim=-1, eps=1e-300) for x in sample.points]


def has_directions(sample: BoundSample) -> Bool[Tensor, " triple"]:
    """Return of which triples the three embeddings have a direction."""
    if isinstance(sample.aggregator, DirectionalMeanAggregator):
        means = [x.mean(dim=1) for x in directions(sample)]
        scale = bounds.measure(*directions(sample)).scale_outside
    else:
        means, scale = list(sample.inner_embeddings), sample.triples.scale_outside
    lengths = [torch.linalg.vector_norm(x, dim=-1) for x in means]
    return torch.stack([have_direction(each, scale) for each in lengths]).all(dim=0)


def gem(sample: BoundSample) -> UpperBound:
    """Compute the bound of generalised means, on the items as the aggregator clamps them."""
    assert isinstance(sample.inner, GemAggregator)
    clamped = bounds.measure(*(x.clamp(min=GEM_FLOOR) for x in sample.points))
    return bounds.gem(clamped, sample.inner.power)


def coordinatewise(sample: BoundSample) -> UpperBound:
    """Compute the bound of maxima, medians, quantiles and trimmed means."""
    parts = sample.aggregator.dim_out // sample.aggregator.dim
    return bounds.coordinatewise(sample.triples, sample.distance_same, num_parts=parts)


def mean_std(sample: BoundSample) -> UpperBound:
    """Compute the bound of means and deviations."""
    return bounds.mean_std(sample.triples, sample.distance_same)


def deep_sets(sample: BoundSample) -> UpperBound:
    """Compute the bound of a network of mean features, with its layers' norms."""
    found = sample.aggregator
    assert isinstance(found, DeepSetsAggregator)
    layers = [layer for layer in found.rho if isinstance(layer, nn.Linear)]
    norms = torch.stack([torch.linalg.matrix_norm(layer.weight, ord=2) for layer in layers])
    # phi ends in a ReLU that works in place.
    features = bounds.measure(*(found.phi(x.clone()) for x in sample.points))
    return bounds.deep_sets(
        features,
        sample.distance_same,
        rho_lipschitz=float(norms.prod()),
        items=sample.triples,
        linear_norm=float(torch.linalg.matrix_norm(found.linear.weight, ord=2)),
    )


def power_from_one(aggregator: Aggregator) -> str | None:
    """Bounds of generalised means."""
    if not isinstance(aggregator, GemAggregator):
        return "It bounds generalised means."
    return None if aggregator.power >= 1 else "It bounds generalised means of a power from 1."


ORDERED = of(
    MedianAggregator,
    TrimmedMeanAggregator,
    QuantilesAggregator,
    what="medians, quantiles and trimmed means",
)
STATEMENTS = {
    "karimov": Statement(plain(bounds.karimov), "upper", "a_priori", of_centroid),
    "margin_plus_max": Statement(plain(bounds.margin_plus_max), "upper", "a_priori", of_centroid),
    "chamfer": Statement(plain(bounds.chamfer), "upper", "a_priori", of_centroid),
    "q1": Statement(plain(bounds.q1), "upper", "a_priori", of_centroid),
    "q12": Statement(plain(bounds.q12), "upper", "with_spread", of_centroid),
    "multi_negative": Statement(
        lambda sample: bounds.multi_negative(sample.others), "upper", "with_spread", of_centroid
    ),
    "symmetric": Statement(plain(bounds.symmetric), "upper", "with_spread", of_centroid),
    "symmetric_chamfer": Statement(
        plain(bounds.symmetric_chamfer), "upper", "with_spread", of_centroid
    ),
    "mean_loss": Statement(
        lambda sample: bounds.mean_loss(sample.triples, sample.loss_margin),
        "upper",
        "a_posteriori",
        of_centroid,
    ),
    "batch_hard": Statement(
        lambda sample: bounds.batch_hard(sample.triples, sample.loss_margin),
        "upper",
        "a_posteriori",
        of_centroid,
    ),
    "mean_distance": Statement(plain(bounds.mean_distance), "upper", "a_posteriori", of_centroid),
    "w1": Statement(plain(bounds.w1), "upper", "a_posteriori", of_centroid),
    "convex": Statement(convex, "upper", "a_priori", of_convex),
    "weighted": Statement(weighted, "upper", "with_spread", of_weighted),
    "total_variation": Statement(total_variation, "upper", "a_posteriori", of_weighted),
    "normalized": Statement(normalized, "upper", "with_spread", of_normalized, has_directions),
    "gem": Statement(gem, "upper", "a_priori", power_from_one),
    "max": Statement(coordinatewise, "upper", "a_priori", of(MaxAggregator, what="the maximum")),
    "coordinatewise": Statement(coordinatewise, "upper", "a_priori", ORDERED),
    "mean_std": Statement(
        mean_std, "upper", "a_priori", of(MeanStdAggregator, what="means and deviations")
    ),
    "deep_sets": Statement(
        deep_sets, "upper", "with_spread", of(DeepSetsAggregator, what="Deep Sets")
    ),
    "lb1": Statement(plain(bounds.lb1), "lower", "with_spread", of_centroid),
    "lb0": Statement(plain(bounds.lb0), "lower", "a_priori", of_centroid),
    "margin_hull": Statement(margin_hull, "lower", "a_priori", of_convex),
    "hull_lower": Statement(hull_lower, "lower", "a_posteriori", of_convex),
    "hull_upper": Statement(hull_upper, "upper", "a_posteriori", of_convex),
    "normalized_lower": Statement(
        normalized_lower, "lower", "a_posteriori", of_normalized, has_directions
    ),
    "score_gap": Statement(plain(bounds.score_gap), "lower", "a_posteriori", of_centroid),
}
