"""Losses of embeddings, each called as `loss(embeddings, labels, triplets=None)`."""

from __future__ import annotations

from setrep.losses.supcon import SupConLoss
from setrep.losses.triplet import TripletMarginLoss

__all__ = ["SupConLoss", "TripletMarginLoss"]
