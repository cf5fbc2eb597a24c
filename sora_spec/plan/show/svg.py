"""A small writer of charts as SVG: scales, axes, marks. No dependencies; numbers are pixels, y grows downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from sora_spec.characters import visible

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e4e8ec"
SERIES = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"),
    *("#7b3fb3", "#444f5a", "#b3123f", "#5f7f00", "#a05a2c", "#2f4b8f"),
    *("#00a3a3", "#f08a5d", "#9a9a00", "#d94fd9", "#6a4c93", "#1b7f3b"),
)
"""Colours that stay apart for colour-blind readers, for as many as possible of the first (Okabe and Ito, darkened)."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_SPARE = 8.0
"""Ratio of the largest to the smallest value above which a scale is logarithmic."""


class Canvas:
    """What is drawn, in order."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> None:
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<line {ends} stroke="{colour}" stroke-width="{width:g}"{dashes}/>')

    def path(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.6" '
            f'stroke-linejoin="round"{dashes}/>'
        )

    def dot(self, x: float, y: float, colour: str, filled: bool, title: str, radius: float = 3.6) -> None:
        """A mark; hollow where not `filled`. `title` shows when a pointer rests on it."""
        fill = colour if filled else "#ffffff"
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{colour}" stroke-width="1.4">'
            f"<title>{escape(visible(title))}</title></circle>"
        )

    def bar(self, box: tuple[float, float, float, float], colour: str, filled: bool, title: str) -> None:
        """A rectangle (x, y, width, height); hollow where not `filled`."""
        x, y, width, height = box
        fill = colour if filled else "#ffffff"
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 0.5):.1f}" fill="{fill}" '
            f'stroke="{colour}" stroke-width="1.4"><title>{escape(visible(title))}</title></rect>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 12,
        colour: str = INK,
        anchor: str = "start",
        turn: float = 0,
    ) -> None:
        """Words whose anchor is at a place, turned by so many degrees around it."""
        turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"{turned}>'
            f"{escape(visible(words), quote=False)}</text>"
        )

    def render(self) -> str:
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">'
        back = f'<rect width="{self.width:g}" height="{self.height:g}" fill="#ffffff"/>'
        return "\n".join([head, back, *self._parts, "</svg>"]) + "\n"


class Scale(NamedTuple):
    """Values to pixels, linear from zero or logarithmic."""

    low: float
    high: float
    at_low: float
    at_high: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, x = self.low, self.high, value
        if self.logarithmic:
            low, high, x = math.log(low), math.log(high), math.log(max(value, self.low))
        return self.at_low + (x - low) / (high - low) * (self.at_high - self.at_low)


def scale_of(values: Sequence[float], at_low: float, at_high: float) -> Scale:
    """A scale that holds positive values: logarithmic where they span a lot, linear from zero otherwise."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _SPARE:
        return Scale(low / 1.25, high * 1.25, at_low, at_high, True)
    return Scale(0.0, 1.08 * high or 1.0, at_low, at_high, False)


def ticks(scale: Scale, nice: Sequence[float] = (), most: int = 6) -> list[float]:
    """Round values within a scale, of `nice` where that is given."""
    if nice:
        inside = [value for value in nice if scale.low <= value <= scale.high]
        if not scale.logarithmic:
            return _spaced(scale, most, [value for value in nice if value > 0])
        return inside[:: -(-len(inside) // most)] if inside else [scale.high]
    if not scale.logarithmic:
        return _spaced(scale, most, [digit * 10.0**power for power in range(-6, 13) for digit in (1, 2, 5)])
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for digits in ((1, 2, 5), (1,)):
        found = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        inside = [value for value in found if scale.low <= value <= scale.high]
        if len(inside) <= most + 1:
            return inside
    return inside[:: -(-len(inside) // most)]


def _spaced(scale: Scale, most: int, steps: Sequence[float]) -> list[float]:
    step = next((step for step in steps if scale.high / step <= most), scale.high)
    return [step * number for number in range(int(scale.high / step) + 1)]


def y_axis(
    canvas: Canvas, scale: Scale, left: float, right: float, marks: Sequence[float], shown: Callable[[float], str]
) -> None:
    """Grid lines and numbers at the left."""
    for value in marks:
        y = scale.at(value)
        canvas.line(left, y, right, y, GRID)
        canvas.text(left - 8, y + 4, shown(value), 11, FAINT, "end")


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, given in order, that keep a gap and stay between two bounds where they can."""
    places = list(wanted)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    if places and places[-1] > high:
        places[-1] = high
        for index in range(len(places) - 2, -1, -1):
            places[index] = min(places[index], places[index + 1] - gap)
    return [max(place, low) for place in places]
