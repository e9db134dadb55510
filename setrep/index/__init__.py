"""Nearest neighbours; the only door to FAISS."""

from setrep.index.search import top_k

__all__ = ["top_k"]
