"""Distances between two sets of points, one per file."""

from setrep.set_distances.hausdorff import modified_hausdorff

__all__ = ["modified_hausdorff"]
