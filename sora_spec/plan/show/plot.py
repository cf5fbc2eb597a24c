"""A sweep as a picture: memory with the devices' capacity, time, and cost, one above the other (SVG).

The setting that takes most values runs along the x axis; devices are told apart by colour, and what else varies by the
dashes of the lines. Where that would be too much, every combination has a place of its own. Without settings the
devices stand side by side. Marks are filled where the job fits and hollow where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from sora_spec.errors import UserError
from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.planner import Plan
from sora_spec.plan.search.sweep import Row
from sora_spec.plan.show.svg import FAINT, INK, SERIES, Canvas, Scale, scale_of, spread_out, ticks, y_axis

_WIDTH, _LEFT, _TOP = 980.0, 84.0, 58.0
_LEGEND = 196.0
"""Space at the right."""
_PANEL, _GAP = 190.0, 40.0
_CHARACTER = 6.3  # pixels of a letter of a label, on average
_MOST_LABELS = 26
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "1 5")
_SECONDS = (
    *(1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600),
    *(7200, 14_400, 28_800, 57_600),
    *(86_400 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)),
)
"""Times that people count in."""


class Measure(NamedTuple):
    """What a panel shows."""

    title: str
    value: Callable[[Plan], float | None]
    shown: Callable[[float], str]
    nice: tuple[float, ...] = ()


def _gib(value: float) -> str:
    return f"{value:,.3g} GiB"


def _dollars(value: float) -> str:
    return f"${value:,.0f}" if value >= 10 or value == 0 else f"${value:,.3g}"


def _duration(value: float) -> str:
    return "0" if value == 0 else duration(value).replace(".0 days", " days")


def _cost(plan: Plan) -> float | None:
    return None if plan.times.cost is None or plan.times.cost.likely <= 0 else plan.times.cost.likely


def _measures(plan: Plan) -> list[Measure]:
    job = plan.job
    steps = job.vae_training.steps if job.stage == "vae" and job.mode == "train" else job.spec.train.steps
    whole = "a batch of clips" if job.mode == "generate" else f"{steps:,} steps"
    return [
        Measure("memory of one device (dashed: what it has)", lambda plan: plan.needed.likely / GIB, _gib),
        Measure(f"time of {whole}", lambda plan: plan.times.total_seconds.likely, _duration, _SECONDS),
        Measure(f"cost of {whole}", _cost, _dollars),
    ]


def plot_sweep(rows: Sequence[Row], name: str) -> str:
    """The SVG of a sweep over the spec of file `name`. Raises UserError: no row has a plan."""
    planned = [row for row in rows if row.plan is not None]
    if not planned:
        raise UserError("there is nothing to draw: no row of the sweep has a plan", "see the reasons with --format csv")
    return _Picture(planned, len(rows) - len(planned)).draw(PurePath(name).name)


Place = tuple[str, ...]
"""Number of devices and settings of a row, as text."""


class _Axes:
    """Which column and which dashes a row has."""

    def __init__(self, rows: Sequence[Row]) -> None:
        places = list(dict.fromkeys(_place(row) for row in rows))
        self.names = ["devices", *(setting.partition("=")[0] for setting in rows[0].settings)]
        values = [list(dict.fromkeys(place[axis] for place in places)) for axis in range(len(self.names))]
        self.varying = [axis for axis, found in enumerate(values) if len(found) > 1]
        main = max(self.varying, key=lambda axis: len(values[axis]), default=0)
        others = list(dict.fromkeys(self._without(place, main) for place in places))
        self.joined = len(others) <= len(_DASHES)
        """Whether lines join what differs in one setting only."""
        self.main = [main] if self.joined else self.varying
        self.columns = list(dict.fromkeys(self.column(place) for place in places))
        self.styles = others if self.joined else [()]

    def _without(self, place: Place, main: int) -> Place:
        return tuple(place[axis] for axis in self.varying if axis != main)

    def column(self, place: Place) -> Place:
        """What of a place stands on the x axis."""
        return tuple(place[axis] for axis in self.main)

    def style(self, place: Place) -> Place:
        """What of a place the dashes tell."""
        return self._without(place, self.main[0]) if self.joined else ()

    @property
    def title(self) -> str:
        """Name of the x axis."""
        return " · ".join(self.names[axis] for axis in self.main)

    @property
    def style_title(self) -> str:
        """What the dashes tell."""
        return " · ".join(self.names[axis] for axis in self.varying if axis not in self.main)


class _Panel(NamedTuple):
    measure: Measure
    scale: Scale
    top: float


class _Picture:
    """One sweep being drawn."""

    def __init__(self, rows: Sequence[Row], missing: int) -> None:
        self.rows, self.missing = rows, missing
        self.devices = list(dict.fromkeys(row.device for row in rows))
        self.colours = {device: SERIES[i % len(SERIES)] for i, device in enumerate(self.devices)}
        self.axes = _Axes(rows)
        self.alone = not self.axes.varying
        """Whether devices stand side by side, since no setting varies."""
        self.labels = self.devices if self.alone else [_shortened(" · ".join(c), 24) for c in self.axes.columns]
        self.right = _WIDTH - (24.0 if self.alone else _LEGEND)
        self.step = -(-len(self.labels) // _MOST_LABELS)
        longest = _CHARACTER * max(map(len, self.labels))
        self.turned = longest + 10 > self.step * (self.right - _LEFT) / len(self.labels)
        measures = [m for m in _measures(_plan(rows[0])) if any(m.value(_plan(row)) is not None for row in rows)]
        self.panels = [self._panel(measure, number) for number, measure in enumerate(measures)]
        self.title_at = self.panels[-1].scale.at_low + 26 + (0.6 * longest if self.turned else 14)
        legend = self.panels[0].top + 17 * (len(self.devices) + len(self.axes.styles) + 3) + _PANEL
        self.canvas = Canvas(_WIDTH, max(self.title_at + 16, 0 if self.alone else legend))

    def _panel(self, measure: Measure, number: int) -> _Panel:
        values = [value for row in self.rows if (value := measure.value(_plan(row))) is not None]
        if number == 0:
            values += self._capacities(max(values)).values()
        top = _TOP + number * (_PANEL + _GAP) + 26
        return _Panel(measure, scale_of(values, top + _PANEL - 26, top), top)

    def _capacities(self, needed: float) -> dict[str, float]:
        """GiB that devices have; of those far above all needs, which would flatten the rest, only the least."""
        found = {row.device: _plan(row).device.memory_bytes / GIB for row in self.rows}
        near = {device: there for device, there in found.items() if there <= 6 * needed}
        return near or {device: there for device, there in found.items() if there == min(found.values())}

    def draw(self, name: str) -> str:
        plan = _plan(self.rows[0])
        trained = "VAE" if plan.job.stage == "vae" else "denoiser"
        what = "generate" if plan.job.mode == "generate" else f"train the {trained}"
        note = "filled: fits, hollow: does not fit"
        if self.missing:
            note += f"; {self.missing:,} {'row has' if self.missing == 1 else 'rows have'} no plan"
        count = f" on {plan.job.count} {'device' if plan.job.count == 1 else 'devices'}" if self.alone else ""
        self.canvas.text(_LEFT, 24, f"{plan.job.spec.name}: {what}{count}", 17)
        self.canvas.text(_LEFT, 43, f"{name}; {note}", 12, FAINT)
        for panel in self.panels:
            self._frame(panel)
        self._capacity_lines(self.panels[0])
        for panel in self.panels:
            if self.alone:
                self._draw_devices(panel)
            else:
                self._draw_lines(panel)
        self._x_labels()
        if not self.alone:
            self._legend()
        return self.canvas.render()

    def _frame(self, panel: _Panel) -> None:
        measure, scale, top = panel
        self.canvas.text(_LEFT, top - 10, measure.title, 13)
        y_axis(self.canvas, scale, _LEFT, self.right, ticks(scale, measure.nice), measure.shown)
        self.canvas.line(_LEFT, scale.at_low, self.right, scale.at_low, FAINT)

    def _x(self, column: int) -> float:
        return _LEFT + (self.right - _LEFT) * (column + 0.5) / len(self.labels)

    def _draw_lines(self, panel: _Panel) -> None:
        columns = {column: number for number, column in enumerate(self.axes.columns)}
        radius = 3.6 if len(columns) <= 60 else 2.2
        for device in self.devices:
            for style, dash in zip(self.axes.styles, _DASHES, strict=False):
                marks: list[tuple[float, float, Row]] = []
                for row in self.rows:
                    value = panel.measure.value(_plan(row))
                    if row.device == device and self.axes.style(_place(row)) == style and value is not None:
                        marks.append((self._x(columns[self.axes.column(_place(row))]), panel.scale.at(value), row))
                if self.axes.joined:
                    self.canvas.path([(x, y) for x, y, _ in marks], self.colours[device], dash)
                for x, y, row in marks:
                    self.canvas.dot(x, y, self.colours[device], _plan(row).fits, _told(row, panel.measure), radius)

    def _draw_devices(self, panel: _Panel) -> None:
        """Bars from zero, or marks where a logarithmic scale has no zero."""
        width = min(46.0, 0.6 * (self.right - _LEFT) / len(self.labels))
        for row in self.rows:
            value = panel.measure.value(_plan(row))
            if value is None:
                continue
            x, y = self._x(self.devices.index(row.device)), panel.scale.at(value)
            colour, fits, told = self.colours[row.device], _plan(row).fits, _told(row, panel.measure)
            if panel.scale.logarithmic:
                self.canvas.line(x, panel.scale.at_low, x, y, colour, 1.4)
                self.canvas.dot(x, y, colour, fits, told, 5)
            else:
                self.canvas.bar((x - width / 2, y, width, panel.scale.at_low - y), colour, fits, told)
            self.canvas.text(x, y - 8, panel.measure.shown(value), 10, INK, "middle")

    def _capacity_lines(self, panel: _Panel) -> None:
        """Where the memory of each device ends; equal ones share a line."""
        needs = [panel.measure.value(_plan(row)) or 0.0 for row in self.rows]
        found = self._capacities(max(needs))
        if self.alone:
            width = min(62.0, 0.84 * (self.right - _LEFT) / len(self.labels))
            for device, there in found.items():
                x, y = self._x(self.devices.index(device)), panel.scale.at(there)
                self.canvas.line(x - width / 2, y, x + width / 2, y, self.colours[device], 2, "5 3")
            return
        shared: dict[float, list[str]] = {}
        for device, there in found.items():
            shared.setdefault(round(there, 1), []).append(device)
        levels = sorted(shared, reverse=True)
        heights = [panel.scale.at(level) for level in levels]
        for level, y, place in zip(
            levels, heights, spread_out(heights, 13, panel.top, panel.scale.at_low), strict=True
        ):
            colour = self.colours[shared[level][0]] if len(shared[level]) == 1 else FAINT
            self.canvas.line(_LEFT, y, self.right, y, colour, 1.3, "6 4")
            self.canvas.text(
                self.right + 8, place + 4, _shortened(f"{level:g} {', '.join(shared[level])}", 31), 10.5, colour
            )

    def _x_labels(self) -> None:
        y = self.panels[-1].scale.at_low + 18
        for number, label in list(enumerate(self.labels))[:: self.step]:
            if self.turned:
                self.canvas.text(self._x(number) + 5, y - 3, label, 11, INK, "end", -35)
            else:
                self.canvas.text(self._x(number), y, label, 11, INK, "middle")
        if not self.alone:
            self.canvas.text((_LEFT + self.right) / 2, self.title_at, self.axes.title, 12, FAINT, "middle")

    def _legend(self) -> None:
        x, y = self.right + 12, self.panels[0].top + _PANEL + 10
        for device in self.devices:
            self.canvas.line(x, y, x + 26, y, self.colours[device], 1.6)
            self.canvas.dot(x + 13, y, self.colours[device], True, device)
            self.canvas.text(x + 34, y + 4, _shortened(device, 24), 12)
            y += 17
        if len(self.axes.styles) > 1:
            self.canvas.text(x, y + 14, _shortened(self.axes.style_title, 30), 11, FAINT)
            y += 30
            for style, dash in zip(self.axes.styles, _DASHES, strict=False):
                self.canvas.line(x, y, x + 26, y, INK, 1.6, dash)
                self.canvas.text(x + 34, y + 4, _shortened(" · ".join(style), 24), 12)
                y += 17


def _plan(row: Row) -> Plan:
    assert row.plan is not None
    return row.plan


def _place(row: Row) -> Place:
    return (f"{_plan(row).job.count} ×", *(_value(setting.partition("=")[2]) for setting in row.settings))


def _value(text: str) -> str:
    """A section by its kind: `{kind: blocks, every: 2}` as `blocks, every: 2`."""
    return text.strip("{}").removeprefix("kind:").strip() if text.startswith("{") else text


def _told(row: Row, measure: Measure) -> str:
    value = measure.value(_plan(row))
    settings = "".join(f", {setting}" for setting in row.settings)
    told = "" if value is None else measure.shown(value)
    return f"{_plan(row).job.count} × {row.device}{settings}: {told}, fits: {_plan(row).verdict}"


def _shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
