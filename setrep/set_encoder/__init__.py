"""An item encoder and an aggregator in one: what a run hands over and an index is built with."""

from setrep.set_encoder.encoder import SetEncoder
from setrep.set_encoder.items import Item
from setrep.set_encoder.vectors import vector_set_encoder

__all__ = ["Item", "SetEncoder", "vector_set_encoder"]
