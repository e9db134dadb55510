"""Plots of the bound-verification page: SVG whose colours the page's style sheet decides.

Strips have places in percent, so that they stretch with the page while dots stay round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from setrep.reports.pages import COLOURS

WIDEST_LOG = 1e9  # of a logarithmic axis; what is less lies on its edge
LOG_FROM = 8.0  # span from which an axis is logarithmic
LEFT, TOP, SIDE = 36.0, 17.0, 172.0  # of a scatter plot's square, in a view of 220 by 220
LINE = 15  # pixels from line to line of a strip
ROUNDS = 8  # in which colours take turns, so that none covers the others

Point = tuple[float, float, int, bool]  # bound, value, number of its colour, whether it holds
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`."""

    low: float
    high: float
    is_log: bool

    def place(self, number: float) -> float:
        """Return where a number lies, from 0 to 1; what is outside lies on the edge."""
        number = min(max(number, self.low), self.high)
        if self.is_log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """Round numbers along the axis, about four."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.floor(math.log10(self.high))
            exponents = range(last, first - 1, -max(1, (last + 1 - first) // 4))
            steps = (1, 2, 5) if self.high / self.low < 200 else (1,)
            found = [step * 10.0**exponent for exponent in exponents for step in steps]
        else:
            raw = (self.high - self.low) / 4
            unit = 10.0 ** math.floor(math.log10(raw))
            step = unit * next(k for k in (1, 2, 2.5, 5, 10) if k * unit >= raw)
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            found = [number * step for number in range(first, last + 1)]
        return [number for number in found if self.low <= number <= self.high]


def axis_of(numbers: Sequence[float]) -> Axis:
    """Choose a scale on which all numbers can be told apart: logarithmic if they span decades."""
    values = np.asarray(numbers, dtype=np.float64)
    positive = values[values > 0]
    if len(positive) and values.min() >= 0:
        high, least = float(positive.max()), float(np.percentile(positive, 1))
        # Zeros are set aside if they are few, or if what else there is could not be told apart.
        usual = least if len(positive) >= 0.95 * len(values) else float(np.median(positive))
        if high / usual >= LOG_FROM:
            low = max(float(positive.min()), least / 10, high / WIDEST_LOG)
            return Axis(low / 1.1, high * 1.1, is_log=True)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.04 * (high - low) or 1.0
    return Axis(low - room if low < 0 else 0.0, high + room, is_log=False)


def scatter(points: Sequence[Point], axis: Axis, kind: str, name: str) -> Markup:
    """Draw values against bounds, with the diagonal and its forbidden side."""
    corner = ("{0} {1}" if kind == "upper" else "{2} {3}").format(LEFT, TOP, *at(1, 0))
    start, end = ("{} {}".format(*at(place, place)) for place in (0, 1))
    parts = [
        *frame(axis),
        Markup('<path class="forbidden" d="M{}L{}L{}Z"/>').format(start, end, corner),
        Markup('<path class="diagonal" d="M{}L{}"/>').format(start, end),
    ]
    numbers = sorted({point[2] for point in points})
    places = {
        number: [
            at(axis.place(x), axis.place(y)) for x, y, of, holds in points if of == number and holds
        ]
        for number in numbers
    }
    for turn in range(ROUNDS):
        for number in numbers:
            d = "".join(f"M{x} {y}h0" for x, y in places[number][turn::ROUNDS])
            path = Markup('<path class="dots s{}" d="{}"/>').format(number % len(COLOURS), d)
            parts.append(path if d else Markup(""))
    bad = [at(axis.place(x), axis.place(y)) for x, y, _, holds in points if not holds]
    crosses = "".join(f"M{x} {y}m-4-4l8 8m0-8l-8 8" for x, y in bad)
    parts.append(Markup('<path class="cross" d="{}"/>').format(crosses) if bad else Markup(""))
    return Markup(
        '<svg class="scatter" viewBox="0 0 220 220" role="img" '
        'aria-label="{0}: value against bound of {1} triples">{2}'
        '<text x="{3}" y="11">value</text>'
        '<text x="{4}" y="216" text-anchor="end">bound</text></svg>'
    ).format(name, len(points), Markup("").join(parts), LEFT, LEFT + SIDE)


def frame(axis: Axis) -> list[Markup]:
    """Draw the lines and numbers of a scatter plot's axes."""
    parts = []
    for tick in axis.ticks:
        x, y = at(axis.place(tick), axis.place(tick))
        parts.append(
            Markup(
                '<path class="grid" d="M{0} {1}V{2}M{3} {4}H{5}"/>'
                '<text x="{0}" y="{6}" text-anchor="middle">{7}</text>'
                '<text x="{8}" y="{9}" text-anchor="end">{7}</text>'
            ).format(x, TOP, TOP + SIDE, LEFT, y, LEFT + SIDE, 202, short(tick), 31, y + 4)
        )
    return parts


def at(x: float, y: float) -> tuple[float, float]:
    """Return a place of a scatter plot's square in its view."""
    return round(LEFT + SIDE * x, 1), round(TOP + SIDE * (1 - y), 1)


def strip(spreads: Sequence[Spread | None], axis: Axis, what: str) -> Markup:
    """Draw a whisker from low to high with a dot at the middle for each spread, one below another.

    Each has a colour of its own.
    """
    lines = [grid(axis, LINE * len(spreads))]
    for line, spread in enumerate(spreads):
        if spread is not None:
            low, middle, high = (f"{100 * axis.place(value):.1f}%" for value in spread)
            lines.append(
                Markup(
                    '<g class="s{0}"><line class="whisker" x1="{1}" x2="{3}" y1="{4}" y2="{4}"/>'
                    '<circle cx="{2}" cy="{4}" r="4"/></g>'
                ).format(line % len(COLOURS), low, middle, high, LINE * line + LINE / 2)
            )
    return svg(lines, LINE * len(spreads), what)


def certificate(
    bounds: Sequence[float],
    mean_bound: float | None,
    errors: Sequence[float],
    mean_error: float | None,
    axis: Axis,
    what: str,
) -> Markup:
    """Draw the labels' bounds on an error and their mean, above their errors and the mean of these.

    The colours are the first and the fifth.
    """
    lines = [grid(axis, 2 * LINE)]
    for line, colour, each, mean in ((0, 0, bounds, mean_bound), (1, 4, errors, mean_error)):
        top = line * LINE
        lines += [tick(axis, of, "each", colour, top + 3, top + LINE - 3) for of in each]
        if mean is not None:
            lines.append(tick(axis, mean, "mean", colour, top, top + LINE))
    return svg(lines, 2 * LINE, what)


def tick(axis: Axis, number: float, sort: str, colour: int, top: float, end: float) -> Markup:
    """Draw a line across a strip where a number lies."""
    return Markup('<line class="{0} s{1}" x1="{2}" x2="{2}" y1="{3}" y2="{4}"/>').format(
        sort, colour, f"{100 * axis.place(number):.1f}%", top, end
    )


def labelled(axis: Axis) -> Markup:
    """Write the numbers of strips' axis."""
    numbers = [
        Markup('<text x="{:.1f}%" y="11" text-anchor="{}">{}</text>').format(
            100 * axis.place(tick), anchor(axis.place(tick)), short(tick)
        )
        for tick in axis.ticks
    ]
    return svg(numbers, LINE, "axis")


def anchor(place: float) -> str:
    """Keep a number at either end of an axis within it."""
    return "start" if place < 0.02 else "end" if place > 0.98 else "middle"


def grid(axis: Axis, height: float) -> Markup:
    """Draw the lines of an axis behind a strip."""
    return Markup("").join(
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(
            f"{100 * axis.place(tick):.1f}%", height
        )
        for tick in axis.ticks
    )


def svg(parts: Sequence[Markup], height: float, what: str) -> Markup:
    """Frame a strip."""
    return Markup('<svg class="strip" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, what, Markup("").join(parts)
    )


def short(number: float) -> str:
    """Write a tick's number in few signs."""
    if number and not 1e-3 <= abs(number) < 1e5:
        return f"{number:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{number:.10g}".replace("-", "−")
