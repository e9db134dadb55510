"""Small data sets with the layout of the real ones, drawn on the spot; and the mark of the real."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

REAL = pytest.mark.skipif("SETREP_DATA" not in os.environ, reason="needs SETREP_DATA")
SIDE = 105
# The subsets share alphabets with the background and with each other, as the real ones do.
BACKGROUND = {"Attic": 3, "Bugis": 2, "Cham": 2, "Deseret": 3}
PARTS: dict[str, dict[str, int]] = {
    "images_background": BACKGROUND,
    "images_background_small1": {"Attic": 3, "Bugis": 2},
    "images_background_small2": {"Bugis": 2, "Cham": 2},
    "images_evaluation": {"Yi": 3, "Zhuyin": 2},
}


def glyph(shape: str, drawer: int = 0, side: int = SIDE) -> Image.Image:
    """Draw a character as one person does: black strokes (0) on white, one bit a pixel."""
    strokes, hand = random.Random(shape), random.Random(f"{shape}, {drawer}")
    image = Image.new("1", (side, side), 1)
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        ends = [strokes.uniform(0.15, 0.85) + hand.uniform(-0.03, 0.03) for _ in range(4)]
        pen.line([side * end for end in ends], fill=0, width=max(1, side // 35))
    return image


def encoded(image: Image.Image, file_format: str = "PNG") -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def write_files(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a zip, a tar or a directory, as the suffix of `path` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif ".tar" in path.suffixes:
        with tarfile.open(path, f"w:{path.suffix.removeprefix('.').replace('tar', '')}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def omniglot_files(part: str, alphabets: Mapping[str, int], num_drawings: int) -> dict[str, bytes]:
    """Draw one part: `<part>/<Alphabet>/characterNN/<id>_<drawer>.png`."""
    files = {}
    for alphabet, num_characters in alphabets.items():
        for number in range(1, num_characters + 1):
            folder = f"{part}/{alphabet}/character{number:02}"
            for drawer in range(1, num_drawings + 1):
                drawing = glyph(f"{alphabet}{number}", drawer)
                files[f"{folder}/{number:04}_{drawer:02}.png"] = encoded(drawing)
    return files


def fake_omniglot(
    root: Path,
    parts: Mapping[str, Mapping[str, int]] = PARTS,
    *,
    num_drawings: int = 4,
    as_directory: bool = False,
) -> Path:
    """Write a data root with `omniglot-py/`; `parts` has the characters of each alphabet."""
    for part, alphabets in parts.items():
        files = omniglot_files(part, alphabets, num_drawings)
        folder = root / "omniglot-py"
        write_files(folder if as_directory else folder / f"{part}.zip", files)
    return root


def fake_folder(
    root: Path,
    labels: Sequence[str] = ("ape", "bee", "cat", "dog"),
    *,
    num_collections: int = 2,
    num_items: int = 3,
    splits: Sequence[str] = (),
    mode: str = "RGB",
    side: int = 12,
) -> Path:
    """Write `[split/]<label>/<collection>/*.png`, or `<label>/*.png` with no collections."""
    draw = random.Random(0)
    files = {}
    for split in splits or ("",):
        for label in labels:
            for collection in range(num_collections) if num_collections else (None,):
                for number in range(num_items):
                    image = Image.new("RGB", (side, side), tuple(draw.choices(range(256), k=3)))
                    folders = [split, label, "" if collection is None else f"set{collection}"]
                    name = "/".join([*filter(None, folders), f"{number}.png"])
                    files[name] = encoded(image.convert(mode))
    return write_files(root, files)


def one_shot_files(num_runs: int = 2, num_ways: int = 4, top: str = "") -> dict[str, bytes]:
    """Draw runs whose first test drawing is of the last training character, and so on."""
    files = {}
    for run in range(1, num_runs + 1):
        lines = []
        for way in range(1, num_ways + 1):
            names = f"run{run:02}/test/item{way:02}.png", f"run{run:02}/training/class{way:02}.png"
            answer = num_ways + 1 - way
            files[top + names[0]] = encoded(glyph(f"{run}, {answer}", drawer=1))
            files[top + names[1]] = encoded(glyph(f"{run}, {way}", drawer=2))
            lines.append(f"{names[0]} run{run:02}/training/class{answer:02}.png")
        files[f"{top}run{run:02}/class_labels.txt"] = "\n".join([*lines, ""]).encode()
    return files


def fake_one_shot(path: Path, num_runs: int = 2, num_ways: int = 4, top: str = "") -> Path:
    """Write the one-shot task as a zip, a tar or a directory; `top` may be `all_runs/`."""
    return write_files(path, one_shot_files(num_runs, num_ways, top))
