"""Bounds on distances between representations of collections, each with its value and slack.

```python
from setrep import bounds

triples = bounds.measure(a, b, w)  # embeddings of two collections of one label, one of another
bounds.chamfer(triples).slack
```
"""

from setrep.bounds.geometry import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_TOLERANCE,
    Triples,
    UpperBound,
    chamfer,
    inter_class_margin,
    karimov,
    margin_plus_max,
    measure,
    one_sided_margin,
    symmetric_margin,
)

__all__ = [
    "ABSOLUTE_TOLERANCE",
    "RELATIVE_TOLERANCE",
    "Triples",
    "UpperBound",
    "chamfer",
    "inter_class_margin",
    "karimov",
    "margin_plus_max",
    "measure",
    "one_sided_margin",
    "symmetric_margin",
]
