"""An item encoder and an aggregator in one: what a run hands over and an index is built with."""

from setrep.set_encoder.encoder import SetEncoder
from setrep.set_encoder.items import Item

__all__ = ["Item", "SetEncoder"]
