"""Nearest neighbours; the only door to FAISS and to the distributed engine."""
