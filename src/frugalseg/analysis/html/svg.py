"""Line charts as inline SVG: they follow the page's colours, stay sharp in print and need no script."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from frugalseg.analysis.html.curves import Points, thinned

WIDTH, HEIGHT = 360, 220
"""In pixels: a chart fills a phone, and three stand side by side on a desk, with letters of the same size."""
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34
COLOURS = 8
"""Of the style sheet's `--c0` to `--c7`."""


class Line(NamedTuple):
    """One line of a chart; lines of one name have one colour and one entry of the legend.

    Attributes:
        name: in the legend.
        points: (x, y).
    """

    name: str
    points: Points


class Chart(NamedTuple):
    """A chart and what stands around it.

    Attributes:
        title: above it.
        svg: the drawing.
        legend: (number of the colour, name).
        note: below it.
    """

    title: str
    svg: Markup
    legend: list[tuple[int, str]]
    note: str = ""


def line_chart(title: str, lines: Sequence[Line], across: str, note: str = "", best: bool = False) -> Chart:
    """Draw lines.

    Args:
        title: above the chart.
        lines: at least one, each with at least one point.
        across: what x is.
        note: below the chart.
        best: mark the highest point of every line.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_axis, y_axis = _Axis.over(xs, LEFT, WIDTH - RIGHT, 4, tight=True), _Axis.over(ys, HEIGHT - BOTTOM, TOP, 5)
    parts = [_frame(x_axis, y_axis, across)]
    for line in lines:
        colour = names.index(line.name) % COLOURS
        points = thinned(line.points)
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        if len(points) > 1:
            parts.append(Markup('<polyline class="c{}" points="{}"/>').format(colour, path))
        marks = [max(line.points, key=lambda point: point[1])] if best else points[:1] * (len(points) == 1)
        parts += [
            Markup('<circle class="c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(colour, x_axis.at(x), y_axis.at(y))
            for x, y in marks
        ]
    told = f"{title} over {across}: {', '.join(names)}"
    drawing = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, told, Markup("").join(parts)
    )
    return Chart(title, drawing, [(place % COLOURS, name) for place, name in enumerate(names)], note)


class _Axis(NamedTuple):
    """Values low..high laid over pixels start..end, with ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, count: int, tight: bool = False) -> "_Axis":
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        step = _step((high - low) / count)
        if tight:  # ends with the values, not with the next tick
            inner = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
            return cls(low, high, start, end, tuple(place * step for place in inner))
        first = math.floor(low / step + 1e-9)
        last = math.ceil(high / step - 1e-9)
        return cls(first * step, last * step, start, end, tuple(place * step for place in range(first, last + 1)))

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _step(raw: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def _frame(x_axis: _Axis, y_axis: _Axis, across: str) -> Markup:
    """Grid lines, ticks and the name of x."""
    parts = []
    for tick in y_axis.ticks:
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, y=y_axis.at(tick)))
        label = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        parts.append(label.format(LEFT - 4, y_axis.at(tick) + 4, number(tick)))
    for tick in x_axis.ticks:
        anchor = "end" if x_axis.at(tick) > WIDTH - RIGHT - 12 else "middle"
        label = Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
        parts.append(label.format(x_axis.at(tick), HEIGHT - BOTTOM + 14, anchor, number(tick)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, HEIGHT - 4, across))
    return Markup("").join(parts)


def number(value: float) -> str:
    """A tick as text: `25k`, `0.05`, `1e-06`."""
    value = 0.0 if abs(value) < 1e-12 else value
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
