"""The pages do what they say: their code runs, their links lead somewhere, their options exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import typer

from setrep.cli.app import app
from setrep.config import known_keys

ROOT = Path(__file__).parent.parent
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [page for page in TOP if page.exists()] + sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^(<!-- run -->\n+)?( *)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- run -->$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[tuple[bool, int, str]]:
    """Return whether each block of a language is to be run, its first line and its text."""
    return [
        (bool(found[1]), text.count("\n", 0, found.start(4)), found[4])
        for found in BLOCK.finditer(text)
        if found[3] == language
    ]


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links that lead to no file or no heading."""
    broken = []
    for target in LINK.findall(prose(text)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_found = file.is_relative_to(ROOT) and file.exists()
        if not is_found or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def commands_of(group, name: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Return every command with the options that its help shows."""
    options = {option for parameter in group.params for option in parameter.opts}
    found = {name: {option for option in options if option.startswith("-")} | {"--help"}}
    for word, command in getattr(group, "commands", {}).items():
        found |= commands_of(command, (*name, word))
    return found


COMMANDS = commands_of(typer.main.get_command(app))


def mentions(text: str) -> list[str]:
    """Return what a page shows of the command line: lines of shell, and inline code."""
    shell = "\n".join(
        code for language in ("", "bash", "sh") for _, _, code in blocks(text, language)
    )
    lines = [line.partition(" #")[0] for line in shell.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", prose(text))


def problems(mention: str) -> list[str]:
    """Return what is wrong in one mention of the command line."""
    if not re.search(r"(^|[ /])setrep |^--\w", mention):
        return []
    words = shlex.split(mention.partition("setrep ")[2] or mention, comments=True)
    name: tuple[str, ...] = ()
    while words and (*name, words[0]) in COMMANDS:
        name = (*name, words.pop(0))
    if not name and words and not words[0].startswith("-"):
        return [f"setrep {words[0]}: no such command"]
    known = COMMANDS[name] if name else set().union(*COMMANDS.values())
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    found = [f"{option}: no such option" for option in options if option not in known]
    settings = [after for word, after in pairwise(words) if word == "--set"]
    keys = [setting.partition("=")[0] for setting in settings if "." in setting.partition("=")[0]]
    return found + [f"{key}: no such setting" for key in keys if key not in known_keys()]


@every_page
def test_every_python_block_compiles(page):
    for _, line, code in blocks(page.read_text(encoding="utf-8"), "python"):
        compile("\n" * line + code, str(page), "exec", dont_inherit=True)


@pytest.fixture
def registries_restored():
    """Take back what an example registers."""
    from setrep.aggregators import AGGREGATORS
    from setrep.data.registry import DATASETS
    from setrep.encoders import ANY_BACKBONES, IMAGE_BACKBONES
    from setrep.training.methods import LOSSES, METHODS, MINERS

    with (
        patch.dict(AGGREGATORS),
        patch.dict(DATASETS),
        patch.dict(ANY_BACKBONES),
        patch.dict(IMAGE_BACKBONES),
        patch.dict(LOSSES),
        patch.dict(METHODS),
        patch.dict(MINERS),
    ):
        yield


@pytest.mark.usefixtures("registries_restored")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if MARK.search(page.read_text())], ids=lambda p: p.name
)
def test_the_marked_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SETREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SETREP_DATA", raising=False)
    text = page.read_text(encoding="utf-8")
    marked = [(line, code) for is_run, line, code in blocks(text, "python") if is_run]
    assert len(marked) == len(MARK.findall(text)), "a mark is not right before its block"
    names = {"__name__": "__main__"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for line, code in marked:
            # Line numbers of a traceback are those of the page.
            exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), names)


@every_page
def test_every_internal_link_resolves(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@every_page
def test_every_command_and_option_exists(page):
    found = mentions(page.read_text(encoding="utf-8"))
    assert {mention: problems(mention) for mention in found if problems(mention)} == {}


@every_page
def test_every_file_and_test_that_a_page_names_exists(page):
    code = re.findall(r"`([^`\n]+)`", prose(page.read_text(encoding="utf-8")))
    paths = [word for word in code if re.fullmatch(r"(setrep|tests|docs|\.ci)/[\w./-]+", word)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    sources = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    tests = [word for word in code if re.fullmatch(r"test_\w+", word)]
    assert [test for test in tests if f"def {test}(" not in sources] == []


@pytest.mark.parametrize(
    "mention",
    [
        "setrep trian",
        "setrep train --datset omniglot",
        "setrep data info omniglot --subset full",
        "SETREP_DATA=DATA setrep train --datset omniglot",
        "setrep train --set loss.margn=1",
        "--datset",
    ],
)
def test_a_wrong_mention_is_found(mention):
    assert problems(mention) != []


@pytest.mark.parametrize(
    "mention",
    [
        "setrep",
        "setrep train --data-root=DATA --set loss.margin=0.2",
        "setrep query INDEX photo.png -k 5",
        "--label-level alphabet --collection-level character",
        "pip install --force-reinstall faiss-cpu",
        "setrep train --set 'data.validation_groups=[Sanskrit]'  # two words",
    ],
)
def test_a_right_mention_is_not_found(mention):
    assert problems(mention) == []


def test_a_link_to_nowhere_is_found():
    text = "[a](CHANGELOG.md) [b](nowhere.md) [c](CHANGELOG.md#no-such-heading)"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md", "CHANGELOG.md#no-such-heading"]
