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
        (
            {"miner": {"start_step": 5}, "episode": {"items_per_collection": 1}},
            "miner.start_step needs episode.items_per_collection of at least 2",
        ),
        ({"evaluation": {"sizes": [1, 0]}}, "'evaluation.sizes.1' is 0"),
        ({"training": {"seed": -1}}, "'training.seed' is -1"),
        ({"training": {"seed": 2**63}}, "'training.seed'"),
        ({"training": {"level": "collections"}}, "'items'"),
        ({"optimizer": {"ema_decay": 1}}, "less than 1"),
        ({"data": {"dataset": ["digits"]}}, "'data.dataset'"),
        ({"data": "digits"}, "'data' is 'digits'"),
        ({"training": {"max_steps": True}}, "'training.max_steps' is True: write a number"),
        ({"training": {"seed": False}}, "'training.seed' is False: write a number"),
        ({"loss": {"margin": True}}, "'loss.margin' is True: write a number"),
        ({"augmentation": {"erase": False}}, "'augmentation.erase' is False: write a number"),
        ({"data": {"image_size": True}}, "'data.image_size' is True: write a number"),
        ({"evaluation": {"sizes": [True]}}, "'evaluation.sizes.0' is True: write a number"),
        ({"evaluation": {"sizes": []}}, "'evaluation.sizes' is []: "),
        ({"evaluation": {"sizes": [5, 5]}}, "'evaluation.sizes' is [5, 5]: name each size once."),
        ({"optimizer": {"lr": 1e300}}, "less than or equal to 10."),
        ({"optimizer": {"weight_decay": 101}}, "less than or equal to 100."),
        ({"augmentation": {"shear": 41}}, "less than or equal to 40."),
        ({"augmentation": {"degrees": 181}}, "less than or equal to 180."),
        ({"augmentation": {"elastic": 2}}, "less than or equal to 1."),
        ({"encoder": {"projection_dim": 10**11}}, "'encoder.projection_dim' is 100000000000"),
        ({"training": {"max_steps": 10**30}}, "less than or equal to 1000000000."),
        ({"output_dir": "a\0b"}, r"'output_dir' is 'a\x00b': no path can have a NUL"),
        ({"data": {"data_root": "\0"}}, r"'data.data_root' is '\x00': no path can have a NUL"),
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


LONG_VALUES = {
    "text": "x" * 100_000,
    "a list": ["x" * 100_000] * 9,
    "a mapping": {"a" * 1000: "b" * 1000},
    "a number": 16**9000,
    "nested lists": [[[["x"] * 99] * 99]],
}


@pytest.mark.parametrize("name", LONG_VALUES)
def test_a_wrong_value_is_cut_to_a_short_line(name):
    with pytest.raises(InputError, match=r"'loss\.margin' is .{9,80}: input should be") as error:
        resolve({"loss": {"margin": LONG_VALUES[name]}})
    assert len(str(error.value)) < 300
    with pytest.raises(InputError, match="Unknown setting 'kkk") as error:
        resolve({"k" * 100_000: LONG_VALUES[name]})
    assert len(str(error.value)) < 300


def test_values_that_hold_one_another_many_times_are_not_written_out():
    levels = [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    bomb = f"[&a0 [x], {', '.join(levels)}]"
    for key in ("loss.margin", "data.dataset"):
        with pytest.raises(InputError, match=re.escape(f"'{key}' is [")) as error:
            resolve(parse_override(f"{key}={bomb}"))
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("text", [f"{'a.' * 5000}a=1", "a=&a {a: *a}"])
def test_settings_without_end_are_refused(text):
    with pytest.raises(InputError, match="nested too deeply, or hold themselves"):
        resolve(parse_override(text), parse_override(text))


@pytest.mark.parametrize(
    "text",
    [
        *("", "loss.margin", "=1", " =1", "loss.margin=[1", "a=b: c: d"),
        *(
            "a=2020-19-45",
            "a=!!int x",
            "a=!!int ''",
            "a=!!bool x",
            "a=!!timestamp x",
            "a=!!float x",
        ),
        *(
            f"a={'[' * 2000}",
            f"a={'9' * 5000}",
            f"a=*{'b' * 100_000}",
            f"{'b' * 100_000}",
            "a={b, b}",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_override_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="--set") as error:
        parse_override(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


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
        b"loss: " + b"[" * 2000,
        b"training: {max_steps: 2020-19-45}",
        b"training: {max_steps: !!int x}",
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(file))) as error:
            read_yaml(file)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="null byte"):
        read_yaml("a\0b")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("loss: {margin: 1}\nloss: {temperature: 1}\n", "loss"),
        ("loss:\n  margin: 1\n  soft: true\n  'margin': 2\n", "margin"),
        ("evaluation: {sizes: [{a: 1, a: 2}]}", "a"),
    ],
)
def test_a_key_that_a_mapping_has_twice_is_refused_by_name(content, key, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=f"run.yaml .* the key '{key}' is there 2 times"):
        read_yaml(file)


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
