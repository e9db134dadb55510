"""What every loss asks of its options and its batch, and whether the batch has collapsed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.errors import InputError, nearest
from setrep.functional import at_least_float32

COLLAPSE_TOLERANCE = 1e-4  # of the largest norm: wider than float32 rounding, below any useful gap

Total = Callable[[Tensor], Tensor]  # adds numbers over processes that train together


def alone(numbers: Tensor) -> Tensor:
    """Return what a process that trains alone has counted."""
    return numbers


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an option's value that is not among the known ones."""
    if value not in known:
        raise InputError(
            f"Unknown {option} '{value}'.{nearest(str(value), known)} Known: {', '.join(known)}."
        )


def check_batch(
    embeddings: Float[Tensor, "n dim"],
    labels: Int64[Tensor, " n"],
    collections: Int64[Tensor, " n"] | None,
    positives: str,
) -> None:
    """Refuse embeddings, labels and collections that do not belong together."""
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise InputError(
            f"Embeddings must be a floating-point tensor [n, dim], "
            f"not {embeddings.dtype} of shape {tuple(embeddings.shape)}."
        )
    for name, found in (("labels", labels), ("collections", collections)):
        if found is not None and found.shape != embeddings.shape[:1]:
            raise InputError(
                f"{len(embeddings)} embeddings need {name} of shape ({len(embeddings)},), "
                f"not {tuple(found.shape)}: pass one for each embedding."
            )
    if positives != "any" and collections is None:
        raise InputError(
            f"positives='{positives}' needs the collection of each item, but none was given: "
            f"pass collections=, or use positives='any'."
        )


def check_views(
    views: Sequence[Float[Tensor, "n dim"]], labels: Int64[Tensor, " n"] | None
) -> None:
    """Refuse views and labels that do not belong together."""
    shapes = [tuple(view.shape) for view in views]
    is_usable = all(view.ndim == 2 and view.is_floating_point() for view in views)
    if len(views) < 2 or len(set(shapes)) > 1 or not is_usable:
        raise InputError(
            f"A contrastive loss takes two or more views, floating-point tensors [n, dim] of one "
            f"shape, not {', '.join(map(str, shapes)) or 'nothing'}."
        )
    if len(views[0]) < 2:
        raise InputError(
            f"A contrastive loss needs at least two items to tell apart, not {len(views[0])}."
        )
    if labels is not None and labels.shape != views[0].shape[:1]:
        raise InputError(
            f"Views of {len(views[0])} items need labels of shape ({len(views[0])},), "
            f"not {tuple(labels.shape)}: pass one for each item."
        )


def check_tau_plus(tau_plus: float) -> None:
    """Refuse a class prior that is no probability below 1."""
    if not 0 <= tau_plus < 1:
        raise InputError(f"tau_plus must be a probability from 0 to below 1, not {tau_plus}.")


@torch.no_grad()
def collapsed(embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Return 1 when at least two embeddings were given and all coincide, else 0.

    They coincide when none is farther from the first than `COLLAPSE_TOLERANCE` of the largest norm.
    """
    embeddings = at_least_float32(embeddings)
    if len(embeddings) < 2:
        return embeddings.new_zeros(())
    farthest = torch.linalg.vector_norm(embeddings - embeddings[0], dim=1).max()
    largest = torch.linalg.vector_norm(embeddings, dim=1).max()
    coincide: Tensor = farthest <= COLLAPSE_TOLERANCE * largest
    return coincide.to(embeddings.dtype)
