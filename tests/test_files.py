from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from setrep.errors import InputError
from setrep.files import replace_files, write_atomically


def number_of_a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_write_removes_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    dead, own = number_of_a_dead_process(), os.getpid()
    left = [f".a.json.{dead}.tmp", f".b.bin.{dead}.tmp", f".a.json.{own}.tmp"]
    others = [
        *(f".a.json.{os.getppid()}.tmp", f".other.{dead}.tmp", ".a.json.tmp", "my.tmp"),
        *(f"a.json.{dead}.tmp", f".a.json.{dead}.tmp~", ".a.json.x1.tmp"),
    ]
    for name in (*left, *others):
        (tmp_path / name).write_text("part")
    replace_files(tmp_path, {"a.json": b"a", "b.bin": b"b"})
    assert names(tmp_path) == sorted([*others, "a.json", "b.bin"])
    assert (tmp_path / "a.json").read_bytes() + (tmp_path / "b.bin").read_bytes() == b"ab"


def test_a_write_that_is_killed_leaves_the_old_file_and_nothing_after_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "a.bin"
    write_atomically(path, b"old")
    code = (
        "import os, pathlib, signal, sys\nfrom setrep.files import write_atomically\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), b'x')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=120)
    assert path.read_bytes() == b"old"
    assert len(names(path.parent)) == 2
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["a.bin"]


def test_a_full_disk_leaves_every_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_files(tmp_path, {"a": b"old", "b": b"old"})
    written: list[int] = []

    def full_at_the_second(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("setrep.files.os.fsync", full_at_the_second)
    with pytest.raises(InputError, match=r"b: No space left on device") as caught:
        replace_files(tmp_path, {"a": b"new", "b": b"new"})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"oldold"


def test_a_failed_write_into_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("mine")
    with pytest.raises(InputError, match="Cannot write") as caught:
        write_atomically(tmp_path / "afile" / "x", b"content")
    assert "\n" not in str(caught.value)
