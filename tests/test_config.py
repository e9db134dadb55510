"""Settings: their defaults, the order of their layers, and how they are written."""

from __future__ import annotations

import copy
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from setrep.cli import main
from setrep.config import (
    DATASET_DEFAULTS,
    DATASET_DEFAULTS_CUDA,
    METHOD_DEFAULTS,
    Config,
    merge,
    parse_override,
    read_yaml,
    resolve,
    to_yaml,
)
from setrep.errors import InputError


def test_without_any_setting_digits_are_trained_on():
    config = resolve()
    assert config.data.dataset == "digits"
    own = DATASET_DEFAULTS["digits"]
    assert config.training.max_steps == own["training"]["max_steps"]
    assert config.encoder.name == own["encoder"]["name"]
    assert config == resolve({"data": {"dataset": "digits"}})


@pytest.mark.parametrize("name", sorted({*DATASET_DEFAULTS, "folder"}))
@pytest.mark.parametrize("has_cuda", [False, True])
def test_a_data_set_has_its_own_defaults_over_those_of_the_models(name, has_cuda):
    from setrep.data.registry import DATASETS

    assert name in DATASETS
    own = DATASET_DEFAULTS.get(name, {})
    if has_cuda:
        own = merge(own, DATASET_DEFAULTS_CUDA.get(name, {}))
    method = own.get("training", {}).get("method", "supervised")
    own = merge(METHOD_DEFAULTS[method], own)
    expected = Config.model_validate(merge({"data": {"dataset": name}}, own))
    assert resolve({"data": {"dataset": name}}, has_cuda=has_cuda) == expected


def test_omniglot_is_small_on_a_cpu_and_large_on_a_gpu():
    chosen = {"data": {"dataset": "omniglot"}}
    on_cpu, on_gpu = resolve(chosen), resolve(chosen, has_cuda=True)
    assert (on_cpu.data.image_size, on_cpu.encoder.name) == (32, "convnet")
    assert (on_gpu.data.image_size, on_gpu.encoder.name) == (64, "efficientnet_b2")
    assert on_gpu.augmentation == on_cpu.augmentation
    assert resolve({"data": {"dataset": "vectors"}}).encoder.name == "mlp"


def test_a_later_layer_wins_and_leaves_the_rest():
    first = {"loss": {"margin": 0.1, "soft": True}, "training": {"max_steps": 7}}
    second = {"loss": {"margin": 0.3}}
    config = resolve(first, second)
    assert (config.loss.margin, config.loss.soft) == (0.3, True)
    assert config.training.max_steps == 7
    own = DATASET_DEFAULTS["digits"]["episode"]
    assert config.episode.classes_per_episode == own["classes_per_episode"]
    assert resolve(second, first).loss.margin == 0.1


def test_merging_changes_neither_side():
    base, change = {"a": {"b": 1}}, {"a": {"c": 2}, "d": [3]}
    before = copy.deepcopy((base, change))
    assert merge(base, change) == {"a": {"b": 1, "c": 2}, "d": [3]}
    assert (base, change) == before


def test_defaults_give_way_to_a_file_that_to_flags_and_these_to_set(tmp_path, monkeypatch):
    from setrep.reports import runs

    file = tmp_path / "run.yaml"
    file.write_text("training: {max_steps: 11, seed: 11, log_every: 11}\nloss: {margin: 0.11}\n")
    found = []

    def note(config, **_):
        found.append(config)
        raise InputError("Seen.")

    monkeypatch.setattr(runs, "train", note)
    options = ["--max-steps", "22", "--seed", "22", "--set", "training.seed=33"]
    command = ["setrep", "train", "--config", str(file), *options, "--set", "training.seed=44"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    (config,) = found
    assert config.training.seed == 44
    assert config.training.max_steps == 22
    assert config.training.log_every == 11
    assert config.loss.margin == 0.11
    assert config.training.checkpoint_every == Config().training.checkpoint_every


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("loss.margin=0.2", {"loss": {"margin": 0.2}}),
        ("optimizer.lr=1e-3", {"optimizer": {"lr": "1e-3"}}),  # YAML's text, pydantic's number
        ("evaluation.sizes=[1, 2]", {"evaluation": {"sizes": [1, 2]}}),
        ("training.max_minutes=null", {"training": {"max_minutes": None}}),
        ("output_dir=a=b", {"output_dir": "a=b"}),
        ("output_dir=", {"output_dir": ""}),
        ("loss={margin: 1}", {"loss": {"margin": 1}}),
    ],
)
def test_an_override_is_a_dotted_key_and_a_yaml_value(text, layer):
    assert parse_override(text) == layer
    resolve(layer)


def test_a_key_may_change_one_that_was_merged_in(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3, z: &d {x: 1}}\n")
    b, c = {"x": 2, "y": 1}, {"x": 2, "y": 3, "z": {"x": 1}}
    assert read_yaml(file) == {"a": {"x": 1, "y": 1}, "b": b, "c": c}


def test_whole_numbers_and_numerals_do_for_fractions_and_round_fractions_for_counts():
    config = resolve({"loss": {"margin": 1}, "optimizer": {"lr": "1e-3", "clip_norm": None}})
    assert (config.loss.margin, config.optimizer.lr) == (1.0, 0.001)
    config = resolve({"training": {"max_steps": 5.0}, "loss": {"soft": True}})
    assert (config.training.max_steps, config.loss.soft) == (5, True)


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


@given(
    margin=st.floats(0, 1e6),
    lr=st.floats(1e-300, 10),
    steps=st.integers(1, 10**9),
    minutes=st.none() | st.floats(1e-9, 1e6),
    groups=st.lists(names, max_size=3),
    directory=st.none() | names,
    is_soft=st.booleans(),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
)
def test_a_written_config_is_read_back_as_it_was(
    margin, lr, steps, minutes, groups, directory, is_soft, sizes
):
    config = resolve(
        {
            "data": {"validation_groups": groups, "dataset": "omniglot"},
            "loss": {"margin": margin, "soft": is_soft},
            "optimizer": {"lr": lr},
            "training": {"max_steps": steps, "max_minutes": minutes},
            "evaluation": {"sizes": sizes},
            "output_dir": directory,
        }
    )
    written = to_yaml(config)
    assert resolve(yaml.safe_load(written)) == config
    assert resolve(yaml.safe_load(written), has_cuda=True) == config  # complete, so no default acts
    assert set(yaml.safe_load(written)) == set(Config.model_fields)


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        resolve().loss.margin = 3
