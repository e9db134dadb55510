"""The binormal curve of negative pairs, fitted to ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from torch import Tensor

from setrep.errors import InputError

Numbers = NDArray[np.float64]
Start = tuple[float, ...]

FEWEST_POSITIVES = 20
FEWEST_RANDOM = 10  # random pairs as similar as the positive pairs that are fitted
FITTED = 0.8  # share of the positive pairs, from the most similar down: lower, negatives swamp them
STARTS = ((0.3, 1.0, 1.2), (1.0, 0.5, 1.0))  # tau_plus as a share of the most there can be, a, b


class Cells(NamedTuple):
    """Numbers of pairs from each positive similarity down to the next, most similar first."""

    positives: Numbers
    randoms: Numbers
    num_below: float  # random pairs less similar than any positive one


def count_cells(positive: Tensor, random: Tensor) -> Cells:
    """Count the pairs between the distinct positive similarities; ties are above."""
    edges, positives = np.unique(-positive.cpu().double().numpy(), return_counts=True)
    place = np.searchsorted(edges, -random.cpu().double().numpy())
    counts = np.bincount(place, minlength=len(edges) + 1).astype(np.float64)
    return Cells(positives.astype(np.float64), counts[:-1], float(counts[-1]))


def resampled(cells: Cells, generator: torch.Generator) -> Cells:
    """Draw as many positive pairs anew, and Poisson numbers of random ones."""
    weights = torch.from_numpy(cells.positives)
    drawn = torch.multinomial(weights, int(weights.sum()), replacement=True, generator=generator)
    positives = drawn.bincount(minlength=len(weights)).numpy()
    counts = torch.from_numpy(np.append(cells.randoms, cells.num_below))
    randoms = torch.poisson(counts, generator=generator).numpy()
    kept = positives.nonzero()[0]  # a cell without a positive pair is part of the next one
    place = np.searchsorted(kept, np.arange(len(randoms)))
    merged = np.bincount(place, randoms, minlength=len(kept) + 1).astype(np.float64)
    return Cells(positives[kept].astype(np.float64), merged[:-1], float(merged[-1]))


def fit_curve(cells: Cells, starts: Sequence[Start]) -> tuple[float, Start]:
    """Return tau_plus of the greatest likelihood, and a start from where it was found."""
    num_random = cells.randoms.sum() + cells.num_below
    share = cells.positives / (cells.positives.sum() + 1)  # between order statistics, on average
    is_fitted = share.cumsum() <= FITTED
    r, counts, share = cells.positives[is_fitted], cells.randoms[is_fitted], share[is_fitted]
    z = np.append(-40.0, ndtri(share.cumsum()))  # as good as -inf, but finite times 0
    most = min(1.0, float(max(counts.sum(), 1.0) / num_random / share.sum()))

    def loss(x: Numbers) -> tuple[float, Numbers]:
        tau, (a, b) = most * x[0], x[1:]
        cuts = b * z - a
        negative = np.diff(ndtr(cuts))
        density = np.exp(-np.square(cuts) / 2) / np.sqrt(2 * np.pi)
        expected = num_random * (tau * share + (1 - tau) * negative) + 1e-9
        value = (r + counts) * np.log(r + expected) - counts * np.log(expected)
        slope = num_random * ((r + counts) / (r + expected) - counts / expected)
        by_curve = (1 - tau) * np.array([-np.diff(density), np.diff(z * density)])
        return float(value.sum()), np.array([most * (share - negative), *by_curve]) @ slope

    bounds = ((0.0, 1 / most), (0.0, 12.0), (1.0, 5.0))
    fits = [minimize(loss, x, jac=True, method="L-BFGS-B", bounds=bounds) for x in starts]
    share_of_most, *curve = min(fits, key=lambda fit: float(fit.fun)).x.tolist()
    return most * share_of_most, (share_of_most, *curve)


def check_cells(cells: Cells) -> None:
    """Refuse too few pairs to tell, or positive pairs that are all alike."""
    num_positive = int(cells.positives.sum())
    is_fitted = cells.positives.cumsum() <= FITTED * (num_positive + 1)
    if num_positive < FEWEST_POSITIVES or is_fitted.sum() < FEWEST_POSITIVES * FITTED / 2:
        raise InputError(
            f"A prior needs at least {FEWEST_POSITIVES} positive pairs of different similarity; "
            f"found {num_positive} with {len(cells.positives)} values. Label more pairs."
        )
    num_random = int(cells.randoms[is_fitted].sum())
    if num_random < FEWEST_RANDOM:
        raise InputError(
            f"A prior needs at least {FEWEST_RANDOM} random pairs as similar as the most similar "
            f"{FITTED:.0%} of the positive pairs; found {num_random}. Draw more random pairs."
        )
