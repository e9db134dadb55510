"""A wrong setting is told in one short line."""

from __future__ import annotations

import re

import pytest

from setrep.config import known_keys, parse_override, read_yaml, resolve
from setrep.errors import InputError


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
        ({"training": {"level": "groups"}}, "'collections'"),
        ({"aggregator": {"num_haeds": 2}}, "Did you mean 'aggregator.num_heads'"),
        ({"aggregator": {"trim": 0.5}}, "'aggregator.trim' is 0.5"),
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
