"""Bounds on distances between representations of collections, each with its value and slack.

```python
from setrep import bounds

triples = bounds.measure(a, b, w)  # embeddings of two collections of one label, one of another
bounds.q12(triples).slack
```
"""

from setrep.bounds.aggregators import (
    coordinatewise,
    deep_sets,
    gem,
    mean_std,
    normalized,
    normalized_lower,
)
from setrep.bounds.bound import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_TOLERANCE,
    Bound,
    LowerBound,
    UpperBound,
)
from setrep.bounds.calibration import RetrievalErrors, clopper_pearson, measure_errors
from setrep.bounds.convex import (
    attention,
    convex,
    hull_upper,
    softmax_variation,
    total_variation,
    weighted,
)
from setrep.bounds.hull import HullCertificate, hull_bounds, hull_distance
from setrep.bounds.loss_bounds import LossBound, loss_bounds
from setrep.bounds.losses import (
    asymptotic_gap,
    biased_loss_gap,
    debiased_negatives_gap,
    debiased_positives_gap,
    kappa,
    published_biased_loss_gap,
    published_debiased_negatives_gap,
    published_debiased_positives_gap,
)
from setrep.bounds.lower import lb0, lb1, margin_hull, score_gap
from setrep.bounds.margins import inter_class_margin, one_sided_margin, symmetric_margin
from setrep.bounds.mixtures import FiniteMixture
from setrep.bounds.retrieval import (
    RetrievalCertificate,
    certify_retrieval,
    chernoff,
    half_space,
    triangle,
    triangle_pairs,
)
from setrep.bounds.sampling import (
    PoolMoments,
    bernstein,
    bounded_differences,
    bousquet,
    expected_distance,
    expected_squared_distance,
    measure_pool,
    pinelis,
    tail_probability,
)
from setrep.bounds.transport import TransportBound, transport_cost, w1
from setrep.bounds.triples import Triples, measure
from setrep.bounds.upper import (
    batch_hard,
    chamfer,
    karimov,
    margin_plus_max,
    mean_distance,
    mean_loss,
    multi_negative,
    q1,
    q12,
    symmetric,
    symmetric_chamfer,
)

__all__ = [
    "ABSOLUTE_TOLERANCE",
    "RELATIVE_TOLERANCE",
    "Bound",
    "FiniteMixture",
    "HullCertificate",
    "LossBound",
    "LowerBound",
    "PoolMoments",
    "RetrievalCertificate",
    "RetrievalErrors",
    "TransportBound",
    "Triples",
    "UpperBound",
    "asymptotic_gap",
    "attention",
    "batch_hard",
    "bernstein",
    "biased_loss_gap",
    "bounded_differences",
    "bousquet",
    "certify_retrieval",
    "chamfer",
    "chernoff",
    "clopper_pearson",
    "convex",
    "coordinatewise",
    "debiased_negatives_gap",
    "debiased_positives_gap",
    "deep_sets",
    "expected_distance",
    "expected_squared_distance",
    "gem",
    "half_space",
    "hull_bounds",
    "hull_distance",
    "hull_upper",
    "inter_class_margin",
    "kappa",
    "karimov",
    "lb0",
    "lb1",
    "loss_bounds",
    "margin_hull",
    "margin_plus_max",
    "mean_distance",
    "mean_loss",
    "mean_std",
    "measure",
    "measure_errors",
    "measure_pool",
    "multi_negative",
    "normalized",
    "normalized_lower",
    "one_sided_margin",
    "pinelis",
    "published_biased_loss_gap",
    "published_debiased_negatives_gap",
    "published_debiased_positives_gap",
    "q1",
    "q12",
    "score_gap",
    "softmax_variation",
    "symmetric",
    "symmetric_chamfer",
    "symmetric_margin",
    "tail_probability",
    "total_variation",
    "transport_cost",
    "triangle",
    "triangle_pairs",
    "w1",
    "weighted",
]
