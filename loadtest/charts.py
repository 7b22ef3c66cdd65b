"""Line charts as SVG, to stand in a page that needs nothing but itself: no script, no file, no font.

Decides how a chart looks; what is in it is `summary`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from loadtest.samples import Series

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which people with any colour vision can tell apart."""

_WIDTH, _HEIGHT = 720, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 28
_TICKS = 4


class Line(NamedTuple):
    name: str
    series: Series


class Chart(NamedTuple):
    """`limit` is drawn across, dashed; `bands` are (from, to, what) in seconds, drawn behind the lines."""

    title: str
    unit: str
    lines: Sequence[Line]
    seconds: float
    says: str = ""
    limit: tuple[str, float] | None = None
    bands: Sequence[tuple[float, float, str]] = ()


def svg(chart: Chart) -> str:
    """A `figure` with title, legend and picture; says so where there is nothing to draw."""
    drawn = [line for line in chart.lines if line.series.at_s]
    head = f"<figcaption><h3>{escape(chart.title)}</h3><p>{escape(chart.says)}</p>"
    if not drawn:
        return f"<figure>{head}<p class='none'>nothing was measured</p></figcaption></figure>"
    scale = _Scale(chart, drawn)
    keys = [_key(line.name, COLOURS[n % len(COLOURS)]) for n, line in enumerate(drawn)]
    if chart.limit is not None and scale.shows(chart.limit[1]):
        keys.append(f"<span class='key dashed'>{escape(chart.limit[0])}</span>")
    keys += [f"<span class='key band'>{escape(what)}</span>" for what in sorted({what for *_, what in chart.bands})]
    picture = [*_bands(chart, scale), *_grid(chart, scale), *_limit(chart, scale)]
    picture += [_path(line.series, COLOURS[n % len(COLOURS)], scale) for n, line in enumerate(drawn)]
    label = f"{chart.title}, {chart.unit} over the seconds of the run: {', '.join(line.name for line in drawn)}"
    return (
        f"<figure>{head}<div class='keys'>{''.join(keys)}</div></figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{escape(label, quote=True)}'>"
        f"{''.join(picture)}</svg></figure>"
    )


class _Scale:
    """From values to places in the picture. The axis begins at 0; a limit that is far above everything, or that lies
    on the axis, is not shown."""

    def __init__(self, chart: Chart, lines: Sequence[Line]) -> None:
        self.seconds = max(chart.seconds, 1e-9)
        highest = max(value for line in lines for value in line.series.values)
        if chart.limit is not None and chart.limit[1] <= 2 * highest:
            highest = max(highest, chart.limit[1])
        self.step = _nice(max(highest, 1e-9) / _TICKS)
        self.top = self.step * math.ceil(max(highest, 1e-9) / self.step * 1.02)

    def shows(self, value: float) -> bool:
        return self.step / 4 <= value <= self.top

    def x(self, at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(at_s / self.seconds, 0.0), 1.0)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.top


def _nice(step: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _grid(chart: Chart, scale: _Scale) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for number in range(round(scale.top / scale.step) + 1):
        value = number * scale.step
        y = scale.y(value)
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text class='up' x='{_LEFT - 6}' y='{y + 4:.1f}'>{_number(value)}</text>")
    every = _nice(scale.seconds / 8)
    for number in range(int(scale.seconds / every) + 1):
        x = scale.x(number * every)
        parts.append(f"<text class='along' x='{x:.1f}' y='{bottom + 18}'>{_number(number * every)} s</text>")
    parts.append(f"<text class='unit' x='{_LEFT + 4}' y='{_TOP + 10}'>{escape(chart.unit)}</text>")
    return parts


def _bands(chart: Chart, scale: _Scale) -> list[str]:
    height = _HEIGHT - _TOP - _BOTTOM
    return [
        f"<rect class='band' x='{scale.x(begin):.1f}' y='{_TOP}' height='{height}' "
        f"width='{max(scale.x(end) - scale.x(begin), 1):.1f}'><title>{escape(what)}</title></rect>"
        for begin, end, what in chart.bands
    ]


def _limit(chart: Chart, scale: _Scale) -> list[str]:
    if chart.limit is None or not scale.shows(chart.limit[1]):
        return []
    y = scale.y(chart.limit[1])
    return [f"<line class='limit' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"]


def _path(series: Series, colour: str, scale: _Scale) -> str:
    points = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in zip(*series, strict=True))
    if len(series.at_s) == 1:
        x, _, y = points.partition(",")
        return f"<circle cx='{x}' cy='{y}' r='2.5' fill='{colour}'/>"
    return f"<polyline points='{points}' stroke='{colour}'/>"


def _key(name: str, colour: str) -> str:
    return f"<span class='key' style='--key:{colour}'>{escape(name)}</span>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.3g}"
