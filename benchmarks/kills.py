"""Kill a process at random moments while it writes an index, and look at what is left.

    python benchmarks/kills.py [--kills 1000 --seed 0] > kills.json

A child adds, replaces and deletes collections, tells each change once it is made, and is killed by
SIGKILL after a random time. What is there must be the index after the last change that was told,
or after the one that was under way: anything else counts as broken. The next child goes on. Neither
process imports torch, so that children start in a tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from setrep.errors import InputError
from setrep.index.directory import DirectoryEngine
from setrep.index.records import Records

DIM, MEMBER_DIM, MOST = 16, 8, 60
Kept = dict[int, int]  # the change that each id was written by, in the order of the index


def step(kept: Kept, number: int) -> tuple[str, list[int]]:
    """Say what change `number` does to what is kept."""
    if number % 5 == 3 and kept:
        return "delete", list(kept)[: max(2, len(kept) - MOST)]
    if number % 5 == 4 and len(kept) > 3:
        return "replace", list(kept)[1:4]
    return "add", [3 * number, 3 * number + 1, 3 * number + 2]


def after(kept: Kept, number: int) -> Kept:
    """Return what is kept after change `number`."""
    kind, ids = step(kept, number)
    left = {name: by for name, by in kept.items() if name not in ids}
    return left if kind == "delete" else left | dict.fromkeys(ids, number)


def records_of(ids: list[int], number: int) -> Records:
    """Make collections from whose numbers it can be told which change wrote them."""
    sizes = [1 + (name + number) % 4 for name in ids]
    return Records(
        tuple(ids),
        np.array([[name, number] + [0] * (DIM - 2) for name in ids], np.float32),
        np.full((sum(sizes), MEMBER_DIM), number, np.float32),
        np.cumsum([0, *sizes], dtype=np.int64),
        tuple({"change": number} for _ in ids),
    )


def write(place: str, number: int) -> None:
    """Change the index for ever, and tell each change."""
    kept = read(Path(place))
    with DirectoryEngine.open(place) as engine:
        while True:
            kind, ids = step(kept, number)
            if kind == "delete":
                engine.delete(ids)
            else:
                getattr(engine, kind)(records_of(ids, number))
            kept = after(kept, number)
            print(number, flush=True)
            number += 1


def read(place: Path) -> Kept:
    """Read the whole index and check that each collection is as one change wrote it.

    Raises:
        InputError: it is broken.
    """
    kept: Kept = {}
    with DirectoryEngine.open(place) as engine:
        for part in engine.iterate():
            for row, name in enumerate(part.ids):
                one, number = part.take([row]), int(part.payloads[row]["change"])
                expected = records_of([int(name)], number)
                is_same = all(
                    np.array_equal(getattr(one, of), getattr(expected, of))
                    for of in ("vectors", "members", "offsets")
                )
                if not is_same:
                    raise InputError(f"Collection {name} is not as change {number} wrote it.")
                kept[int(name)] = number
    return kept


def kill_once(place: Path, kept: Kept, number: int, wait: float) -> tuple[str, Kept, int]:
    """Let a child write for a while and kill it; return what happened, and where things stand."""
    command = [sys.executable, __file__, "--write", str(place), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline()]
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
    for change in told:
        kept, number = after(kept, int(change)), int(change) + 1
    try:
        found = read(place)
    except InputError as error:
        return f"broken: {error}", kept, number
    if list(found.items()) == list(kept.items()):
        return "as told", kept, number
    if list(found.items()) == list(after(kept, number).items()):
        return "one change further", after(kept, number), number + 1
    return "broken: not an index that was ever there", kept, number


def main() -> None:
    """Kill, count, and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", nargs=2, metavar=("PLACE", "NUMBER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        write(asked.write[0], int(asked.write[1]))
    generator = np.random.default_rng(asked.seed)
    counts: dict[str, int] = {}
    kept: Kept = {}
    number, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "index"
        DirectoryEngine.create(place, DIM, MEMBER_DIM).close()
        for done in range(asked.kills):
            what, kept, number = kill_once(place, kept, number, generator.uniform(0, 0.1))
            counts[what] = counts.get(what, 0) + 1
            if what.startswith("broken"):
                break
            if done % 100 == 99:
                print(f"{done + 1} kills, {number} changes: {counts}", file=sys.stderr, flush=True)
    report = {
        "kills": sum(counts.values()),
        "changes": number,
        "found": counts,
        "broken": sum(count for what, count in counts.items() if what.startswith("broken")),
        "seconds": round(time.monotonic() - began, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
