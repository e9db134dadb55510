"""Settings as a person writes them: a YAML file, or `KEY=VALUE` on the command line."""

from __future__ import annotations

import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from setrep.errors import InputError

# What PyYAML raises on values such as `2020-19-45`, `!!int x`, `!!bool x` or `!!timestamp x`.
MISFITS = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 2, 80, 80


class _Loader(yaml.SafeLoader):
    """Refuse a key that a mapping has twice; PyYAML keeps the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                raise yaml.YAMLError(
                    f"the key '{cut(key)}' is there {count} times in one mapping; keep one of them"
                )
        return node


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a config file into plain values.

    Raises:
        InputError: the file is missing or does not hold a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except ValueError as error:  # not UTF-8, or a path with a NUL character
        raise InputError(f"Cannot read the config file {path}: {error}.") from error
    content = _parse(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of settings, not {type(content).__name__}.")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """Turn `loss.margin=0.2` into `{"loss": {"margin": 0.2}}`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(
            f"--set takes KEY=VALUE, for example loss.margin=0.2; found '{cut(text)}'."
        )
    parsed: Any = _parse(value, f"The value of --set {cut(text)}") if value else ""
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _parse(text: str, where: str) -> Any:
    """Read one YAML document of plain values."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
    except RecursionError:
        reason = "it is nested too deeply"
    except MISFITS as error:
        why = f" ({error})" if isinstance(error, ValueError) else ""
        reason = f"a value does not fit its type{why}; quote it if it is text"
    raise InputError(f"{where} is not valid YAML: {cut(reason, 300)}.")


def cut(text: str, length: int = 80) -> str:
    """Leave out the end of a long text."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def shown(value: object) -> str:
    """Quote a value in at most 80 characters, however large or deep it is."""
    try:
        return cut(SHORT.repr(value))
    except ValueError:  # Python writes no number of that many digits
        return f"{type(value).__name__} of too many digits"
