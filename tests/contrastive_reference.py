"""Contrastive losses written as loops from the formulas, one anchor and one negative at a time."""

import math

import torch
from torch.nn.functional import normalize

from setrep.losses import (
    DebiasedBothLoss,
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DebiasedTripletLoss,
    HardNegativesLoss,
    NTXentLoss,
)

LOSSES = {
    "nt_xent": lambda t: NTXentLoss(t),
    "debiased_negatives": lambda t: DebiasedNegativesLoss(t),
    "hard_negatives": lambda t: HardNegativesLoss(t),
    "debiased_positives": lambda t: DebiasedPositivesLoss(t),
    "sum": lambda t: DebiasedPositivesLoss(t, estimator="sum"),
    "triplet": lambda t: DebiasedTripletLoss(),
    "both": lambda t: DebiasedBothLoss(DebiasedPositivesLoss(t), DebiasedNegativesLoss(t), 0.3),
}


def random_views(seed, num_views=2, items=5, dim=4, dtype=torch.float64, spread=0.7):
    """Views of `items` points on the sphere, with labels that repeat."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(items, dim, generator=generator, dtype=torch.float64)
    views = [
        normalize(
            centres + spread * torch.randn(items, dim, generator=generator, dtype=torch.float64)
        ).to(dtype)
        for _ in range(num_views)
    ]
    labels = torch.randint(3, (items,), generator=generator)
    return views, labels


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def anchors_of(views, labels=None):
    """Yield each anchor of the first two views: itself, its other views, the others, their twins.

    The last says of each other row whether it shares the anchor's label.
    """
    rows = [view.tolist() for view in views]
    n = len(rows[0])
    for side in (0, 1):
        for i in range(n):
            x = rows[side][i]
            positives = [rows[1 - side][i]] + [row[i] for row in rows[2:]]
            others = [(s, j) for s in (0, 1) for j in range(n) if j != i]
            same = [labels is not None and bool(labels[j] == labels[i]) for _, j in others]
            yield x, positives, [rows[s][j] for s, j in others], same


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def pairs_of(views):
    return [(a, b) for i, a in enumerate(views) for b in views[i + 1 :]]


def loop_nt_xent(views, t, labels=None):
    losses = []
    for x, (v, *_), others, same in anchors_of(views, labels):
        h = math.exp(dot(x, v) / t)
        total = sum(math.exp(dot(x, u) / t) for u, s in zip(others, same, strict=True) if not s)
        losses.append(-math.log(h / (h + total)))
    return mean(losses)


def loop_debiased_negatives(views, t, tau_plus, labels=None, drop="none", beta=0.0, tilt="code"):
    """Chuang et al. 2020, Eq. 7 and 8; with beta Robinson et al. 2021, Eq. 4."""
    exponent = beta if tilt == "code" else beta * t
    losses = []
    for x, positives, others, same in anchors_of(views, labels):
        h = [math.exp(dot(x, u) / t) for u in others]
        kept = [value for value, s in zip(h, same, strict=True) if drop == "none" or not s]
        if not kept and drop == "exclude":
            losses.append(0.0)
            continue
        n = len(kept) if drop == "exclude" else len(h)
        tau = 0.0 if drop == "exclude" else tau_plus
        weights = [value**exponent for value in kept]
        total = sum(w * value for w, value in zip(weights, kept, strict=True))
        total = total / mean(weights) if weights else 0.0
        hv = [math.exp(dot(x, v) / t) for v in positives]
        positive = sum(v ** (1 + exponent) for v in hv) / sum(v**exponent for v in hv)
        g = max((total / n - tau * positive) / (1 - tau), math.exp(-1 / t))
        losses.append(0.0 if not kept else -math.log(hv[0] / (hv[0] + n * g)))
    return mean(losses)


def loop_debiased_positives(views, t, tau_plus, estimator="mean", labels=None, drop="none"):
    """Troeshestova & Isachenko 2023, Eq. 12 to 14, with the floor and the variants that ran."""
    tau_minus = 1 - tau_plus
    losses = []
    for x, positives, others, same in anchors_of(views, labels):
        h = [math.exp(dot(x, u) / t) for u in others]
        true = [value for value, s in zip(h, same, strict=True) if not s]
        hv = mean(math.exp(dot(x, v) / t) for v in positives)
        hx = math.exp(1 / t)
        if (estimator == "consistent" or drop != "none") and not true:
            losses.append(0.0)
            continue
        if estimator == "consistent":
            n, p, p_minus = len(true), (sum(h) + hv + hx) / (len(h) + 2), mean(true)
            r = (p - tau_minus * p_minus) / tau_plus
        elif drop == "published" and estimator == "mean":
            n = len(h)
            p, p_minus = (sum(true) + hv) / (n + 2), sum(true) / n
            r = (p - tau_minus * p_minus) / tau_plus
        elif drop == "published":
            n = len(h)
            p_minus = sum(true) / n
            r = (sum(h) + hv + hx - tau_minus * sum(true)) / (tau_plus * n)
        else:
            kept = true if drop == "exclude" else h
            n, p_minus = len(kept), mean(kept)
            if estimator == "sum":
                r = (sum(kept) + hv + hx - tau_minus * sum(kept)) / (tau_plus * n)
            else:
                r = ((sum(kept) + hv + hx) / (n + 2) - tau_minus * p_minus) / tau_plus
        r = max(r, math.exp(-1 / t))
        losses.append(-math.log(r / (r + n * p_minus)))
    return mean(losses)


def loop_n_pair(anchors, positives, l2_weight=0.0):
    a, p = anchors.tolist(), positives.tolist()
    losses = [
        math.log(1 + sum(math.exp(dot(x, q) - dot(x, p[i])) for j, q in enumerate(p) if j != i))
        for i, x in enumerate(a)
    ]
    norms = mean(dot(x, x) for x in a) + mean(dot(x, x) for x in p)
    return mean(losses) + 0.25 * l2_weight * norms


def loop_difficulty_weighted(views, biased, t, tau_plus, normalize_weights=False):
    """Jang & Wang 2023 as `main-wctr.py` has it."""
    losses = []
    for (x, (v,), others, _), (y, _, hidden, _) in zip(
        anchors_of(views), anchors_of(biased), strict=True
    ):
        h = [math.exp(dot(x, u) / t) for u in others]
        hb = [math.exp(dot(y, u) / t) for u in hidden]
        s = [value / math.sqrt(sum(other**2 for other in h)) for value in h]
        sb = [value / math.sqrt(sum(other**2 for other in hb)) for value in hb]
        weights = [1 + d / (b + d + 1e-6) for d, b in zip(s, sb, strict=True)]
        if normalize_weights:
            weights = [w / mean(weights) for w in weights]
        n, hv = len(h), math.exp(dot(x, v) / t)
        total = sum(w * value for w, value in zip(weights, h, strict=True))
        negatives = max((total - tau_plus * n * hv) / (1 - tau_plus), n * math.exp(-1 / t))
        losses.append(-math.log(hv / (hv + negatives)))
    return mean(losses)


def loop_debiased_triplet(views, tau_plus, reduction="sum"):
    losses = []
    for x, (v,), others, _ in anchors_of(views):
        positive = math.dist(x, v) ** 2
        negative = sum(math.dist(x, u) ** 2 for u in others) - tau_plus * len(others) * positive
        negative /= 1 - tau_plus
        losses.append(positive - (negative if reduction == "sum" else negative / len(others)))
    return mean(losses)
