"""Losses: of embeddings with labels, `loss(embeddings, labels)`, or of views, `loss(z1, z2)`."""

from __future__ import annotations

from setrep.losses.contrastive import ContrastiveLoss
from setrep.losses.debiased_negatives import DebiasedNegativesLoss, HardNegativesLoss
from setrep.losses.debiased_positives import DebiasedBothLoss, DebiasedPositivesLoss
from setrep.losses.difficulty import DebiasedTripletLoss, DifficultyWeightedLoss
from setrep.losses.n_pair import NPairLoss
from setrep.losses.nt_xent import NTXentLoss
from setrep.losses.supcon import SupConLoss
from setrep.losses.triplet import TripletMarginLoss

__all__ = [
    "ContrastiveLoss",
    "DebiasedBothLoss",
    "DebiasedNegativesLoss",
    "DebiasedPositivesLoss",
    "DebiasedTripletLoss",
    "DifficultyWeightedLoss",
    "HardNegativesLoss",
    "NPairLoss",
    "NTXentLoss",
    "SupConLoss",
    "TripletMarginLoss",
]
