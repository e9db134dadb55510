"""The rooms of setrep import downwards only, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import setrep

ROOT = Path(setrep.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {
    "config_files": -1,  # YAML, for config alone
    "config_sections": -1,
    "config": 0,
    "collection": 0,
    "distributed": 0,
    "files": 0,
    "item_format": 0,
    "functional": 1,
    "data": 2,
    "encoders": 2,
    "aggregators": 2,
    "miners": 2,
    "losses": 2,
    "priors": 2,
    "metrics": 2,
    "set_distances": 2,
    "index": 2,
    "bounds": 3,
    "set_encoder": 3,
    "retrieval": 4,
    "methods": 4,
    "protocols": 5,
    "training": 6,
    "reports": 7,
    "cli": 8,
    "__main__": 9,
}
DOORS = {
    "faiss": {"index"},
    "timm": {"encoders"},
    "learn2learn": set(),
    "torch.distributed": {"distributed"},
    "evaluation": set(),
    "configs": set(),
    "tests": set(),
}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imported_modules(tree: ast.AST) -> list[str]:
    """Return every module imported anywhere, `from a import b` as `a.b`."""
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules += [f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names]
    return modules


def forbidden_imports(source: str, room: str) -> list[str]:
    """Return the imports that a file of `room` must not have."""
    found = []
    for module in imported_modules(ast.parse(source)):
        parts = module.split(".")
        if parts[0] == "" or parts == ["setrep"]:
            found.append(module)
        elif parts[0] == "setrep" and parts[1] not in ("errors", "__version__", room):
            level = LEVELS.get(parts[1])
            if level is None or level >= LEVELS[room]:
                found.append(module)
        for door, rooms in DOORS.items():
            if f"{module}.".startswith(f"{door}.") and room not in rooms:
                found.append(module)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_rooms_below_its_own(file):
    room = room_of(file)
    if room in ("__init__", "errors"):
        return
    assert room in LEVELS, f"{room} has no level in architecture"
    assert forbidden_imports(file.read_text(), room) == []


@pytest.mark.parametrize(
    "source",
    [
        "from setrep.training.loop import train",
        "def f():\n    import setrep.methods.supervised",
        "from setrep.encoders import build_encoder",  # a room of the same level
        "from setrep import training",
        "from setrep import SetEncoder",
        "import setrep",
        "from .dataset import ItemDataset",
        "def f():\n    from evaluation import suites",
        "import faiss",
        "import torch.distributed as dist",
        "from torch import distributed",
        "if TYPE_CHECKING:\n    from setrep.protocols import item_knn",
    ],
)
def test_an_upward_sideways_or_relative_import_is_found(source):
    assert forbidden_imports(source, "data") != []


def test_downward_imports_are_allowed():
    source = "from setrep.collection import draw_disjoint\nfrom setrep.data.batch import Batch\n"
    assert forbidden_imports(source + "import torch.utils.data\nimport numpy", "data") == []


def test_errors_import_nothing_of_setrep():
    assert "setrep" not in (ROOT / "errors.py").read_text().replace("`setrep`", "")


def test_no_file_is_longer_than_300_lines():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh Python holds after running `code`."""
    report = "import sys; print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_torch_nor_torchvision():
    code = (
        "import sys\nfrom setrep.cli import main\nsys.argv = ['setrep', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code"
    )
    modules = modules_after(code)
    assert "setrep" in modules
    assert not modules & {"torch", "torchvision", "sklearn", "scipy", "faiss"}


@pytest.mark.parametrize("module", ["setrep", "setrep.data"])
def test_importing_the_library_imports_no_slow_package(module):
    modules = modules_after(f"import {module}")
    assert not modules & {"torchvision", "sklearn", "scipy", "faiss"}
