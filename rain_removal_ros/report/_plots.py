"""Plots as inline SVG, in the colours of the page they stand on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rain_removal_ros.report._page import Html, text
from rain_removal_ros.report._style import COLOURS, MARKS

_WIDTH, _HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 28, 42
_COLOURS = 6
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""Distinguishable without colour: on paper, and for colour-blind readers."""


@dataclass(frozen=True)
class _Axis:
    """Values from ``low`` to ``high`` over pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_plot(
    series: Mapping[str, Sequence[tuple[float, ...]]],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
) -> Html:
    """Each series as a line through its points, in the order given."""
    points = {name: _finite(each) for name, each in series.items()}

    def draw(across: _Axis, up: _Axis) -> str:
        return _lines(points, across, up)

    return _plot(points, draw, _line_key, title=title, x=x, y=y)


def line_drawing(
    series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, x: str, y: str
) -> str:
    """The lines as an SVG file of its own, over logarithmic axes: values are above 0.

    Proportional growth has the same slope everywhere, and equal distances are equal ratios.
    """
    points = {
        name: [(math.log10(right), math.log10(up)) for right, up in each]
        for name, each in series.items()
    }
    every = [point for each in points.values() for point in each]
    across_ticks, up_ticks = (_round_powers([point[side] for point in every]) for side in (0, 1))
    across = _Axis(across_ticks[0], across_ticks[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Axis(up_ticks[0], up_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    frame = _frame(across, across_ticks, up, up_ticks, (title, x, y), _powers)
    legend = "".join(
        f'<g transform="translate({_LEFT} {_HEIGHT + 18 * index})">{_line_key(index)}'
        f'<text x="32" y="10">{text(name)}</text></g>'
        for index, name in enumerate(points)
    )
    height = _HEIGHT + 18 * len(points) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" class="plot" '
        f'width="{2 * _WIDTH}" height="{2 * height}"><style>{COLOURS}{MARKS}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="var(--paper)"/>'
        f"{frame}{_lines(points, across, up)}{legend}</svg>\n"
    )


def scatter_plot(
    series: Mapping[str, Sequence[tuple[Any, ...]]],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    diagonal: str = "",
) -> Html:
    """Each series as dots. ``diagonal`` draws the line where x equals y, with this name."""
    points = {name: _finite(each) for name, each in series.items()}

    def draw(across: _Axis, up: _Axis) -> str:
        dots = "".join(
            _dot(index, across(point[0]), up(point[1]), _named(name, point))
            for index, (name, each) in enumerate(points.items())
            for point in each
        )
        # The name is drawn last, so that no dot hides it.
        return dots + (_diagonal(across, up, diagonal) if diagonal else "")

    return _plot(points, draw, _dot_key, title=title, x=x, y=y)


def histogram(
    series: Mapping[str, Sequence[float]],
    *,
    bins: int = 20,
    title: str = "",
    x: str = "",
    y: str = "count",
) -> Html:
    """How often values fall into each of ``bins`` equal ranges."""
    values = {name: [v for v in each if math.isfinite(v)] for name, each in series.items()}
    every = [value for each in values.values() for value in each]
    low, high = _widened(min(every), max(every)) if every else (0.0, 1.0)
    step = (high - low) / bins
    counts = {name: _counts(each, low, step, bins) for name, each in values.items()}
    outline = {
        name: [(low, 0.0), *((low + (n + 1) * step, float(c)) for n, c in enumerate(each))]
        for name, each in counts.items()
        if values[name]
    }

    def draw(across: _Axis, up: _Axis) -> str:
        bars = []
        for index, (name, each) in enumerate(counts.items()):
            for number, count in enumerate(each):
                left, right = across(low + number * step), across(low + (number + 1) * step)
                said = f"{name}: {count} from {low + number * step:.4g} to "
                bars += [
                    f'<rect class="bar k{index % _COLOURS}" x="{left:.1f}" y="{up(count):.1f}" '
                    f'width="{right - left:.1f}" height="{up(0) - up(count):.1f}">'
                    f"<title>{text(said)}{low + (number + 1) * step:.4g}</title></rect>"
                ] * (count > 0)
        return "".join(bars)

    return _plot(outline, draw, _dot_key, title=title, x=x, y=y, least_step=1)


def _plot(
    points: Mapping[str, Sequence[tuple[Any, ...]]],
    draw: Callable[[_Axis, _Axis], str],
    key: Callable[[int], str],
    *,
    title: str,
    x: str,
    y: str,
    least_step: float = 0,
) -> Html:
    every = [point for each in points.values() for point in each]
    if not every:
        return Html(
            f'<figure class="plot"><figcaption>{text(title)}: nothing to show</figcaption></figure>'
        )
    across_ticks = _ticks(*_ends([point[0] for point in every]), 6)
    up_ticks = _ticks(*_ends([point[1] for point in every]), 6, least_step)
    across = _Axis(across_ticks[0], across_ticks[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Axis(up_ticks[0], up_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    return Html(
        f'<figure class="plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(title or y)}">'
        + _frame(across, across_ticks, up, up_ticks, (title, x, y), _labels)
        + draw(across, up)
        + "</svg>"
        + (_legend(list(points), key) if len(points) > 1 else "")
        + "</figure>"
    )


def _frame(
    across: _Axis,
    across_ticks: list[float],
    up: _Axis,
    up_ticks: list[float],
    names: tuple[str, str, str],
    labels: Callable[[list[float]], list[str]],
) -> str:
    """Grid, numbers and names."""
    title, x, y = names
    parts = []
    for label, value in zip(labels(across_ticks), across_ticks, strict=True):
        at = across(value)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" y1="{up.end}" x2="{at:.1f}" y2="{up.start}"/>'
            f'<text x="{at:.1f}" y="{up.start + 16}" text-anchor="middle">{label}</text>'
        )
    for label, value in zip(labels(up_ticks), up_ticks, strict=True):
        at = up(value)
        parts.append(
            f'<line class="grid" x1="{across.start}" y1="{at:.1f}" x2="{across.end}" '
            f'y2="{at:.1f}"/><text x="{across.start - 7}" y="{at + 4:.1f}" '
            f'text-anchor="end">{label}</text>'
        )
    middle = (across.start + across.end) / 2
    height = (up.start + up.end) / 2
    parts += [
        f'<text class="title" x="{across.start}" y="15">{text(title)}</text>',
        f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{text(x)}</text>',
        f'<text transform="translate(12 {height:.1f}) rotate(-90)" text-anchor="middle">'
        f"{text(y)}</text>",
    ]
    return "".join(parts)


def _lines(points: Mapping[str, Sequence[tuple[float, ...]]], across: _Axis, up: _Axis) -> str:
    return "".join(
        f'<polyline class="k k{index % _COLOURS}" '
        f'stroke-dasharray="{_DASHES[index % len(_DASHES)]}" '
        f'points="{" ".join(_place(point, across, up) for point in each)}">'
        f"<title>{text(name)}</title></polyline>"
        for index, (name, each) in enumerate(points.items())
    )


def _legend(names: list[str], key: Callable[[int], str]) -> str:
    entries = "".join(
        f'<span><svg viewBox="0 0 24 11" aria-hidden="true">{key(index)}</svg>{text(name)}</span>'
        for index, name in enumerate(names)
    )
    return f'<figcaption class="legend">{entries}</figcaption>'


def _line_key(index: int) -> str:
    return (
        f'<polyline class="k k{index % _COLOURS}" points="0,6 24,6" '
        f'stroke-dasharray="{_DASHES[index % len(_DASHES)]}"/>'
    )


def _dot_key(index: int) -> str:
    return _dot(index, 12, 6, "")


def _dot(index: int, x: float, y: float, said: str) -> str:
    """A circle, a square or a diamond, by the series' number."""
    kind = f'class="dot k{index % _COLOURS}"'
    hover = f"<title>{text(said)}</title>" if said else ""
    if index % 3 == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="3.5">{hover}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if index % 3 == 2 else ""
    return f'<rect {kind} x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"{turn}>{hover}</rect>'


def _diagonal(across: _Axis, up: _Axis, name: str) -> str:
    low, high = max(across.low, up.low), min(across.high, up.high)
    if low >= high:
        return ""
    return (
        f'<line class="guide" x1="{across(low):.1f}" y1="{up(low):.1f}" '
        f'x2="{across(high):.1f}" y2="{up(high):.1f}"/>'
        f'<text class="over" x="{across(high) - 6:.1f}" y="{up(high) + 14:.1f}" text-anchor="end">'
        f"{text(name)}</text>"
    )


def _finite(points: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]


def _place(point: tuple[Any, ...], across: _Axis, up: _Axis) -> str:
    return f"{across(point[0]):.1f},{up(point[1]):.1f}"


def _named(series: str, point: tuple[Any, ...]) -> str:
    name = f"{point[2]}, " if len(point) > 2 else ""
    return f"{series}: {name}{point[0]:.4g}, {point[1]:.4g}"


def _counts(values: Sequence[float], low: float, step: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / step))] += 1
    return counts


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return _widened(min(values), max(values))


def _widened(low: float, high: float) -> tuple[float, float]:
    """An axis needs some length even if all values are equal."""
    if high > low:
        return low, high
    room = abs(low) * 0.05 or 0.5
    return low - room, high + room


def _ticks(low: float, high: float, most: int, least_step: float = 0) -> list[float]:
    """Round values that enclose both ends, at 1, 2 or 5 times a power of ten."""
    rough = max(least_step, (high - low) / (most - 1))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.8 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _labels(ticks: list[float]) -> list[str]:
    """Numbers with as many decimals as are needed to distinguish them."""
    step = ticks[1] - ticks[0]
    largest = max(abs(ticks[0]), abs(ticks[-1]))
    if largest >= 1e6 or largest < 1e-3:
        return [f"{tick:.3g}" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:.{decimals}f}".replace("-", "−") for tick in ticks]


def _round_powers(values: Sequence[float]) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten that enclose all of some logarithms."""
    first, last = math.floor(min(values)), math.ceil(max(values)) + 1
    steps = (1, 10) if last - first > 4 else (1, 2, 5)
    ticks = sorted({power + math.log10(step) for power in range(first, last) for step in steps})
    low = max(tick for tick in ticks if tick <= min(values) + 1e-9)
    high = next((tick for tick in ticks if tick > max(values)), ticks[-1])
    return [tick for tick in ticks if low <= tick <= high]


def _powers(ticks: list[float]) -> list[str]:
    """The numbers with these logarithms."""
    return [f"{10**tick:g}" for tick in ticks]
