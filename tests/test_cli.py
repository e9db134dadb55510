"""The command line: what it says, on which stream, and with which status it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.cli import main
from setrep.protocols import bound_rows
from setrep.reports import runs

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
BARE_RUN = {
    "config.yaml",
    "model.safetensors",
    "model.json",
    "checkpoint/last.safetensors",
    "metrics.jsonl",
    "evaluation.json",
    "environment.json",
}


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


def numbers(value: object, name: str = "") -> dict[str, object]:
    """Return nested JSON by dotted names."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    out: dict[str, object] = {}
    for key, item in pairs:
        out |= numbers(item, f"{name}.{key}" if name else str(key))
    return out


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
def _surroundings(tmp_path_factory):
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
    return root


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
    "resume with another margin": (
        "train --resume --output-dir {place}/digits_run --set loss.margin=0.5",
        "trained with loss.margin=0.2, but loss.margin=0.5 was asked",
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
    "query no index": ("query {place}/photos_run {place}/single", "is not an index"),
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


# The options of each command.
OPTIONS = {
    "": "--version --help",
    "train": "--config --dataset --data-root --subset --label-level --collection-level --method "
    "--loss --encoder --aggregator --image-size --classes-per-episode --collections-per-class "
    "--items-per-collection --max-steps --max-minutes --one-shot --output-dir --resume --device "
    "--seed --on-bad-image --set --json",
    "evaluate": "--dataset --data-root --split --label-level --collection-level --sizes --one-shot "
    "--output --json RUN",
    "verify-bounds": "--bounds --max-triples --sizes --data-root --output-dir --json RUN",
    "index": "--output --labelled RUN INPUT",
    "query": "-k --json INDEX",
    "list": "--json",
    "data": "list info prepare",
    "data list": "--json",
    "data info": "--help",
    "data prepare": "--data-root --subset --image-size",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command, tmp_path):
    done = call(*command.split(), "--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    words = set(done.out.replace("[", " ").replace("]", " ").replace("|", " ").split())
    assert set(OPTIONS[command].split()) - words == set()


def test_help_names_every_command_and_bare_setrep_prints_it(tmp_path):
    done = call("--help", cwd=tmp_path)
    for command in OPTIONS:
        assert command.partition(" ")[0] in done.out
    assert call(cwd=tmp_path) == done


def test_the_version_is_printed(tmp_path):
    import setrep

    assert call("--version", cwd=tmp_path) == Outcome(0, f"setrep {setrep.__version__}\n", "")


def test_names_and_data_sets_are_listed(tmp_path):
    from setrep.data.registry import DATASETS
    from setrep.training.build import LOSSES

    assert call("list", "losses", cwd=tmp_path).out.split() == list(LOSSES)
    assert json.loads(call("list", "losses", "--json", cwd=tmp_path).out) == list(LOSSES)
    assert json.loads(call("data", "list", "--json", cwd=tmp_path).out) == list(DATASETS)
    listed = call("data", "list", cwd=tmp_path).out.splitlines()
    assert [line.split()[0] for line in listed] == list(DATASETS)
    assert "test split" in call("data", "info", "digits", cwd=tmp_path).out


@pytest.mark.parametrize("run", ["digits_run", "photos_run", "vectors_run"])
def test_training_writes_a_run_with_results_on_stdout_and_progress_on_stderr(run, place):
    out, err = (place / f"{run}.out").read_text(), (place / f"{run}.err").read_text()
    assert set(files(place / run)) == BARE_RUN
    assert "items: recall@1" in out
    assert "pixels" in out
    assert f"Run directory: {place / run}" in out
    assert "step 3/3" in err
    assert f"Run directory: {place / run}" in err  # in one piece, however long
    assert "step" not in out
    assert "recall" not in err


def test_names_of_files_are_shown_as_they_are(place):
    assert "photos[red], 2 of 6 labels" in (place / "photos_run.out").read_text()
    assert "photos[red], 4 of 6 labels" in (place / "photos_run.err").read_text()


def test_evaluate_repeats_what_training_measured_and_prints_it_as_json(place, tmp_path):
    target = tmp_path / "again.json"
    done = call("evaluate", place / "digits_run", "--json", "--output", target, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out == target.read_text()
    again = numbers(json.loads(done.out))
    first = numbers(json.loads((place / "digits_run/evaluation.json").read_text()))
    assert again["seconds"] > 0
    assert [again["collections.0.size"], again["collections.1.size"]] == [1, 5]
    # Training leaves the weights in another layout in memory, so sums differ by a rounding.
    assert again == pytest.approx(first | {"seconds": again["seconds"]}, abs=0.01)


def test_evaluate_measures_what_is_asked(place, tmp_path):
    target = tmp_path / "sizes.json"
    before = files(place)
    done = call("evaluate", place / "vectors_run", "--sizes", "3", "--output", target, cwd=tmp_path)
    assert done.code == 0
    assert "sets of 3" in done.out
    assert [row["size"] for row in json.loads(target.read_text())["collections"]] == [3]
    assert files(place) == before


def test_the_data_root_of_a_run_wins_over_the_environment(place, tmp_path, monkeypatch):
    monkeypatch.setenv("SETREP_DATA", str(place / "truncated"))
    arguments = ["--json", "--output", tmp_path / "evaluation.json"]
    done = call("evaluate", place / "photos_run", *arguments, cwd=tmp_path)
    assert json.loads(done.out)["source_note"].startswith("photos[red]")


def test_the_environment_stands_in_for_the_data_root(place, tmp_path, monkeypatch):
    monkeypatch.setenv("SETREP_DATA", str(place / "photos[red]"))
    done = call("data", "prepare", "folder", "--image-size", "8", cwd=tmp_path)
    assert done.code == 0
    assert done.out.startswith("train: photos[red], 4 of 6 labels, 24 images")
    monkeypatch.setenv("SETREP_DATA", str(place / "nowhere"))
    assert "(from SETREP_DATA)" in call("data", "prepare", "folder", cwd=tmp_path).err


def test_verify_bounds_writes_its_report_and_finds_no_violation(place, tmp_path):
    arguments = ["verify-bounds", place / "digits_run", "--max-triples", "20"]
    target = tmp_path / "bounds"
    shown = call(*arguments, "--output-dir", target, cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "margin_plus_max" in shown.out
    assert f"Report: {target / 'bounds.json'}" in shown.out
    assert "20 triples of " in shown.out
    report = json.loads((target / "bounds.json").read_text())
    done = call(*arguments, "--output-dir", target, "--json", "--sizes", "2", cwd=tmp_path)
    summary = json.loads(done.out)
    assert set(summary) == set(report["summary"]) == {"karimov", "margin_plus_max", "chamfer"}
    assert summary["karimov"]["num_checked"] == 20
    assert set(files(place / "digits_run")) == BARE_RUN


def test_a_violated_bound_ends_with_status_3(place, tmp_path, monkeypatch):
    true = bound_rows.STATEMENTS["karimov"]

    def false(triples):
        bound = true.compute(triples)
        return dataclasses.replace(bound, bound=bound.value * 0.5)

    monkeypatch.setitem(bound_rows.STATEMENTS, "karimov", dataclasses.replace(true, compute=false))
    arguments = ["--max-triples", "20", "--output-dir", tmp_path, "--json"]
    done = call("verify-bounds", place / "vectors_run", *arguments, "--sizes=2", cwd=tmp_path)
    assert done.code == 3
    assert json.loads(done.out)["karimov"]["num_violations"] == 20
    assert json.loads(done.out)["chamfer"]["num_violations"] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_an_indexed_collection_is_found_by_its_own_images(channels, place, tmp_path):
    photos = place / "photos[red]"
    run, index = place / "photos_run", tmp_path / "index"
    if channels == 1:
        photos, run = write_photos(tmp_path / "grey", channels=1), tmp_path / "grey_run"
        call("train", *PHOTOS, "--data-root", photos, "--output-dir", run, cwd=tmp_path)
    built = call("index", run, photos, "--labelled", "--output", index, cwd=tmp_path)
    assert built == Outcome(0, f"Indexed 12 collections in {index}\n", "")
    wanted = photos / "label3" / "set1"
    found = call("query", index, wanted, "-k", "2", "--json", cwd=tmp_path)
    assert (found.code, found.err) == (0, "")
    matches = json.loads(found.out)
    assert [len(matches), matches[0]["id"]] == [2, "label3/set1"]
    assert matches[0]["label"] == "label3"
    assert matches[0]["score"] == pytest.approx(0, abs=1e-6)
    shown = call("query", index, *sorted(wanted.iterdir()), cwd=tmp_path)
    assert "label3/set1" in shown.out.splitlines()[3]
    again = call("index", run, photos, "--labelled", "--output", index, cwd=tmp_path)
    assert (again.code, "--overwrite" in again.err) == (2, True)
    replaced = call("index", run, photos, "--output", index, "--overwrite", cwd=tmp_path)
    assert replaced.code == 2  # there are no images in photos/<label>/*
    assert call("query", index, wanted, cwd=tmp_path).code == 0


def test_a_runs_own_config_repeats_it_elsewhere_to_the_same_weights(place, tmp_path):
    first = place / "photos_run"
    done = call("train", "--config", first / "config.yaml", "--json", cwd=tmp_path)
    assert done.code == 0
    assert json.loads(done.out)["dataset"] == "folder"
    (again,) = (tmp_path / "runs").iterdir()
    assert f"Run directory: {again.relative_to(tmp_path)}" in done.err
    for name in ("config.yaml", "model.json", "model.safetensors"):
        assert (again / name).read_bytes() == (first / name).read_bytes()


def test_a_run_stopped_by_time_says_how_to_continue_to_the_same_weights(place, tmp_path):
    arguments = [*PHOTOS, "--data-root", place / "photos[red]", "--output-dir", "my run;"]
    done = call("train", *arguments, "--max-minutes", "1e-9", cwd=tmp_path)
    for step in (1, 2):
        assert (done.code, done.out) == (0, "")
        last = done.err.splitlines()[-1]
        stopped, _, command = last.partition("Continue: setrep ")
        assert stopped == f"Stopped at step {step}. "
        done = call(*shlex.split(command), "--json", cwd=tmp_path)
        if step == 1:
            stopped = {"step": 2, "reason": "out_of_time", "resume": f"setrep {command}"}
            assert json.loads(done.out) == stopped
            done = dataclasses.replace(done, out="")
    assert done.code == 0
    assert json.loads(done.out)["items"]
    assert "Continuing at step 2: training" in done.err
    done = call(*shlex.split(command), cwd=tmp_path)
    assert "Trained already. Evaluating" in done.err
    model = "model.safetensors"
    assert (tmp_path / "my run;" / model).read_bytes() == (
        place / "photos_run" / model
    ).read_bytes()
    metrics = (tmp_path / "my run;" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [3]


def test_unreadable_images_are_left_out_when_asked(place, tmp_path):
    skip = ["--on-bad-image", "skip", "--data-root", place / "truncated", "--output-dir", "run"]
    done = call("train", *PHOTOS, *skip, cwd=tmp_path)
    assert done.code == 0
    assert "unreadable images skipped" in done.out + done.err


def test_a_class_too_small_for_a_bound_does_not_cost_the_evaluation(place, tmp_path):
    """Of two classes held out one has a single image, so there is no triple of collections."""
    for seed in range(20):  # until the small class is held out
        arguments = [*PHOTOS, "--data-root", place / "single", "--output-dir", f"run{seed}"]
        done = call("train", *arguments, "--set", f"data.split_seed={seed}", cwd=tmp_path)
        if done.code == 0:
            break
    assert done.code == 0
    found = json.loads((tmp_path / f"run{seed}" / "evaluation.json").read_text())
    assert found["bounds"] is None
    assert found["items"]["num_classes"] == 2
