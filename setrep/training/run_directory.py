"""The directory of a run: what lies in it, and whether it may be written."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from setrep import __version__
from setrep.config import Config, merge, read_yaml, resolve, to_yaml
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError
from setrep.files import write_atomically
from setrep.training.build import Hardware

CONFIG = "config.yaml"
FILES = (
    CONFIG,
    "biased",
    "checkpoint",
    "difficulty.html",
    "difficulty.json",
    "environment.json",
    "evaluation.json",
    "metrics.jsonl",
    "model.json",
    "model.safetensors",
)

# What may change when a run is continued: where and how long, but not what is learned.
MAY_DIFFER = {"output_dir", "training.max_minutes", "training.device", "data.data_root"}


def saved_config(directory: Path, *changes: dict[str, Any]) -> Config:
    """Read the config of a run, with some settings changed.

    Raises:
        InputError: the directory holds no run.
    """
    path = directory / CONFIG
    if not directory.exists():
        raise InputError(f"There is no run {directory}.")
    if not path.is_file():
        raise InputError(f"{directory} is not a run: it has no config.yaml.")
    return resolve(read_yaml(path), *changes)


def configure(layers: Sequence[dict[str, Any]], *, resume: bool = False) -> Config:
    """Resolve settings for a new run, or on resuming over those that the run has saved.

    Raises:
        InputError: a setting is wrong, or there is nothing to resume.
    """
    has_cuda = torch.cuda.is_available()
    if not resume:
        return resolve(*layers, has_cuda=has_cuda)
    asked: dict[str, Any] = {}
    for layer in layers:
        asked = merge(asked, layer)
    if not asked.get("output_dir"):
        raise InputError("--resume needs --output-dir: the directory of the run to continue.")
    directory = Path(str(asked["output_dir"]))
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"Nothing to resume: {directory} has no {CONFIG}. Train without --resume first."
        )
    return saved_config(directory, asked)


def open_run(config: Config, *, resume: bool) -> Path:
    """Make or check the directory of a run, and write its config.

    Raises:
        InputError: it holds a run already, or on resuming holds none or one of another config.
    """
    directory = Path(config.output_dir) if config.output_dir else free_directory(config)
    if resume:
        refuse_other_config(directory, saved_config(directory), config)
    else:
        refuse_taken(directory)
    write_atomically(directory / CONFIG, to_yaml(of_anywhere(config)).encode())
    return directory


def refuse_taken(directory: Path) -> None:
    """Stop before anything of a run, of a model or of somebody's own is replaced."""
    try:
        taken = [name for name in FILES if (directory / name).exists()]
    except OSError as error:
        raise InputError(f"{directory} cannot hold a run: {error.strerror}.") from error
    if CONFIG in taken:
        raise InputError(
            f"{directory} already holds a run. Continue it (--resume, in Python resume=True), "
            f"or choose another --output-dir."
        )
    if taken:
        raise InputError(
            f"{directory} already holds {taken[0]}, which a run would replace. "
            f"Choose another --output-dir."
        )


def of_anywhere(config: Config) -> Config:
    """Leave out the run's own place and name all others whole: any directory can repeat it."""
    root, task = config.data.data_root, config.evaluation.one_shot
    data = {"data_root": str(Path(root).expanduser().absolute()) if root else None}
    evaluation = {"one_shot": str(Path(task).expanduser().absolute()) if task else None}
    return config.model_copy(
        update={
            "output_dir": None,
            "data": config.data.model_copy(update=data),
            "evaluation": config.evaluation.model_copy(update=evaluation),
        }
    )


def identity(config: Config, dataset: ItemDataset) -> dict[str, str]:
    """Name by hashes what a checkpoint was trained with: its settings and its data."""
    settings = flat(config.model_dump(mode="json"))
    learned = {key: value for key, value in settings.items() if decides(key)}
    data = hashlib.sha256(repr((dataset.items.shape, dataset.label_names)).encode())
    sample = slice(None, None, len(dataset) // 1000 + 1)
    for values in (dataset.labels, dataset.keys, dataset.items[sample]):
        data.update(np.ascontiguousarray(values).tobytes() if values is not None else b"none")
    return {
        "settings": hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest(),
        "data": data.hexdigest(),
    }


def decides(key: str) -> bool:
    """Return whether a setting decides what is learned."""
    return key not in MAY_DIFFER and not key.startswith("evaluation.")


def free_directory(config: Config) -> Path:
    """Return `runs/<dataset>-<loss>-<encoder>-seed<seed>`, with a number if it is taken."""
    encoder = config.encoder.name.replace(":", "-").replace("/", "-")
    seed = config.training.seed
    base = Path("runs") / f"{config.data.dataset}-{config.loss.name}-{encoder}-seed{seed}"
    directory, count = base, 1
    while directory.exists():
        count += 1
        directory = base.with_name(f"{base.name}-{count}")
    return directory


def refuse_other_config(directory: Path, saved: Config, asked: Config) -> None:
    """Stop if continuing would change what is learned, naming the first setting that differs."""
    old, new = flat(saved.model_dump(mode="json")), flat(asked.model_dump(mode="json"))
    for key, value in old.items():
        if decides(key) and new[key] != value:
            raise InputError(
                f"{directory} was trained with {key}={value}, but {key}={new[key]} was asked. "
                f"Resume with the run's own settings, or choose another --output-dir."
            )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return out


def write_environment(directory: Path, config: Config, hardware: Hardware) -> None:
    """Record versions and hardware, without names of hosts, users or paths."""
    precision = str(hardware.precision).removeprefix("torch.")
    content = environment(hardware.device) | {
        "precision": precision,
        "seed": config.training.seed,
    }
    write_atomically(directory / "environment.json", json.dumps(content, indent=2).encode())


def environment(device: torch.device) -> dict[str, Any]:
    """Describe versions and hardware."""
    from importlib.metadata import version

    names = ["torch", "torchvision", "numpy", "scikit-learn", "faiss-cpu", "faiss-gpu"]
    return {
        "setrep": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: installed(name, version) for name in names},
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "threads": torch.get_num_threads(),
    }


def installed(name: str, version: Any) -> str | None:
    """Return a package's version, or none."""
    from importlib.metadata import PackageNotFoundError

    try:
        return str(version(name))
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the source that runs, with `+` if it was changed; none if installed."""
    source = Path(__file__).parents[2]
    if not (source / ".git").exists():
        return None
    try:
        found, changes = (
            subprocess.run(
                ["git", "-C", source, *question], capture_output=True, text=True, check=True
            ).stdout.strip()
            for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "setrep"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{found}+" if changes else found


def memory_gib() -> float | None:
    """Return the machine's memory, where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def cpu_model() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
