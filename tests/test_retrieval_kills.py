"""Kills at random moments of a process that changes an index.

`python -m tests.test_retrieval_kills PLACE` is the parent of the writers: torch is imported once,
and each line with a number of a change forks a writer that goes on from it. No search comes before
a fork, so that neither FAISS, which is imported already, nor a thread pool was in use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from setrep.index.faiss_door import load_faiss
from setrep.index.kinds import KINDS
from setrep.retrieval import CollectionIndex
from tests.indexes import make_encoder

Kept = dict[int, tuple[int, ...]]  # the changes that wrote the members of each id, in order


def after(kept: Kept, number: int) -> Kept:
    """Return what is kept after a change."""
    names = list(kept)
    kind = number % 6
    if kind == 3 and names:
        return {**{name: kept[name] for name in names[1:]}, names[0]: (*kept[names[0]], number)}
    if kind == 4 and len(names) > 6:
        return {name: kept[name] for name in names[3:]}
    if kind == 5:
        return dict.fromkeys(names[-4:], (number, number))
    return kept | {3 * number + i: (number,) for i in range(3)}


def items(changes: tuple[int, ...]) -> torch.Tensor:
    """Return members from which it can be told which changes wrote them."""
    return torch.tensor([[change, -change, 1] for change in changes], dtype=torch.float32)


def change(place: str, encoder, kept: Kept, number: int) -> None:
    """Make one change, by the way that a user would."""
    new = after(kept, number)
    if number % 6 == 5:
        index = CollectionIndex.build(encoder, list(map(items, new.values())), list(new))
        index.save(place)
        return
    with CollectionIndex.open(place) as index:
        added = [name for name in new if name not in kept]
        changed = [name for name in new if name in kept and new[name] != kept[name]]
        index.remove([name for name in kept if name not in new])
        for name in changed:
            index.update(name, items(new[name][len(kept[name]) :]))
        if added:
            index.add([items(new[name]) for name in added], added)
        if number % 2 and load_faiss(is_required=False) is not None:  # holds the same by any kind
            index.engine.set_kind(KINDS[number // 2 % len(KINDS)])


def read(place: str) -> Kept:
    """Return what an index holds, which must be whole."""
    kept: Kept = {}
    with CollectionIndex.open(place) as index:
        assert index.fingerprint == index.set_encoder.fingerprint
        for part in index.engine.iterate():
            for row, name in enumerate(part.ids):
                members = part.members[part.offsets[row] : part.offsets[row + 1]]
                kept[int(name)] = tuple(int(change) for change in members[:, 0])
                assert torch.equal(torch.from_numpy(members.copy()), items(kept[int(name)]))
                middle = members.astype(np.float64).sum(axis=0) / len(members)
                np.testing.assert_array_equal(part.vectors[row], middle.astype(np.float32))
        if kept:  # by whatever kind it has
            vector = index.engine.fetch([name]).vectors[0]
            found = index.query_vector(vector, 1, fingerprint=index.fingerprint)
            assert found[0].score == 0.0
    return kept


def tell(what: object) -> None:
    """Write a line by one call, which no kill can cut."""
    os.write(sys.stdout.fileno(), f"{what}\n".encode())


def serve(place: str) -> None:
    """Fork a writer for each line."""
    encoder = make_encoder()
    load_faiss(is_required=False)
    tell("ready")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            kept = read(place)
            tell(os.getpid())
            for number in count(int(line)):
                change(place, encoder, kept, number)
                kept = after(kept, number)
                tell(number)
        os.waitpid(child, 0)
        tell("dead")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_kills_at_random_moments_leave_the_index_before_or_after_a_change(tmp_path):
    place, generator = str(tmp_path / "index"), np.random.default_rng(0)
    CollectionIndex.create(place, make_encoder()).close()
    command = [sys.executable, "-m", "tests.test_retrieval_kills", place]
    kept, number, further = {}, 0, 0
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(30):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            writer = int(process.stdout.readline())
            time.sleep(generator.uniform(0.0, 0.3))
            os.kill(writer, signal.SIGKILL)
            for line in iter(process.stdout.readline, "dead\n"):
                assert int(line) == number
                kept, number = after(kept, number), number + 1
            found = read(place)
            if list(found.items()) != list(kept.items()):
                kept, number, further = after(kept, number), number + 1, further + 1
                assert list(found.items()) == list(kept.items())
        process.stdin.close()
    assert number > 30  # changes were made, and some cut short
    CollectionIndex.build(make_encoder(), [torch.eye(3)], ["last"]).save(place)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


if __name__ == "__main__":
    serve(sys.argv[1])
