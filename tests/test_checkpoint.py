from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from setrep.errors import InputError
from setrep.training.checkpoint import (
    FILE,
    checkpoint_step,
    load_checkpoint,
    save_checkpoint,
)


def state() -> dict:
    weights = torch.arange(6.0).view(2, 3)
    return {
        "step": 7,
        "method": {"a": weights, "shared": weights, "conv": torch.rand(2, 3, 4, 4)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "groups": [{"lr": 0.1}]},
        "none": None,
        "flag": True,
    }


def test_a_checkpoint_gives_back_the_nested_state_with_integer_keys(tmp_path: Path) -> None:
    written = state()
    save_checkpoint(tmp_path, written)
    read = load_checkpoint(tmp_path)
    assert read["step"] == 7
    assert read["none"] is None
    assert read["flag"] is True
    assert read["optimizer"]["groups"] == [{"lr": 0.1}]
    assert list(read["optimizer"]["state"]) == [0, 1]
    for key, value in written["method"].items():
        assert torch.equal(read["method"][key], value)


def test_channels_last_tensors_are_saved_by_value(tmp_path: Path) -> None:
    weights = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, {"step": 0, "w": weights})
    assert torch.equal(load_checkpoint(tmp_path)["w"], weights)


def test_a_failed_write_keeps_the_earlier_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device") as caught:
        save_checkpoint(tmp_path, {"step": 2})
    assert "\n" not in str(caught.value)
    assert load_checkpoint(tmp_path)["step"] == 1
    assert [p.name for p in (tmp_path / FILE).parent.iterdir()] == ["last.safetensors"]


def test_without_a_checkpoint_a_run_is_at_step_0(tmp_path: Path) -> None:
    assert checkpoint_step(tmp_path) == 0
    with pytest.raises(InputError, match="damaged or missing"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {"step": 7})
    assert checkpoint_step(tmp_path) == 7


@pytest.mark.parametrize(
    "skeleton",
    ['{"x": 1}', '{"tensor": "9"}', "[1]", "7", "{", '{"dict": [[1]]}', "[" * 5000 + "]" * 5000],
)
def test_a_tampered_checkpoint_is_refused_in_one_line(tmp_path: Path, skeleton: str) -> None:
    path = tmp_path / FILE
    path.parent.mkdir()
    path.write_bytes(save({"0": torch.zeros(1)}, metadata={"state": skeleton}))
    with pytest.raises(InputError, match="damaged") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("keep", [0, 5, 100])
def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    save_checkpoint(tmp_path, state())
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        save_checkpoint(tmp_path, {"step": 0, "x": {1}})
