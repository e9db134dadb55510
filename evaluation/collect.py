"""Keep what a finished run measured: `python -m evaluation.collect RUN NAME`.

Copies `evaluation.json`, `paired.json` if it is there, `environment.json` with the seconds of
training, and `config.yaml` without places, to `evaluation/results/NAME/seedK/`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results"


def main(run: Path, name: str) -> None:
    """Copy one run."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    environment = {"commit": None} | json.loads((run / "environment.json").read_text())
    environment["training_seconds"] = round(training_seconds(run / "metrics.jsonl"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    target = RESULTS / name / f"seed{evaluation['seed']}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    (target / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    (target / "config.yaml").write_text(yaml.safe_dump(without_places(config), sort_keys=False))
    if (run / "paired.json").exists():
        (target / "paired.json").write_text((run / "paired.json").read_text())
    print(f"Kept {run} in {target}")


def training_seconds(metrics: Path) -> float:
    """Add up the steps that were logged, over all parts of a run that was continued."""
    seconds, last = 0.0, 0
    for line in metrics.read_text().splitlines():
        record = json.loads(line)
        if "seconds_per_step" not in record:  # measured between epochs
            continue
        seconds += record["seconds_per_step"] * (record["step"] - last)
        last = record["step"]
    return seconds


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """Name the one-shot archive without its directory, and no data root."""
    task = config["evaluation"]["one_shot"]
    config["evaluation"]["one_shot"] = Path(task).name if task else None
    config["data"]["data_root"] = None
    return config


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
