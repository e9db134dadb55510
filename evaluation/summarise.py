"""Print the committed results as a table: `python -m evaluation.summarise`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Print one row for each experiment, with mean and spread over its seeds."""
    print("| experiment | seeds | one-shot error | item recall@1 | set of 5 recall@1 |")
    print("|---|---|---|---|---|")
    for directory in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        files = sorted(directory.glob("*/evaluation.json"))
        if not files:  # of claim suites, which have tables of their own
            continue
        found = [json.loads(file.read_text()) for file in files]
        cells = (one_shot(found), item_recall(found), collection_recall(found, 5))
        print(f"| {directory.name} | {len(found)} | {' | '.join(cells)} |")


def spread(values: list[float]) -> str:
    """Write percentages as mean and standard deviation."""
    percent = [100 * value for value in values]
    if len(percent) == 1:
        return f"{percent[0]:.1f} %"
    return f"{statistics.mean(percent):.1f} ± {statistics.stdev(percent):.1f} %"


def one_shot(found: list[dict[str, Any]]) -> str:
    """Summarise the official one-shot task, where it was run."""
    errors = [e["one_shot"] for e in found if e["one_shot"]]
    return spread([error["error_mean"] for error in errors]) if errors else "–"


def item_recall(found: list[dict[str, Any]]) -> str:
    """Summarise leave-one-out recall@1 of items."""
    return spread([e["items"]["recall_at_1"] for e in found])


def collection_recall(found: list[dict[str, Any]], size: int) -> str:
    """Summarise collection retrieval."""
    rows = [c for e in found for c in e["collections"] if c["size"] == size]
    return spread([row["recall_at_1"] for row in rows])


if __name__ == "__main__":
    main()
