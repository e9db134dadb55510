"""The files of the one-shot task: what is read, in which order, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from setrep.data import load_one_shot, read_image
from setrep.errors import InputError
from setrep.item_format import ItemFormat
from tests.fakes import REAL, encoded, fake_one_shot, glyph, one_shot_files, write_files

SMALL = ItemFormat("image", 1, 20, is_inverted=True)
LABELS = "run01/class_labels.txt"


def refusal(path):
    """Return the message of the one line in which a task is refused."""
    with pytest.raises(InputError) as caught:
        load_one_shot(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("top", ["", "all_runs/", "a/b/"])
@pytest.mark.parametrize("name", ["task.zip", "task", "task.tar.gz"])
def test_runs_are_read_from_a_zip_a_tar_or_a_directory(name, top, tmp_path):
    task = load_one_shot(str(fake_one_shot(tmp_path / name, top=top)))
    assert [run.name for run in task.runs] == ["run01", "run02"]
    for number, run in enumerate(task.runs, start=1):
        assert run.training == [encoded(glyph(f"{number}, {way}", 2)) for way in (1, 2, 3, 4)]
        assert run.test == [encoded(glyph(f"{number}, {way}", 1)) for way in (4, 3, 2, 1)]
        np.testing.assert_array_equal(run.answers, [3, 2, 1, 0])
        assert run.answers.dtype == np.int64


def test_the_same_task_is_read_from_the_folder_above_the_runs_and_from_inside_it(tmp_path):
    fake_one_shot(tmp_path / "task", top="all_runs/")
    outside, inside = (load_one_shot(tmp_path / "task" / name) for name in ("", "all_runs"))
    assert [run.test for run in outside.runs] == [run.test for run in inside.runs]


def test_paths_may_start_at_the_root_and_lines_may_end_as_on_windows(tmp_path):
    files = one_shot_files(num_runs=1, top="all_runs/")
    text = files["all_runs/" + LABELS].decode().replace("run01/", "./all_runs/run01/")
    content = "\r\n\r\n".join(text.splitlines()).encode("utf-8-sig")
    task = load_one_shot(write_files(tmp_path / "task", files | {"all_runs/" + LABELS: content}))
    np.testing.assert_array_equal(task.runs[0].answers, [3, 2, 1, 0])


def test_images_are_decoded_as_any_reader_would(tmp_path):
    run = load_one_shot(fake_one_shot(tmp_path / "task.zip")).runs[1]
    test, training = run.decode(SMALL)
    assert test.shape == training.shape == (4, 1, 20, 20)
    np.testing.assert_array_equal(training[2], read_image(run.training[2], SMALL))
    np.testing.assert_array_equal(test[2], read_image(run.test[2], SMALL))


def test_a_training_image_that_is_nobodys_answer_still_counts_among_the_choices(tmp_path):
    files = one_shot_files(num_runs=1)
    files[LABELS] = files[LABELS].replace(b"class04", b"class01")
    run = load_one_shot(write_files(tmp_path / "task", files)).runs[0]
    assert len(run.training) == 4
    np.testing.assert_array_equal(run.answers, [0, 2, 1, 0])


def test_files_that_are_no_images_are_left_out(tmp_path):
    strays = ["run01/training/Thumbs.db", "run01/test/.hidden.png", "notes.txt", "x/y.png"]
    path = write_files(tmp_path / "task", one_shot_files() | dict.fromkeys(strays, b"x"))
    assert [len(run.training) for run in load_one_shot(path).runs] == [4, 4]


@pytest.mark.parametrize(
    ("num_runs", "num_ways", "note"),
    [
        (2, 4, "2 runs, 4-way, 8 decisions"),
        (1, 20, "1 of the official 20 runs (run01), 20-way, 20 decisions"),
        (3, 20, "3 of the official 20 runs (run01 to run03), 20-way, 60 decisions"),
        (21, 1, "21 runs, 1-way, 21 decisions"),
    ],
)
def test_the_source_note_says_what_was_read(num_runs, num_ways, note, tmp_path):
    task = load_one_shot(fake_one_shot(tmp_path / "task.zip", num_runs, num_ways))
    assert task.source_note == f"Omniglot one-shot task, {note}"


def test_the_source_note_names_runs_that_do_not_follow_each_other(tmp_path):
    files = one_shot_files(num_runs=4, num_ways=20)
    kept = {name: content for name, content in files.items() if not name.startswith("run02/")}
    task = load_one_shot(write_files(tmp_path / "task.zip", kept))
    assert "3 of the official 20 runs (run01, run03, run04)" in task.source_note


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("run01/test/item01.png", "line 5: expected 'test_path training_path'"),
        ("a b c", "line 5: expected 'test_path training_path'"),
        ("run01/test/none.png run01/training/class01.png", "no test image 'run01/test/none.png'"),
        ("run01/test/item01.png run01/training/none.png", "no training image"),
        ("run01/training/class01.png run01/test/item01.png", "no test image"),
        ("run01/test/item01.png run02/training/class01.png", "no training image"),
        ("../run01/test/item01.png run01/training/class01.png", "no test image"),
        ("run01/test/item01.png run01/training/class01.png", "has an answer already"),
        ("\udcff", "is not a text file"),
    ],
)
def test_a_wrong_line_is_named(line, problem, tmp_path):
    files = one_shot_files()
    files[LABELS] += line.encode(errors="surrogateescape")
    message = refusal(write_files(tmp_path / "task.zip", files))
    assert f"task.zip: {LABELS}" in message
    assert problem in message


def test_a_test_image_without_an_answer_is_refused(tmp_path):
    files = one_shot_files()
    files[LABELS] = b"\n".join(files[LABELS].splitlines()[1:])
    message = refusal(write_files(tmp_path / "task.zip", files))
    assert "no line for run01/test/item01.png (1 test images without an answer)" in message


def test_a_damaged_image_is_named_before_anything_is_made_of_it(tmp_path):
    files = one_shot_files()
    name = "run02/training/class03.png"
    path = write_files(tmp_path / "task.zip", files | {name: files[name][:150]})
    assert f"task.zip: {name}: not a whole image" in refusal(path)


def test_what_is_no_task_is_refused(tmp_path):
    assert "There is no file or directory" in refusal(tmp_path / "none.zip")
    empty = write_files(tmp_path / "empty.zip", {"run01/test/item01.png": b""})
    assert "holds no one-shot runs" in refusal(empty)
    (tmp_path / "text.zip").write_text("no zip")
    assert "not a whole zip" in refusal(tmp_path / "text.zip")
    outside = write_files(tmp_path / "outside.zip", one_shot_files() | {"../x.png": b""})
    assert "would land outside" in refusal(outside)
    no_lines = write_files(tmp_path / "no_lines", one_shot_files() | {LABELS: b"\n"})
    assert "is empty" in refusal(no_lines)
    assert "holds no one-shot runs" in refusal(no_lines / "run02")
    twice = one_shot_files(top="a/") | one_shot_files(top="b/")
    assert "'run01' more than once" in refusal(write_files(tmp_path / "twice.zip", twice))


@pytest.mark.real_data
@REAL
def test_the_first_ten_official_runs_are_whole():
    task = load_one_shot(Path(os.environ["SETREP_DATA"], "one-shot", "runs_01_10.zip"))
    assert task.source_note == (
        "Omniglot one-shot task, 10 of the official 20 runs (run01 to run10), 20-way, 200 decisions"
    )
    for run in task.runs:
        assert sorted(run.answers) == list(range(20))
        assert len({*run.test, *run.training}) == 40
