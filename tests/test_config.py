"""Settings: their defaults, the order of their layers, and how a wrong one is told."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from setrep.cli import main
from setrep.config import (
    DATASET_DEFAULTS,
    DATASET_DEFAULTS_CUDA,
    Config,
    known_keys,
    merge,
    parse_override,
    read_yaml,
    resolve,
    to_yaml,
)
from setrep.errors import InputError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


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
    ("wrong", "right"),
    [
        ({"loss": {"margn": 1}}, "loss.margin"),
        ({"los": {"margin": 1}}, "loss"),
        ({"agregator": "centroid"}, "aggregator"),
        ({"episode": {"class_per_episode": 2}}, "episode.classes_per_episode"),
        ({"outputdir": "x"}, "output_dir"),
    ],
)
def test_an_unknown_key_stops_with_the_nearest_known_one(wrong, right):
    with pytest.raises(InputError, match=re.escape(f"Did you mean '{right}'?")) as error:
        resolve(wrong)
    assert "\n" not in str(error.value)
    assert right in known_keys()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"zzz": 1}, "Unknown setting 'zzz'."),
        ({1: 2}, "keys should be strings"),
        ({"loss": 3}, "'loss' is 3"),
        ({"loss": None}, "'loss' is None"),
        ({"loss": {"margin": -1}}, "'loss.margin' is -1"),
        ({"loss": {"margin": float("nan")}}, "'loss.margin' is nan"),
        ({"loss": {"margin": float("inf")}}, "'loss.margin' is inf"),
        ({"loss": {"temperature": 0}}, "'loss.temperature' is 0"),
        ({"loss": {"distance": "cosine"}}, "'euclidean' or 'squared'"),
        ({"loss": {"margin": "two\nlines"}}, r"two\nlines"),
        ({"episode": {"classes_per_episode": 1}}, "greater than or equal to 2"),
        ({"episode": {"collections_per_class": 1, "items_per_collection": 1}}, "two items"),
        (
            {"miner": {"positives": "cross_collection"}, "episode": {"collections_per_class": 1}},
            "at least 2, not 1",
        ),
        (
            {"miner": {"positives": "same_collection"}, "episode": {"items_per_collection": 1}},
            "at least 2, not 1",
        ),
        ({"evaluation": {"sizes": [1, 0]}}, "'evaluation.sizes.1' is 0"),
        ({"training": {"seed": -1}}, "'training.seed' is -1"),
        ({"training": {"seed": 2**63}}, "'training.seed'"),
        ({"training": {"level": "collections"}}, "'items'"),
        ({"optimizer": {"ema_decay": 1}}, "less than 1"),
        ({"data": {"dataset": ["digits"]}}, "'data.dataset'"),
        ({"data": "digits"}, "'data' is 'digits'"),
    ],
)
def test_every_wrong_setting_is_told_in_one_line(wrong, says):
    with pytest.raises(InputError, match=re.escape(says)) as error:
        resolve(wrong)
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize("text", ["", "loss.margin", "=1", " =1", "loss.margin=[1", "a=b: c: d"])
def test_a_malformed_override_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="--set") as error:
        parse_override(text)
    assert "\n" not in str(error.value)


def test_a_file_of_settings_is_read_or_refused_in_one_line(tmp_path):
    file = tmp_path / "run.yaml"
    contents = {"": {}, "# nothing\n": {}, "loss:\n  margin: 1\n": {"loss": {"margin": 1}}}
    for content, expected in contents.items():
        file.write_text(content)
        assert read_yaml(file) == expected
    for content in (
        b"- 1",
        b"1",
        b"loss: [1",
        b"a: b: c",
        b"\xff\xfe\x00",
        b"!!python/name:os.system",
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(file))) as error:
            read_yaml(file)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


@given(
    margin=st.floats(0, 1e300),
    lr=st.floats(1e-300, 1e300),
    steps=st.integers(1, 10**12),
    minutes=st.none() | st.floats(1e-9, 1e9),
    groups=st.lists(names, max_size=3),
    directory=st.none() | names,
    is_soft=st.booleans(),
    sizes=st.lists(st.integers(1, 1000), max_size=4),
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


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_config_that_is_shipped_resolves_and_says_how_to_run_it(file):
    config = resolve(read_yaml(file))
    assert config.output_dir is None
    assert config.data.data_root is None
    header = "\n".join(re.findall(r"^#(.*)$", file.read_text(), re.MULTILINE))
    assert file.read_text().startswith("#")
    assert f"setrep train --config {file.relative_to(ROOT).as_posix()}" in header
    assert config.data.dataset == "digits" or "--data-root DATA" in header


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_shipped_config_leans_on_no_default_of_its_data_set(file):
    """Or an experiment would change with the defaults, and hide what it does."""
    asked = read_yaml(file)
    assert resolve(asked) == Config.model_validate(asked)
    assert resolve(asked, has_cuda=True) == Config.model_validate(asked)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_what_a_shipped_config_names_exists(file):
    from setrep.data.registry import DATASETS
    from setrep.training.build import names as known

    config = resolve(read_yaml(file))
    assert config.data.dataset in DATASETS
    assert config.data.subset in DATASETS[config.data.dataset][0].subsets
    assert config.loss.name in known("losses")
    assert config.miner.name in known("miners")
    assert config.aggregator in known("aggregators")
    assert config.training.method in known("methods")
    assert config.encoder.name in known("encoders") or config.encoder.name.startswith("timm:")
