"""How commands fail: one line on stderr, a status, and nothing written."""

from __future__ import annotations

import subprocess
import sys
from unicodedata import category

import pytest

from setrep.cli import main
from setrep.reports import runs
from tests.command_line import call, files
from tests.command_line import place as place
from tests.command_line import surroundings as surroundings

# Command; what the line says.
BAD = {
    "unknown command": ("trian", "Did you mean 'train'"),
    "unknown option": ("train --bogus", "--bogus"),
    "unknown data set": ("train --dataset digit", "Did you mean 'digits'"),
    "unknown encoder": ("train --encoder convnt", "Did you mean 'convnet'"),
    "unknown loss": ("train --loss tripelt", "Did you mean 'triplet'"),
    "unknown miner": ("train --set miner.name=batchhard", "Did you mean 'batch_hard'"),
    "unknown aggregator": ("train --aggregator centriod", "Did you mean 'centroid'"),
    "unknown method": ("train --method supervise", "Did you mean 'supervised'"),
    "unknown key": ("train --set loss.margn=1", "Did you mean 'loss.margin'"),
    "unknown section": ("train --set los.margin=1", "Did you mean 'loss'"),
    "unknown key in a file": ("train --config {place}/typo.yaml", "Did you mean 'loss.margin'"),
    "unknown subset": ("train --subset small", "Unknown subset of digits: 'small'"),
    "unknown label level": ("train --label-level digt", "Did you mean 'digit'"),
    "unknown bound": ("verify-bounds {place}/digits_run --bounds karimv", "mean 'karimov'"),
    "unknown thing to list": ("list encodrs", "encoders"),
    "unknown data set to describe": ("data info digit", "Did you mean 'digits'"),
    "command left out": ("data", "data --help`."),
    "device of no kind": ("train --device gpu", "'auto', 'cpu' or 'cuda'"),
    "steps not a number": ("train --max-steps x", "--max-steps"),
    "negative margin": ("train --set loss.margin=-1", "greater than or equal to 0"),
    "margin not a number": ("train --set loss.margin=.nan", "'loss.margin'"),
    "negative seed": ("train --seed -1", "'training.seed' is -1"),
    "tiny image": ("train --image-size 4", "greater than or equal to 8"),
    "malformed --set": ("train --set loss.margin", "--set takes KEY=VALUE"),
    "--set of no key": ("train --set =3", "--set takes KEY=VALUE"),
    "--set of no YAML": ("train --set loss.margin=[1", "not valid YAML"),
    "--set of a section": ("train --set loss=3", "'loss' is 3"),
    "config missing": ("train --config none.yaml", "none.yaml: No such file"),
    "config a directory": ("train --config {place}/empty", "Is a directory"),
    "config not YAML": ("train --config {place}/broken.yaml", "not valid YAML"),
    "config not a mapping": ("train --config {place}/list.yaml", "a mapping of settings, not list"),
    "no data root": ("train --dataset folder", "--data-root DIR"),
    "data root missing": ("train --data-root {place}/nowhere", "nowhere does not exist"),
    "zip that is none": (
        "train --dataset folder --data-root {place}/not.zip",
        "not a whole zip or tar archive",
    ),
    "zip with ../ members": (
        "train --dataset folder --data-root {place}/escape.zip",
        "'../outside.png' would land outside",
    ),
    "truncated image": (
        "train --dataset folder --data-root {place}/truncated --image-size 8",
        "cut.png",
    ),
    "class with one item": (
        "train --dataset folder --data-root {place}/single --image-size 8 "
        "--classes-per-episode 2 --items-per-collection 1",
        "'label0' (1 item)",
    ),
    "collections larger than a class": (
        "train --items-per-collection 1000",
        "Lower items_per_collection",
    ),
    "too many classes": ("train --classes-per-episode 100", "Lower classes_per_episode"),
    "miner without positives": (
        "train --collections-per-class 1 --set miner.positives=cross_collection",
        "at least 2, not 1",
    ),
    "image encoder on vectors": (
        "train --dataset vectors --data-root {place}/vectors.npz --encoder convnet "
        "--classes-per-episode 2",
        "use 'mlp'",
    ),
    "nothing held out to evaluate on": ("train --set evaluation.split=validation", "held out"),
    "size of nothing": ("train --set evaluation.sizes=[0]", "'evaluation.sizes.0' is 0"),
    "no one-shot file": ("train --one-shot {place}/nowhere.zip", "no file or directory"),
    "one-shot of no zip": ("train --one-shot {place}/not.zip", "not a whole zip"),
    "one-shot of another zip": ("train --one-shot {place}/other.zip", "class_labels.txt"),
    "one-shot on vectors": (
        "train --dataset vectors --data-root {place}/vectors.npz --classes-per-episode 2 "
        "--one-shot {place}/not.zip",
        "Leave out --one-shot",
    ),
    "resume without a directory": ("train --resume", "--resume needs --output-dir"),
    "resume in no directory": ("train --resume --output-dir none", "Nothing to resume"),
    "resume in an empty directory": (
        "train --resume --output-dir {place}/empty",
        "Nothing to resume",
    ),
    "resume with another temperature": (
        "train --resume --output-dir {place}/digits_run --set loss.temperature=0.5",
        "trained with loss.temperature=0.1, but loss.temperature=0.5 was asked",
    ),
    "resume with another seed": (
        "train --resume --output-dir {place}/digits_run --seed 5",
        "training.seed=5",
    ),
    "directory that holds a run": (
        "train --output-dir {place}/digits_run",
        "already holds a run",
    ),
    "list of what is not listed": ("list nope", "Invalid value for 'kind': 'nope' is not one of"),
    "evaluate no run": ("evaluate {place}/empty", "is not a run"),
    "evaluate nothing": ("evaluate", "RUN"),
    "evaluate a size of words": ("evaluate {place}/digits_run --sizes 1,x", "found '1,x'"),
    "evaluate a size of nothing": ("evaluate {place}/digits_run --sizes 0", "sizes.0' is 0"),
    "evaluate no such split": ("evaluate {place}/digits_run --split tst", "'validation' or 'test'"),
    "evaluate an empty split": ("evaluate {place}/digits_run --split validation", "held out"),
    "evaluate other items": (
        "evaluate {place}/digits_run --dataset vectors --data-root {place}/vectors.npz",
        "takes items of",
    ),
    "evaluate no one-shot": ("evaluate {place}/digits_run --one-shot {place}/not.zip", "whole zip"),
    "verify no run": ("verify-bounds {place}/empty", "is not a run"),
    "verify an unfinished run": ("verify-bounds {place}/unfinished", "--resume --output-dir"),
    "verify into a file": (
        "verify-bounds {place}/digits_run --output-dir {place}/vectors.npz/here",
        "Cannot write to",
    ),
    "verify what does not apply": (
        "verify-bounds {place}/digits_run --bounds gem",
        "none is of the aggregator 'centroid'",
    ),
    "verify no bound": ("verify-bounds {place}/digits_run --bounds=", "Unknown bound ''"),
    "verify nothing": ("verify-bounds {place}/nowhere", "There is no run"),
    "verify a size of words": ("verify-bounds {place}/digits_run --sizes few", "found 'few'"),
    "verify too large a size": ("verify-bounds {place}/digits_run --sizes 500", "too few items"),
    "verify no triples": ("verify-bounds {place}/digits_run --max-triples 0", "--max-triples"),
    "index with no run": (
        "index {place}/empty {place}/single/label1 --output index",
        "no trained model",
    ),
    "index of no directory": ("index {place}/photos_run none --output index", "not a directory"),
    "index of no images": ("index {place}/photos_run {place}/empty --output index", "no images"),
    "index with vectors": (
        "index {place}/vectors_run {place}/single/label1 --output index",
        "takes vectors",
    ),
    "index in place of a run": (
        "index {place}/photos_run {place}/single/label1 --output {place}/photos_run",
        "nothing was changed",
    ),
    "query no index": ("query {place}/photos_run {place}/single", "no index at"),
    "query none": ("query none {place}/single", "no index at"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_status_2_and_writes_nothing(name, place, tmp_path):
    command, expected = BAD[name]
    before = files(place)
    done = call(*command.format(place=place).split(), cwd=tmp_path)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1
    assert expected in done.err
    assert list(tmp_path.iterdir()) == []
    assert files(place) == before


def test_the_shell_sees_one_line_and_status_2_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "setrep", "train", "--config", "none.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "Error: Cannot read the config file none.yaml: No such file or directory.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--{}", "3"],
        ["--dataset", "{}"],
        ["--config", "{}.yaml"],
        ["--set", "{}=1"],
        ["--set", "loss.margin={}"],
    ],
)
def test_the_line_steers_no_terminal(arguments, tmp_path):
    bad = "\x1b[31m\u202e\x9b\x07"
    done = call("train", *(one.format(bad) for one in arguments), cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "[31m" in done.err
    assert {one for one in done.err if category(one) in ("Cc", "Cf")} == {"\n"}


def test_a_reader_that_leaves_is_not_told_off(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    command = [sys.executable, "-m", "setrep", "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_fault_of_our_own_is_not_told_as_the_callers(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(runs, "configure", fail)
    monkeypatch.setattr(sys, "argv", ["setrep", "train"])
    with pytest.raises(RuntimeError, match="broken"):
        main()


def test_an_interrupt_ends_with_status_130(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "configure", interrupt)
    done = call("train", cwd=tmp_path)
    assert (done.code, done.out) == (130, "")
