"""Every file under `configs/` resolves, stands alone, and says how to run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from setrep.config import Config, read_yaml, resolve

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


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
    assert config.aggregator.name in known("aggregators")
    assert config.training.method in known("methods")
    assert config.encoder.name in known("encoders") or config.encoder.name.startswith("timm:")


def test_every_setting_of_a_claim_suite_has_its_config():
    from evaluation.suites import SUITES, cells

    folder = ROOT / "configs" / "suites"
    wanted = {
        folder / suite / f"{cell.variant.name}.yaml": cell.settings
        for suite in SUITES
        for cell in cells(suite, "full")
        if cell.seeds == (0,)
    }
    assert set(folder.rglob("*.yaml")) == set(wanted)
    for file, settings in wanted.items():
        assert resolve(read_yaml(file)) == resolve(settings), file
