"""Options of aggregators: in a config by the names of the constructor, and in the list."""

from __future__ import annotations

import json

import pytest

from setrep.aggregators import AGGREGATORS, build_aggregator, default_options
from setrep.cli.listing import list_aggregators
from setrep.config import AggregatorConfig, resolve
from setrep.errors import InputError

OPTIONS = [(name, option) for name in AGGREGATORS for option in default_options(name)]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_config_passes_every_option_on(name: str, option: str):
    usual = default_options(name)[option]
    asked = AggregatorConfig(name=name, **{option: 7 if usual is None else usual})
    assert asked.options == {option: 7 if usual is None else usual}
    build_aggregator(asked.name, 9, **asked.options)


def test_every_option_of_a_config_is_one_of_an_aggregator():
    fields = set(AggregatorConfig.model_fields) - {"name", "normalize"}
    assert fields == {option for _, option in OPTIONS}


def test_an_aggregator_is_named_alone_or_with_options():
    by_name = resolve({"aggregator": "attention"}, {"aggregator": {"num_heads": 2}})
    assert by_name.aggregator == AggregatorConfig(name="attention", num_heads=2)
    assert resolve({"aggregator": {"name": "max"}}).aggregator == AggregatorConfig(name="max")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("centroid", {"dim_out": 3}, "centroid has no option 'dim_out'. It has no options"),
        ("attention", {"num_head": 3}, "Did you mean 'num_heads'"),
        ("centriod", {}, "Did you mean 'centroid'"),
    ],
)
def test_an_option_that_an_aggregator_lacks_is_refused(name: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        build_aggregator(name, 4, **options)


def test_the_list_tells_formula_convexity_and_what_there_is_to_learn(capsys):
    list_aggregators(as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(AGGREGATORS)
    assert rows["centroid"] == {
        "name": "centroid",
        "formula": "mean of x",
        "is_convex": True,
        "has_weights": True,
        "num_parameters": 0,
        "dim_out": 128,
        "options": {},
    }
    assert rows["attention"]["num_parameters"] == 2 * (128 * 128 + 128) + 128
    assert rows["gem"]["options"] == {"power": 3.0}
    list_aggregators(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines[1:-1] if not line.startswith(" ")]
    assert named == list(AGGREGATORS)
    assert max(map(len, lines)) <= 100
