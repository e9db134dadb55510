"""Small data sets in the layouts of CIFAR, Tiny-ImageNet and STL-10, of random pixels."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tests.fakes import encoded, write_files


def random_images(num: int, side: int, seed: int) -> np.ndarray:
    """Return uint8 `[num, 3, side, side]`; no two are alike."""
    return np.random.default_rng(seed).integers(0, 256, (num, 3, side, side), dtype=np.uint8)


IMAGES = {"train": random_images(30, 32, seed=1), "test": random_images(6, 32, seed=2)}
TEN = ("airplane", "bird", "cat")
HUNDRED = ("apple", "beaver", "dolphin")  # fruit and vegetables, and two aquatic mammals
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def folder_files(
    images: Mapping[str, np.ndarray], classes: tuple[str, ...], suffix: str = "png"
) -> dict[str, bytes]:
    """Give the images of each split to the classes in turn: `<split>/<class>/<number>.png`."""
    return {
        f"{split}/{classes[row % len(classes)]}/{row:04}.{suffix}": encoded(picture(pixels))
        for split, of_split in images.items()
        for row, pixels in enumerate(of_split)
    }


class Python2Pickler(pickle._Pickler):
    """Write strings and bytes as Python 2 wrote both, in its newest protocol."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(content)) + content)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def rows_of(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def cifar10_values(images: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what each file of `cifar-10-batches-py` holds; classes take turns."""
    parts = np.array_split(np.arange(len(images["train"])), 5)
    rows = {f"data_batch_{number}": ("train", part) for number, part in enumerate(parts, start=1)}
    rows["test_batch"] = ("test", np.arange(len(images["test"])))
    values: dict[str, Any] = {
        name: {
            "batch_label": name,
            "labels": [int(row) % len(classes) for row in part],
            "data": rows_of(images[split][part]),
            "filenames": [f"{row}.png" for row in part.tolist()],
        }
        for name, (split, part) in rows.items()
    }
    values["batches.meta"] = {"num_cases_per_batch": len(parts[0]), "label_names": list(classes)}
    return values


def cifar100_values(images: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what each file of `cifar-100-python` holds; classes take turns."""
    values: dict[str, Any] = {
        split: {
            "fine_labels": [row % len(classes) for row in range(len(of_split))],
            "coarse_labels": [0] * len(of_split),
            "data": rows_of(of_split),
        }
        for split, of_split in images.items()
    }
    values["meta"] = {"fine_label_names": list(classes), "coarse_label_names": ["all"]}
    return values


def fake_batches(path: Path, values: Mapping[str, Any], *, top: str = "") -> Path:
    """Write pickled batches into a directory, or below `top` into a tar."""
    return write_files(path, {top + name: python2_pickle(value) for name, value in values.items()})


def stl10_files(images: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, bytes]:
    """Return column-major images and labels from 1; classes take turns."""
    files = {"class_names.txt": "\n".join([*classes, ""]).encode()}
    for split, of_split in images.items():
        files[f"{split}_X.bin"] = of_split.transpose(0, 1, 3, 2).tobytes()
        files[f"{split}_y.bin"] = bytes(row % len(classes) + 1 for row in range(len(of_split)))
    return files


def original_tinyimagenet_files(
    images: Mapping[str, np.ndarray], classes: tuple[str, ...]
) -> dict[str, bytes]:
    """Return `train/<wnid>/images/*`, `val/images/*` and what names their classes, and `test`.

    The files are PNG under the names of JPEG, so that no pixel changes.
    """
    files, lines = {}, []
    for row, pixels in enumerate(images["train"]):
        wnid = classes[row % len(classes)]
        files[f"train/{wnid}/images/{wnid}_{row:04}.JPEG"] = encoded(picture(pixels))
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"n_0.JPEG\t0\t0\t63\t63\n"
    for row, pixels in enumerate(images["test"]):
        files[f"val/images/val_{row:04}.JPEG"] = encoded(picture(pixels))
        lines.append(f"val_{row:04}.JPEG\t{classes[row % len(classes)]}\t0\t0\t63\t63")
    files["val/val_annotations.txt"] = "\n".join([*lines, ""]).encode()
    files["test/images/test_0.JPEG"] = encoded(Image.new("RGB", (64, 64)))
    files["wnids.txt"] = "\n".join(classes).encode()
    return files


def cifar_values(name: str) -> dict[str, Any]:
    """Return what each batch file of one of the two data sets holds."""
    ten = name == "cifar10"
    return cifar10_values(IMAGES, TEN) if ten else cifar100_values(IMAGES, HUNDRED)


def fake_cifar(root: Path, name: str, place: str) -> Path:
    """Write the images in one of the layouts; return the data root."""
    if "python" in place or "batches" in place:
        top = f"{FOLDERS[name]}/" if ".tar" in place else ""
        fake_batches(root / place, cifar_values(name), top=top)
    else:
        write_files(root / place, folder_files(IMAGES, TEN if name == "cifar10" else HUNDRED))
    return root
