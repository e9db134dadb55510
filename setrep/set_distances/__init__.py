"""Distances between two collections, one per file.

Each takes two batches of collections and returns one number for each pair: the first collection of
one with the first of the other, and so on. `pairwise` gives all pairs.
"""

from setrep.set_distances.centroid import centroid
from setrep.set_distances.chamfer import chamfer
from setrep.set_distances.energy import energy
from setrep.set_distances.hausdorff import hausdorff
from setrep.set_distances.maxsim import maxsim
from setrep.set_distances.modified_hausdorff import modified_hausdorff
from setrep.set_distances.pairwise import pairwise
from setrep.set_distances.set_distance import Distance, SetDistance
from setrep.set_distances.sliced_wasserstein import sliced_wasserstein
from setrep.set_distances.transport import TransportPlan, transport_plan
from setrep.set_distances.wasserstein import wasserstein

SET_DISTANCES: dict[str, SetDistance] = {
    "centroid": SetDistance(centroid, metric_power=1),
    "chamfer": SetDistance(chamfer),
    "energy": SetDistance(energy, metric_power=0.5),
    "hausdorff": SetDistance(hausdorff, metric_power=1),
    "maxsim": SetDistance(
        maxsim,
        is_symmetric=False,
        is_similarity=True,
        is_zero_for_equal=False,
        ignores_copies=False,
        invariances=("rotation",),
        degree=2,
    ),
    "modified_hausdorff": SetDistance(modified_hausdorff),
    "sliced_wasserstein": SetDistance(
        sliced_wasserstein, metric_power=1, invariances=("translation",)
    ),
    "wasserstein": SetDistance(wasserstein, metric_power=1),
}

__all__ = [
    "SET_DISTANCES",
    "Distance",
    "SetDistance",
    "TransportPlan",
    "centroid",
    "chamfer",
    "energy",
    "hausdorff",
    "maxsim",
    "modified_hausdorff",
    "pairwise",
    "sliced_wasserstein",
    "transport_plan",
    "wasserstein",
]
