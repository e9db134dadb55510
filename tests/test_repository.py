"""The repository keeps its word: public names, commands of the README, and what is never there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import setrep
from setrep.cli.app import app

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "setrep").rglob("*.py"))
TESTS = "bash .ci/test"  # the README's second command
# Put together here, so that this file does not name what it forbids.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "download.py" + "torch.org", "ana" + "conda.org"]
HOSTS += ["index" + "-url", "npm" + "js.org"]
OWN_PLACES = re.compile(
    r"(?<![\w.~$}/-])/("
    + "|".join(["wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers", "tm" + "p/w", "mn" + "t"])
    + r")/\w"
)


def tracked_files() -> list[Path]:
    """Return what git tracks, or in an unpacked source archive what lies there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.CalledProcessError):
        folders = ["setrep", "tests", "configs", "evaluation", "benchmarks", "docs"]
        return [p for name in folders for p in (ROOT / name).rglob("*") if p.is_file()]
    return [ROOT / name for name in done.stdout.split("\0") if (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="ignore")


def test_there_are_at_most_25_public_names_and_each_can_be_imported():
    assert len(setrep.__all__) <= 25
    assert setrep.__all__ == sorted(setrep.__all__)
    assert set(setrep.__all__) == set(setrep._HOME)
    for name in setrep.__all__:
        assert getattr(setrep, name) is getattr(importlib.import_module(setrep._HOME[name]), name)
        assert getattr(setrep, name).__doc__


def test_type_checkers_see_the_public_names_where_they_are():
    tree = ast.parse(text_of(ROOT / "setrep" / "__init__.py"))
    found = {
        alias.name: (node.module, getattr(setrep, alias.name))
        for guard in tree.body
        if isinstance(guard, ast.If)
        for node in guard.body
        for alias in node.names
    }
    assert set(found) == set(setrep.__all__)
    for name, (module, value) in found.items():
        assert getattr(importlib.import_module(module), name) is value


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = setrep.Nothing


def test_public_names_are_loaded_when_first_asked_for():
    code = "import sys, setrep; assert 'torch' not in sys.modules; setrep.CollectionBatch; "
    code += "assert 'torch' in sys.modules; assert 'setrep.training' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path):
    described = ast.get_docstring(ast.parse(text_of(path))) or ""
    assert described.split("\n")[0].endswith((".", ";", ":", "?"))
    assert len(described) > 10


FORBIDDEN = re.compile(
    r"\b(pickle|cPickle|joblib|dill|shelve|marshal)\b|torch\.(load|save)\(|allow_pickle=True"
)


# CIFAR is published as pickles; this door reads them as data and has a test that it runs nothing.
PICKLE_DOOR = ROOT / "setrep/data/batch_pickles.py"


def test_nothing_is_pickled():
    assert not re.search(r"pickle\.(loads?|dumps?|Pickler)\b", text_of(PICKLE_DOOR))
    others = [path for path in MODULES if path != PICKLE_DOOR]
    found = {str(path): FORBIDDEN.findall(text_of(path)) for path in others}
    assert {path: lines for path, lines in found.items() if lines} == {}
    loads = [line for path in MODULES for line in re.findall(r"np\.load\(.*", text_of(path))]
    assert loads
    assert all("allow_pickle=False" in line for line in loads)


@pytest.mark.parametrize(
    "line", ["import pickle", "torch.load(x)", "np.load(x, allow_pickle=True)"]
)
def test_a_pickle_would_be_found(line):
    assert FORBIDDEN.search(line)


def test_no_file_names_the_host_of_a_package_registry():
    found = {str(p): [host for host in HOSTS if host in text_of(p)] for p in tracked_files()}
    assert {path: hosts for path, hosts in found.items() if hosts} == {}


def test_no_file_names_a_place_on_one_machine():
    found = {str(p): OWN_PLACES.findall(text_of(p)) for p in tracked_files()}
    assert {path: places for path, places in found.items() if places} == {}
    assert OWN_PLACES.search("see /ho" + "me/someone/data")
    assert not OWN_PLACES.search("DATA/ho" + "me/someone")


def readme() -> str:
    path = ROOT / "README.md"
    assert path.is_file(), "There is no README.md."
    return path.read_text(encoding="utf-8")


def shell_lines(text: str) -> list[str]:
    """Return the commands of fenced blocks that are no program."""
    blocks = re.findall(
        r"^```(?:bash|sh|console|shell)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ").strip() for line in joined.splitlines() if line.strip()]


def setrep_calls(line: str) -> list[list[str]]:
    """Return the arguments of each call of setrep in a line of shell."""
    calls = []
    for part in re.split(r"&&|\|\||;|\|", line):
        words = shlex.split(part, comments=True)
        places = [i for i, word in enumerate(words) if Path(word).name == "setrep"]
        if places and places[0] <= 2 and "install" not in words:
            calls.append(words[places[0] + 1 :])
    return calls


def check_call(arguments: list[str]) -> None:
    """See that a command and all its options exist."""
    command = typer.main.get_command(app)
    rest = list(arguments)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    options = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert options <= known, f"{arguments}: no option {sorted(options - known)}"


def test_every_setrep_command_of_the_readme_and_the_configs_exists():
    calls = [call for line in shell_lines(readme()) for call in setrep_calls(line)]
    assert ["train"] in calls
    for config in (ROOT / "configs").rglob("*.yaml"):
        header = "\n".join(re.findall(r"^# ?(.*)$", config.read_text(), re.MULTILINE))
        commands = re.findall(r"setrep train .*", header.replace("\\\n", " "))
        assert commands, f"{config.name} does not say how to run it"
        calls += [call for line in commands for call in setrep_calls(line)]
    for call in calls:
        check_call(call)


@pytest.mark.parametrize("line", ["setrep trian", "setrep train --bogus", "setrep data lst"])
def test_a_command_that_does_not_exist_would_be_found(line):
    (call,) = setrep_calls(line)
    with pytest.raises(AssertionError, match=r"no command|no option"):
        check_call(call)


def test_every_file_that_a_readme_command_names_exists():
    words = [word for line in shell_lines(readme()) for word in line.split()]
    named = [w for w in words if re.fullmatch(r"(configs|\.ci|benchmarks|evaluation)/\S+", w)]
    assert named
    assert [word for word in [*named, "constraints.txt"] if not (ROOT / word).exists()] == []


def test_two_commands_of_the_readme_install_and_run_each_by_itself():
    lines = shell_lines(readme())
    train = [line for line in lines if re.search(r"setrep train$", line)]
    assert any("pip install" in line and "venv" in line for line in train)
    assert TESTS in lines
    assert "pip install" in text_of(ROOT / ".ci" / "test")
    assert "pytest" in text_of(ROOT / ".ci" / "test")


def test_ci_runs_exactly_the_tests_of_the_readme():
    assert TESTS in text_of(ROOT / ".ci" / "run").splitlines()


def test_the_first_code_of_the_readme_comes_early():
    lines = readme().splitlines()
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("```")) < 25
