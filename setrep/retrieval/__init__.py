"""Retrieval of collections: given a collection, which of those known are the same thing?"""

from setrep.retrieval.index import CollectionIndex, Match

__all__ = ["CollectionIndex", "Match"]
