"""Formulas and numbers in HTML: italics, lowered and raised signs, and nothing to load."""

from __future__ import annotations

import math
import re
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup, escape


def prose(text: str) -> Markup:
    """Set text whose formulas stand between backticks."""
    return Markup("").join(
        formula(part) if place % 2 else escape(part) for place, part in enumerate(text.split("`"))
    )


def formula(text: str) -> Markup:
    """Set a formula: `_` lowers and `^` raises a sign or a {group}; two spaces are a wide one."""
    return Markup('<span class="formula">{}</span>').format(typeset(text.replace("  ", "\u2003")))


def typeset(text: str) -> Markup:
    """Set a formula or a part of one."""
    parts = re.split(r"([_^](?:\{[^{}]*\}|.))", text)
    return Markup("").join(
        script(part) if place % 2 else on_the_line(part) for place, part in enumerate(parts)
    )


def script(part: str) -> Markup:
    """Set what is lowered or raised; several letters in it are several indices."""
    inner = part[2:-1] if part[1] == "{" else part[1:]
    tag = Markup("sub" if part[0] == "_" else "sup")
    within = Markup("<i>{}</i>").format(inner) if inner.isalpha() else typeset(inner)
    return Markup("<{0}>{1}</{0}>").format(tag, within)


def on_the_line(text: str) -> Markup:
    """Set what is neither: single letters are names, more of them are words."""
    parts = re.split(r"(?<![^\W\d_])([A-Za-zα-ω])(?![^\W\d_])", text)
    return Markup("").join(
        Markup("<i>{}</i>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def number(value: Any, digits: int = 3) -> str:
    """Write a number in some digits, what is absent as a dash, and all else as it is."""
    if value is None or isinstance(value, Undefined):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == 0 or not math.isfinite(value):
        return f"{value:,}".replace("-", "−") if isinstance(value, int) else f"{value:.0f}"
    exponent = math.floor(math.log10(abs(value)))
    if not -3 <= exponent < 6:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    return f"{value:,.{max(0, digits - 1 - exponent)}f}".replace("-", "−")
