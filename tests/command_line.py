"""The command line called in this process, on runs and inputs made once for a file of tests."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.cli import main

TINY = [
    "--max-steps=3",
    "--classes-per-episode=2",
    "--collections-per-class=2",
    "--items-per-collection=1",
    "--set=encoder.projection_dim=8",
    "--set=evaluation.sizes=[1,2]",
    "--set=evaluation.num_bootstrap=20",
]
PHOTOS = ["--dataset=folder", "--image-size=8", *TINY]
VECTORS = ["--dataset=vectors", *TINY]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: object
    out: str
    err: str


def call(*arguments: object, cwd: Path) -> Outcome:
    """Run `setrep` in this process, as from a shell in `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["setrep", *map(str, arguments)])
        patch.chdir(cwd)
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main()
    return Outcome(end.value.code, out.getvalue(), err.getvalue())


def files(root: Path) -> dict[str, bytes]:
    """Return every file below a directory, but for events of a TensorBoard that is installed."""
    found = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if "tensorboard/" not in name}


def write_photos(
    root: Path, *, channels: int = 3, num_labels: int = 6, num_images: int = 6
) -> Path:
    """Write `root/<label>/<collection>/*.png` of noise."""
    noise = np.random.default_rng(0)
    for label in range(num_labels):
        for number in range(num_images):
            path = root / f"label{label}" / f"set{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, (8, 8, channels), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(path)
    return root


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SETREP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "80")
        patch.delenv("SETREP_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Good and bad inputs, a run on digits, one on photos and one on vectors."""
    root = tmp_path_factory.mktemp("place")
    write_photos(root / "photos[red]")  # a name that terminal markup must leave alone
    cut = write_photos(root / "truncated") / "label0" / "set1" / "5.png"
    cut.with_name("cut.png").write_bytes(cut.read_bytes()[:60])
    for path in sorted(write_photos(root / "single").glob("label0/*/*"))[1:]:
        path.unlink()
    (root / "not.zip").write_bytes(b"hello")
    with zipfile.ZipFile(root / "escape.zip", "w") as archive:
        archive.writestr("../outside.png", b"x")
    with zipfile.ZipFile(root / "other.zip", "w") as archive:
        archive.writestr("notes.txt", b"no one-shot task")
    values = np.random.default_rng(0).normal(size=(40, 5))
    np.savez(root / "vectors.npz", values=values, labels=np.repeat(np.arange(5), 8))
    (root / "broken.yaml").write_text("loss: [1\n")
    (root / "list.yaml").write_text("- 1\n")
    (root / "typo.yaml").write_text("loss:\n  margn: 1\n")
    (root / "empty").mkdir()
    trained = {
        "photos_run": [*PHOTOS, "--data-root", root / "photos[red]"],
        "vectors_run": [*VECTORS, "--data-root", root / "vectors.npz"],
        "digits_run": [
            "--set=evaluation.sizes=[1,5]",
            "--set=evaluation.num_bootstrap=20",
            TINY[0],
        ],
    }
    for name, arguments in trained.items():
        done = call("train", *arguments, "--output-dir", root / name, cwd=root)
        assert done.code == 0, done.err
        (root / f"{name}.out").write_text(done.out)
        (root / f"{name}.err").write_text(done.err)
    (root / "unfinished").mkdir()
    shutil.copy(root / "digits_run" / "config.yaml", root / "unfinished")
    return root
