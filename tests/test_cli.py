"""What the command line says of itself: help, version, and the names it knows."""

from __future__ import annotations

import json

import pytest

from tests.command_line import Outcome, call
from tests.command_line import surroundings as surroundings

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
    from setrep.training.build import names

    assert call("list", "losses", cwd=tmp_path).out.split() == names("losses")
    assert json.loads(call("list", "losses", "--json", cwd=tmp_path).out) == names("losses")
    assert json.loads(call("data", "list", "--json", cwd=tmp_path).out) == list(DATASETS)
    listed = call("data", "list", cwd=tmp_path).out.splitlines()
    assert [line.split()[0] for line in listed] == list(DATASETS)
    assert "test split" in call("data", "info", "digits", cwd=tmp_path).out
