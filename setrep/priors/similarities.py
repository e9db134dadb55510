"""The prior from similarities: of pairs known to share a class, and of random pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from setrep.errors import InputError
from setrep.priors.curve import STARTS, check_cells, count_cells, fit_curve, resampled
from setrep.priors.results import PriorEstimate

FEWEST_CHECKED = 20
MOST_SIMILAR = 0.2  # share of the positive pairs: a few hundred tell well how many are above
FEWEST_ABOVE = 15  # positive pairs above the pairs that are looked at
SPARE = 3  # times as many random pairs as are looked at, to tell how many are above


class CheckedPairs(NamedTuple):
    """Random pairs that somebody looked at, drawn blindly among all above some similarity."""

    similarities: Float[Tensor, " pair"]
    is_positive: Bool[Tensor, " pair"]


def estimate(
    positive_similarities: Float[Tensor, " positive"],
    random_similarities: Float[Tensor, " random"],
    *,
    checked: CheckedPairs | None = None,
    confidence: float = 0.95,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> PriorEstimate:
    r"""Estimate the share of positive pairs among random pairs.

    The density of random pairs is a mixture whose second part has no sample of its own.

    $$ p = \tau^+ p_+ + (1 - \tau^+) \, p_- $$

    **With `checked` pairs** above a similarity t (see `pairs_to_check`) nothing is assumed of
    negatives: by Bayes' rule the estimate is consistent whatever the classes look like.

    $$ \tau^+ = \frac{P(s > t) \, P(\text{positive} \mid s > t)}{P(s > t \mid \text{positive})} $$

    The interval is that of three Beta posteriors with Jeffreys' prior.

    **Without them** it is extrapolated. Let u be the share of positive pairs above a threshold and
    R(u) that of random pairs; only ranks enter. The negatives follow the binormal curve of Dorfman
    and Alf (1969), which is continued to u = 0.

    $$ R(u) = \tau^+ u + (1 - \tau^+) \, \Phi(b \, \Phi^{-1}(u) - a), \qquad b \ge 1 $$

    Counts between order statistics are negative binomial; the likelihood of the most similar 80 %
    of the positive pairs is maximised. The interval is a percentile bootstrap over pairs. It is
    consistent where the curve holds: then, as $b \ge 1$, no negative pair is as similar as the most
    similar positive pairs. Without such an anchor set $\tau^+$ cannot be told from similarities
    alone (Blanchard, Lee and Scott 2010): the estimate is too high, by about the odds of negatives
    among the most similar pairs, and the interval does not know it. With classes that are twins, as
    letters that two alphabets share, it is more than twice the truth.

    Positive pairs must be random pairs of one class. Augmentations of one image are more alike than
    its class is: with them the estimate is too low, by half on digits and hundredfold on CIFAR-10.

    Args:
        positive_similarities: of pairs known to share a class; a few hundred.
        random_similarities: of pairs of any two items; enough that dozens are positive.
        checked: some of the random pairs, of which it is known whether they are positive.
        confidence: what share of such intervals should hold the truth.
        num_bootstrap: resamples behind the interval of the curve.
        seed: of the interval.

    Raises:
        InputError: similarities are not 1-d or not finite, or too few or too equal to tell.
    """
    positive_similarities, random_similarities = (
        positive_similarities.detach(),
        random_similarities.detach(),
    )
    _check_similarities(positive_similarities, "positive")
    _check_similarities(random_similarities, "random")
    if not 0 < confidence < 1 or num_bootstrap < 1:
        raise InputError(
            f"An interval needs a confidence between 0 and 1 and a resample; "
            f"asked for {confidence} and {num_bootstrap}."
        )
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    if checked is not None:
        return _by_bayes(positive_similarities, random_similarities, checked, tails, seed)
    cells = count_cells(positive_similarities, random_similarities)
    check_cells(cells)
    value, found = fit_curve(cells, STARTS)
    generator = torch.Generator().manual_seed(seed)
    fits = [fit_curve(resampled(cells, generator), [found])[0] for _ in range(num_bootstrap)]
    low, high = np.quantile(fits, tails).tolist()
    return PriorEstimate(value, (low, high))


def pairs_to_check(
    positive_similarities: Float[Tensor, " positive"],
    random_similarities: Float[Tensor, " random"],
    num_pairs: int = 300,
    *,
    seed: int = 0,
) -> Int64[Tensor, " pair"]:
    """Draw the random pairs that are worth looking at, as positions among the random pairs.

    They are drawn blindly among those more similar than most positive pairs: there positive pairs
    are far less rare than among all, and a few hundred answers tell how rare. Where that leaves
    fewer than three times `num_pairs`, they are drawn among so many of the most similar.

    Raises:
        InputError: similarities are not 1-d or not finite, or there are too few to draw from.
    """
    _check_similarities(positive_similarities, "positive")
    _check_similarities(random_similarities, "random")
    if len(positive_similarities) < FEWEST_ABOVE:
        raise InputError(
            f"At least {FEWEST_ABOVE} positive pairs are needed to say where to look; found "
            f"{len(positive_similarities)}."
        )
    if min(num_pairs, len(random_similarities)) < FEWEST_CHECKED:
        raise InputError(
            f"At least {FEWEST_CHECKED} random pairs must be looked at; asked for {num_pairs} of "
            f"{len(random_similarities)}."
        )
    random, positive = (
        random_similarities.detach().double(),
        positive_similarities.detach().double(),
    )
    num_positive = max(round(MOST_SIMILAR * len(positive)), FEWEST_ABOVE)
    num_random = min(SPARE * num_pairs, len(random))
    threshold = torch.minimum(
        positive.topk(num_positive).values[-1], random.topk(num_random).values[-1]
    )
    places = (random >= threshold).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(places), generator=generator)[:num_pairs].to(places.device)
    return places[order]


def _by_bayes(
    positive: Tensor, random: Tensor, checked: CheckedPairs, tails: tuple[float, float], seed: int
) -> PriorEstimate:
    """Compare everything above the least similar pair that was looked at, which is left out."""
    similarities, is_positive = checked.similarities.detach(), checked.is_positive
    _check_similarities(similarities, "checked")
    if is_positive.dtype != torch.bool or is_positive.shape != similarities.shape:
        raise InputError(
            f"Of each checked pair is_positive must say true or false; found {is_positive.dtype} "
            f"of shape {tuple(is_positive.shape)} for {len(similarities)} pairs."
        )
    threshold = similarities.min()
    is_above = similarities > threshold
    counts = np.array(
        [
            (int((random > threshold).sum()), len(random)),
            (int(is_positive[is_above].sum()), int(is_above.sum())),
            (int((positive > threshold).sum()), len(positive)),
        ]
    )
    if counts[1, 1] < FEWEST_CHECKED - 1 or counts[2, 0] < FEWEST_ABOVE - 5:
        raise InputError(
            f"A prior needs at least {FEWEST_CHECKED} checked pairs of different similarity, and "
            f"{FEWEST_ABOVE - 5} positive pairs above the least of them; found "
            f"{counts[1, 1] + 1} and {counts[2, 0]}. Check more pairs, or less similar ones."
        )
    share = counts[:, 0] / counts[:, 1]
    generator = np.random.default_rng(seed)
    failures = counts[:, 1] - counts[:, 0]
    drawn = generator.beta(counts[:, 0] + 0.5, failures + 0.5, size=(10_000, 3))
    low, high = np.quantile(drawn[:, 0] * drawn[:, 1] / drawn[:, 2], tails).tolist()
    value = float(share[0] * share[1] / share[2])
    return PriorEstimate(min(1.0, value), (min(1.0, low, value), min(1.0, max(high, value))))


def _check_similarities(similarities: Tensor, name: str) -> None:
    """Refuse what is not a list of numbers."""
    if similarities.ndim != 1 or not len(similarities):
        raise InputError(
            f"The {name} similarities must be a 1-d tensor with one of each pair; found shape "
            f"{tuple(similarities.shape)}."
        )
    if not bool(similarities.isfinite().all()):
        raise InputError(f"The {name} similarities must be finite; found NaN or infinity.")
