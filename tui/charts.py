"""Plots that say everything without colour too: plotext's canvas with our axes, units and levels.

Imported by the screens that draw, not by the app: plotext is only loaded when a plot is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from rich.markup import escape
from rich.style import Style
from rich.text import Span, Text
from textual.color import Color
from textual.reactive import reactive
from textual_plotext import PlotextPlot

from sora_spec.plan.amounts import GIB, duration
from sora_spec.tui.frame import planner_app

_LEAST = (16, 4)
"""Columns and rows below which there is no room for a plot."""


SERIES = tuple(f"series-{number}" for number in range(6))
"""Roles of lines that stand beside each other."""
_DARK = ("#4fa8ff", "#ffb454", "#7fd962", "#d2a6ff", "#5ccfe6", "#f28779")
_LIGHT = ("#0060c0", "#a85400", "#2e7d32", "#7b3fb5", "#00798c", "#c62828")


@dataclass(frozen=True)
class Trace:
    """One line of a plot."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    role: str = "primary"
    """Colour of the theme, one of `SERIES`, or `muted`."""
    mark: str = "*"
    """Letter that draws it where there is no colour or no Unicode."""


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name on it."""

    name: str
    y: float
    role: str = "error"


@dataclass(frozen=True)
class Plot:
    """Everything that a chart shows."""

    traces: tuple[Trace, ...] = ()
    levels: tuple[Level, ...] = ()
    form: Callable[[float], str] = str
    """How a value of the vertical axis is written."""
    log_x: bool = False
    log_y: bool = False
    """For durations."""
    knobs: bool = False
    """Whether ticks stand at the points themselves, which are settings of a knob."""
    from_zero: bool = True
    empty: str = "nothing to draw yet"

    @property
    def is_empty(self) -> bool:
        """Whether no trace has a point."""
        return not any(trace.xs for trace in self.traces)


def gib(value: float) -> str:
    """Bytes on an axis."""
    return f"{value / GIB:.4g} GiB"


def seconds(value: float) -> str:
    """Seconds on an axis."""
    return "0 s" if value == 0 else duration(value).replace(".0 ", " ")


def number(value: float) -> str:
    """A number without a unit."""
    return f"{value:.3g}"


class Chart(PlotextPlot):
    """One plot. Set `plot`; the size is that of the widget."""

    plot: reactive[Plot] = reactive(Plot())

    def __init__(self, plot: Plot | None = None, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.theme = "clear"
        self.set_reactive(Chart.plot, plot or Plot())

    def entitle(self, title: str, note: str = "") -> None:
        """Title and legend in the line above the plot."""
        parts = [escape(title), self.legend(), escape(note)]
        self.border_title = "   ".join(part for part in parts if part)

    def render(self) -> Text:
        width, height = self.size
        if self.plot.is_empty or width < _LEAST[0] or height < _LEAST[1]:
            return Text(self.plot.empty if self.plot.is_empty else "no room for the plot", style="dim")
        figure: Any = self.plt
        figure.clear_figure()
        self._draw(figure, axes_of(self.plot, width, height))
        drawn = cast("Text", super().render())
        # plotext paints the paper of words in a colour of its own.
        inks = [Span(span.start, span.end, _ink(span.style)) for span in drawn.spans]
        return Text(drawn.plain, spans=inks, no_wrap=True)

    def _draw(self, figure: Any, axes: Axes) -> None:
        plot = self.plot
        figure.frame(False)
        figure.grid(False, False)
        figure.ylim(*axes.y_ends)
        figure.yticks([axes.y(tick) for tick in axes.y_ticks], [plot.form(tick) for tick in axes.y_ticks])
        figure.xlim(*axes.x_ends)
        figure.xticks([axes.x(tick) for tick in axes.x_ticks], [f"{tick:,g}" for tick in axes.x_ticks])
        for level in plot.levels:
            figure.hline(axes.y(level.y), color=self._colour(level.role))
        for trace in plot.traces:
            self._draw_trace(figure, trace, axes)
        for level in plot.levels:
            place = (axes.x_ends[1], axes.y(level.y))
            figure.text(f" {level.name} ", *place, color=self._colour(level.role), alignment="right")

    def legend(self) -> str:
        """What draws which line, as markup for a border."""
        return "  ".join(
            f"[#{bytes(self._colour(one.role)).hex()}]{self._sample(one)}[/] {escape(one.name)}"
            for one in self.plot.traces
            if one.name
        )

    def _sample(self, trace: Trace) -> str:
        return trace.mark if self._is_plain or (trace.role in SERIES and trace.mark.isalpha()) else "━━"

    def _draw_trace(self, figure: Any, trace: Trace, axes: Axes) -> None:
        colour = self._colour(trace.role)
        marker = trace.mark if self._is_plain and len(self.plot.traces) > 1 else "braille"
        xs, ys = [axes.x(x) for x in trace.xs], [axes.y(y) for y in trace.ys]
        if len(xs) == 1:
            figure.scatter(xs, ys, marker=trace.mark, color=colour)
        elif xs:
            figure.plot(xs, ys, marker=marker, color=colour)

    @property
    def _is_plain(self) -> bool:
        return planner_app(self).ascii_only or self.app.no_color

    def _colour(self, role: str) -> tuple[int, int, int]:
        variables = self.app.theme_variables
        if role == "muted":
            ink, paper = Color.parse(variables["foreground"]), Color.parse(variables["surface"])
            return ink.blend(paper, 0.55).rgb
        if role in SERIES:
            return Color.parse((_DARK if self.app.current_theme.dark else _LIGHT)[SERIES.index(role)]).rgb
        return Color.parse(variables[role]).rgb


def _ink(style: Any) -> Style:
    found = style if isinstance(style, Style) else Style.parse(style)
    return Style(color=found.color)


@dataclass(frozen=True)
class Axes:
    """Where values lie on the canvas, whose axes are linear: a logarithmic axis holds logarithms."""

    log_x: bool
    log_y: bool
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    """Both in the unit of the data."""

    def x(self, value: float) -> float:
        """Place of a value on the horizontal axis."""
        return math.log(value) if self.log_x else value

    def y(self, value: float) -> float:
        """Place of a value on the vertical axis."""
        return math.log(value) if self.log_y else value


def axes_of(plot: Plot, width: int, height: int) -> Axes:
    """Axes that span all traces and levels, with round ticks whose labels have room."""
    xs = sorted({x for trace in plot.traces for x in trace.xs})
    ys = [y for trace in plot.traces for y in trace.ys] + [level.y for level in plot.levels]
    log_x, log_y = plot.log_x and xs[0] > 0, plot.log_y and min(ys) > 0
    most = max(2, (height - 1) // 3)
    if log_y:
        y_ticks = log_ticks(min(ys), max(ys), most)
    else:
        y_ticks = nice_ticks(min(0.0, *ys) if plot.from_zero else min(ys), max(ys), most, _unit(plot.form, max(ys)))
    top = max(y_ticks[1], *ys)
    y_ticks = [tick for tick in y_ticks if tick <= top * (1 + 1e-9)]
    bare = Axes(log_x, log_y, (0, 1), (0, 1), (), tuple(y_ticks))
    low, high = bare.y(y_ticks[0]), bare.y(top)
    ends = (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] * 0.5, xs[0] * 1.5 or 1.0)
    room = width - max(len(plot.form(tick)) for tick in y_ticks) - 2
    marked = (
        xs if plot.knobs else [tick for tick in nice_ticks(*ends, max(2, room // 10)) if ends[0] <= tick <= ends[1]]
    )
    x_ends = (bare.x(ends[0]), bare.x(ends[1]))
    return replace(
        bare,
        x_ends=x_ends,
        y_ends=(low, high if high > low else low + 1),
        x_ticks=tuple(ticks_that_fit(marked or xs, bare, x_ends, room)),
    )


_CLOCK = ((1, 1e-3), (120, 1), (7200, 60), (172_800, 3600), (math.inf, 86_400))
_ROUND = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18_000, 36_000, 86_400, 172_800, 432_000)
"""Seconds to which people round."""


def _unit(form: Callable[[float], str], high: float) -> float:
    """The unit in which ticks are round."""
    if form is gib:
        return GIB
    return next(unit for limit, unit in _CLOCK if high < limit) if form is seconds else 1.0


def nice_ticks(low: float, high: float, most: int, unit: float = 1.0) -> list[float]:
    """At most about `most` values that span `low` to `high`: 1, 2 or 5 times a power of ten, of the unit."""
    span = max((high - low) / unit, 1e-9 * max(1.0, abs(high) / unit))
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power * most >= span * (1 - 1e-9))
    first, last = math.floor(low / unit / step + 1e-9), math.ceil(high / unit / step - 1e-9)
    return [place * step * unit for place in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round durations that span `low` to `high`, thinned to about `most`."""
    days = [factor * 10**power * 86_400.0 for power in range(1, 7) for factor in (1, 2, 5)]
    short = [factor * 10.0**power for power in range(-9, 0) for factor in (1, 2, 5)]
    every = [*short, *_ROUND, *days]
    first = max((i for i, tick in enumerate(every) if tick <= low), default=0)
    last = next((i for i, tick in enumerate(every) if tick >= high), len(every) - 1)
    inner = every[first : max(last, first + 1) + 1]
    step = -(-(len(inner) - 1) // most)
    return sorted({*inner[::step], inner[-1]})


def ticks_that_fit(xs: Sequence[float], axes: Axes, ends: tuple[float, float], width: int) -> list[float]:
    """Those of `xs` whose labels stand apart on an axis of `width` columns, both ends first."""
    taken: list[tuple[float, float]] = []
    kept: list[float] = []
    for x in dict.fromkeys([xs[0], xs[-1], *xs[1:-1]]):
        middle = width * (axes.x(x) - ends[0]) / (ends[1] - ends[0])
        half = len(f"{x:,g}") / 2 + 1
        if all(middle + half <= left or middle - half >= right for left, right in taken):
            taken.append((middle - half, middle + half))
            kept.append(x)
    return sorted(kept)
