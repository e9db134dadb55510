"""Retrieval of collections: given a collection, which of those known are the same thing?"""

from setrep.retrieval.certificate import IndexCertificate
from setrep.retrieval.index import CollectionIndex
from setrep.retrieval.results import ItemMatch, Match, Result

__all__ = ["CollectionIndex", "IndexCertificate", "ItemMatch", "Match", "Result"]
