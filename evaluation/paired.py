"""Is a run better than its baselines? `python -m evaluation.paired RUN DATA`.

Writes `RUN/paired.json`: differences of recall@1 on the same queries, with 95 % intervals over
classes; above 0 is better.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from setrep.aggregators import CentroidAggregator
from setrep.protocols.baselines import embed_dataset, pixel_embeddings
from setrep.protocols.collections import paired_difference, paired_item_difference
from setrep.reports import runs


def main(run: Path, data_root: str) -> None:
    """Compare items and collections of a run's held-out split with pixels and untrained."""
    encoder, config, data = runs.open_for_evaluation(run, {"data": {"data_root": data_root}})
    dataset = data.dataset
    before = runs.untrained(config, dataset)
    assert before is not None
    learned = embed_dataset(dataset, encoder.encode)
    found = {}
    for name, embed in (("pixels", pixel_embeddings), ("untrained", before.encode)):
        other = embed_dataset(dataset, embed)
        mean = CentroidAggregator(other.shape[1])
        rows = [paired_item_difference(learned, other, dataset, seed=0)]
        rows += [
            paired_difference(
                learned, other, dataset, encoder.aggregator, size, other_aggregator=mean, seed=0
            )
            for size in config.evaluation.sizes
        ]
        found[name] = [asdict(row) for row in rows]
    (run / "paired.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
