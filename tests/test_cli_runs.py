"""Commands that train, measure and search: what they print, on which stream, and write."""

from __future__ import annotations

import dataclasses
import json
import shlex

import pytest

from setrep.protocols import bound_statements
from tests.command_line import PHOTOS, call, files, write_photos
from tests.command_line import place as place
from tests.command_line import surroundings as surroundings

BARE_RUN = {
    "config.yaml",
    "model.safetensors",
    "model.json",
    "checkpoint/last.safetensors",
    "metrics.jsonl",
    "evaluation.json",
    "environment.json",
}


def numbers(value: object, name: str = "") -> dict[str, object]:
    """Return nested JSON by dotted names."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    out: dict[str, object] = {}
    for key, item in pairs:
        out |= numbers(item, f"{name}.{key}" if name else str(key))
    return out


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
    assert f"Report: {target / 'bounds.html'}" in shown.out
    assert "20 triples of " in shown.out
    assert "Every bound held: " in shown.out
    report = json.loads((target / "bounds.json").read_text())
    done = call(*arguments, "--output-dir", target, "--json", "--sizes", "2", cwd=tmp_path)
    printed = json.loads(done.out)
    assert set(printed) == set(report) - {"rows"}
    summary = printed["summary"]
    assert set(summary) == set(report["summary"]) >= {"karimov", "q12", "w1", "hull_lower"}
    assert summary["karimov"]["num_checked"] == 20
    assert set(files(place / "digits_run")) == BARE_RUN


def test_a_violated_bound_ends_with_status_3(place, tmp_path, monkeypatch):
    true = bound_statements.STATEMENTS["karimov"]

    def false(sample):
        bound = true.compute(sample)
        return dataclasses.replace(bound, bound=bound.value * 0.5)

    statements = bound_statements.STATEMENTS
    monkeypatch.setitem(statements, "karimov", dataclasses.replace(true, compute=false))
    arguments = ["--max-triples", "20", "--output-dir", tmp_path, "--json"]
    done = call("verify-bounds", place / "vectors_run", *arguments, "--sizes=2", cwd=tmp_path)
    assert done.code == 3
    assert json.loads(done.out)["summary"]["karimov"]["num_violations"] == 20
    assert json.loads(done.out)["summary"]["chamfer"]["num_violations"] == 0


def test_a_run_whose_aggregator_has_no_bounds_is_evaluated_without(place, tmp_path):
    photos = place / "photos[red]"
    done = call(
        "train", *PHOTOS, "--data-root", photos, "--aggregator=pma", "--level=both", cwd=tmp_path
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize("channels", [1, 3])
def test_an_indexed_collection_is_found_by_its_own_images(channels, place, tmp_path):
    photos = place / "photos[red]"
    run, index = place / "photos_run", tmp_path / "index"
    if channels == 1:
        photos, run = write_photos(tmp_path / "grey", channels=1), tmp_path / "grey_run"
        call("train", *PHOTOS, "--data-root", photos, "--output-dir", run, cwd=tmp_path)
    built = call("index", run, photos, "--labelled", "--output", index, cwd=tmp_path)
    assert (built.code, built.err) == (0, "")
    assert built.out.startswith(f"Indexed 12 collections (36 items) in {index}\n")
    wanted = photos / "label3" / "set1"
    found = call("query", index, wanted, "-k", "2", "--json", cwd=tmp_path)
    assert (found.code, found.err) == (0, "")
    matches = json.loads(found.out)["matches"]
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
