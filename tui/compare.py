"""The Compare screen: specs and pinned settings side by side, and how each grows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import DataTable, Static
from textual.worker import Worker, get_current_worker

from sora_spec.plan.axes.all_axes import Field
from sora_spec.plan.question import Answer, plan_of
from sora_spec.plan.show.comparing import shown_ratio
from sora_spec.plan.show.contrast import Line as ContrastLine
from sora_spec.plan.show.contrast import contrast
from sora_spec.plan.show.curves import Point, curve
from sora_spec.tui.charts import SERIES, Chart, Level, Plot, Trace, gib, seconds
from sora_spec.tui.frame import PLOT_COLUMNS, PLOT_ROWS, Frame, planner_app
from sora_spec.tui.numbers import gib as short_gib
from sora_spec.tui.numbers import short
from sora_spec.tui.pins import LETTERS, MOST, Column, columns_of
from sora_spec.tui.rows import Cell, Line, RowList
from sora_spec.tui.session import OpenSpec
from sora_spec.tui.signs import SIGNS

_ROLES = {"yes": "good", "tight": "tight", "no": "bad", "cannot": "bad", "errors": "bad"}
_COUNTS = ("parameters", "forward_flops")
_FAR = 4.0
"""Times the highest point above which a device's memory is not drawn: it would press the curves flat."""


class Drawing(NamedTuple):
    """One plot of the screen."""

    knob: Field
    title: str
    value: str
    """`memory` or `time`."""
    empty: str


DRAWINGS = (
    Drawing("frames", "memory over frames", "memory", "an image model has one frame"),
    Drawing("gpus", "time over devices", "time", "generation runs on one device"),
    Drawing("batch", "memory over clips per pass", "memory", "nothing to draw"),
    Drawing("resolution", "memory over height in pixels", "memory", "nothing to draw"),
)

COST_NAMES = {
    "forward_flops": "FLOPs, forward",
    "allocated_bytes": "memory, allocated",
    "device_bytes": "memory, device",
    "step_seconds": "a step",
    "total_seconds": "in all",
    "problem": "problem",
}


class Curved(Message):
    """The points of one answer over one knob."""

    def __init__(self, answer: Answer, knob: Field, points: tuple[Point, ...], last: bool) -> None:
        super().__init__()
        self.answer, self.points, self.last = answer, points, last
        self.knob: Field = knob


class Contrasted(Message):
    """Columns that were planned and put side by side."""

    def __init__(self, columns: tuple[Column, ...], lines: tuple[ContrastLine, ...], number: int) -> None:
        super().__init__()
        self.columns, self.lines, self.number = columns, lines, number


class CompareScreen(Frame):
    """Columns, the lines in which they differ, and plots."""

    CSS_PATH = "compare.tcss"
    HORIZONTAL_BREAKPOINTS: ClassVar[Any] = PLOT_COLUMNS
    VERTICAL_BREAKPOINTS: ClassVar[Any] = PLOT_ROWS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "all", "All / differences"),
        Binding("c", "next_plot", "Plot"),
        Binding("m", "app.pin", "Pin"),
        Binding("delete,backspace", "unpin", "Unpin", key_display="del"),
        Binding("z", "zoom", "Zoom"),
    ]

    everything: reactive[bool] = reactive(False)
    first: reactive[int] = reactive(0)
    """Which plot comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: tuple[Column, ...] = ()
        self.lines: tuple[ContrastLine, ...] = ()
        self._points: list[tuple[Answer, Field, tuple[Point, ...]]] = []
        self._number = 0
        self._wanted: tuple[Column, ...] = ()
        self._worker: Worker[None] | None = None

    def body(self) -> ComposeResult:
        """Columns and lines on the left, plots on the right or below."""
        with Horizontal(id="body"):
            with Vertical(id="table"):
                yield RowList("Compared", "columns", "nothing to compare yet")
                yield DataTable[Text](id="lines", cursor_type="row", fixed_columns=1)
                yield Static(id="note")
            with Grid(id="plots"):
                for number in range(len(DRAWINGS)):
                    yield Chart(id=f"plot-{number}")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#lines", DataTable).focus()
        self.show_answer(planner_app(self).spec)

    def show_answer(self, spec: OpenSpec) -> None:
        """Something was answered or pinned: compare anew."""
        app = planner_app(self)
        wanted = tuple(columns_of(app.session.specs, app.session.index, app.session.pins))
        if len(wanted) == len(self._wanted) and all(
            new.answer is old.answer and new.pinned == old.pinned for new, old in zip(wanted, self._wanted, strict=True)
        ):
            return
        self._wanted = wanted
        self._number += 1
        if self._worker is not None:
            self._worker.cancel()
        work = partial(self._compare, wanted, self._number, tuple(self._points))
        self._worker = self.app.run_worker(work, name="compare", group="compare", thread=True, exit_on_error=False)

    def _compare(
        self, columns: tuple[Column, ...], number: int, known: tuple[tuple[Answer, Field, tuple[Point, ...]], ...]
    ) -> None:
        """Put side by side, then draw what is not drawn yet."""
        columns = with_spec_as_written(columns)
        self.post_message(Contrasted(columns, contrast([column.answer for column in columns]), number))
        worker = get_current_worker()
        missing: list[tuple[Answer, Field]] = [
            (column.answer, drawing.knob)
            for drawing in DRAWINGS
            for column in columns
            if column.answer.job is not None
            and not any(answer is column.answer and knob == drawing.knob for answer, knob, _ in known)
        ]
        for place, (answer, knob) in enumerate(missing, 1):
            points: list[Point] = []
            assert answer.job is not None
            for point in curve(answer.job, knob):
                if worker.is_cancelled:
                    return
                points.append(point)
            self.post_message(Curved(answer, knob, tuple(points), place == len(missing)))

    def on_contrasted(self, message: Contrasted) -> None:
        if message.number != self._number:
            return
        self.columns, self.lines = message.columns, message.lines
        shown = [column.answer for column in self.columns]
        self._points = [known for known in self._points if any(known[0] is answer for answer in shown)]
        self._show_columns()
        self._show_lines()
        self._show_plots()

    def on_curved(self, message: Curved) -> None:
        if any(column.answer is message.answer for column in self.columns):
            self._points.append((message.answer, message.knob, message.points))
            self._show_plots()

    # Keys

    def action_all(self) -> None:
        """Differences only, or every line."""
        self.everything = not self.everything

    def watch_everything(self) -> None:
        if self.is_mounted:
            self._show_lines()

    def action_next_plot(self) -> None:
        self.first = (self.first + 1) % len(DRAWINGS)

    def watch_first(self) -> None:
        if self.is_mounted:
            self._show_plots()

    def action_unpin(self) -> None:
        """Take back the pin with the cursor, or the last one."""
        pins = planner_app(self).session.pins
        line = self.query_one(RowList).line
        chosen = line.value if line is not None and self.query_one(RowList).has_focus else None
        if chosen is None:
            chosen = pins[-1] if pins else None
        place = next((i for i, pin in enumerate(pins) if pin is chosen), None)
        if place is None:
            self.notify("only pinned settings can be taken back; m pins what the planner asks")
            return
        del pins[place]
        self.show_answer(planner_app(self).spec)

    def action_zoom(self) -> None:
        """The plots alone, or with the table again."""
        self.toggle_class("-zoomed")

    # Showing

    def _show_columns(self) -> None:
        rows = self.query_one(RowList)
        rows.set_lines([column_line(LETTERS[i], column) for i, column in enumerate(self.columns)])
        rows.border_subtitle = f"at most {MOST}" if len(self.columns) == MOST else ""
        note = self.query_one("#note", Static)
        alone = len(self.columns) < 2
        note.display = alone
        if alone:
            note.update("Change something in the planner (1), or pin a setting with m and change on: both stand here.")

    def _show_lines(self) -> None:
        table = self.query_one("#lines", DataTable)
        place = table.cursor_row
        table.clear(columns=True)
        shown = [line for line in self.lines if self.everything or line.differs]
        rows: list[list[Text]] = []
        group = ""
        for line in shown:
            if line.group != group:
                group = line.group
                title = {"asked": "what is asked", "cost": "what it costs", "field": "the spec"}[group]
                rows.append([Text(title, "bold underline"), *(Text("") for _ in self.columns)])
            rows.append(self._cells(line))
        if len(self.columns) > 1 and not shown:
            rows.append([Text("nothing differs"), *(Text("") for _ in self.columns)])
        headings = ["", *(f"{letter} {column.name}" for letter, column in zip(LETTERS, self.columns, strict=False))]
        for number, heading in enumerate(headings):
            table.add_column(heading, width=max([len(heading), *(row[number].cell_len for row in rows)]))
        for row in rows:
            table.add_row(*row)
        table.move_cursor(row=min(place, max(0, table.row_count - 1)))
        table.border_title = "all lines" if self.everything else "differences only"

    def _cells(self, line: ContrastLine) -> list[Text]:
        name = COST_NAMES.get(line.name, line.name)
        mark = "• " if self.everything and line.differs else "  "
        style = "" if line.differs else "dim"
        cells = [Text(mark + name, style)]
        for number, (value, text) in enumerate(zip(line.values, line.shown, strict=True)):
            other = value != line.values[0]
            if line.name in _COUNTS and isinstance(value, int | float):
                text = short(value) + ("" if number == 0 else shown_ratio(line.values[0], value))
            cells.append(Text(text, "bold" if other else style, no_wrap=True))
        return cells

    def _show_plots(self) -> None:
        for number in range(len(DRAWINGS)):
            drawing = DRAWINGS[(number + self.first) % len(DRAWINGS)]
            chart = self.query_one(f"#plot-{number}", Chart)
            chart.plot, note = self._plot(drawing)
            chart.entitle(drawing.title, note)

    def _plot(self, drawing: Drawing) -> tuple[Plot, str]:
        """A plot, and what stands below it."""
        traces: list[Trace] = []
        capacities: dict[str, float] = {}
        known = 0
        for number, column in enumerate(self.columns):
            points = self._points_of(column.answer, drawing.knob)
            known += points is not None or column.answer.job is None
            if points and column.answer.job is not None:
                device = column.answer.job.device
                capacities[f"{device.name} {short_gib(device.memory_bytes)} GiB"] = device.memory_bytes
                traces.append(trace(LETTERS[number], column.name, number, points, drawing.value))
        if not traces:
            empty = drawing.empty if known == len(self.columns) else "drawing …"
            return Plot(empty=empty), ""
        if drawing.value == "time":
            return Plot(tuple(traces), (), seconds, log_x=True, log_y=True, knobs=True), ""
        highest = max(y for one in traces for y in one.ys)
        near = {name: y for name, y in capacities.items() if y < _FAR * highest}
        levels = tuple(Level(name, y) for name, y in near.items())
        far = [f"({name}: far above)" for name in capacities if name not in near]
        log_x = drawing.knob == "batch"
        return Plot(tuple(traces), levels, gib, log_x=log_x, knobs=True), "  ".join(far)

    def _points_of(self, answer: Answer, knob: Field) -> tuple[Point, ...] | None:
        return next((points for known, name, points in self._points if known is answer and name == knob), None)


def with_spec_as_written(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """A single column that asks something is compared with its spec as it is written."""
    if len(columns) != 1:
        return columns
    answer = columns[0].answer
    bare = replace(answer.question, gpu="", count=None, batch=None, attention=None, tf32=False, overrides=())
    bare = replace(bare, placement="resident")
    if bare == answer.question:
        return columns
    from sora_spec.language.source import parse_document

    written = parse_document(answer.document.text)
    return (Column(columns[0].name, plan_of(written, bare)), *columns)


def trace(letter: str, name: str, number: int, points: tuple[Point, ...], value: str) -> Trace:
    """The curve of one column."""
    of = (lambda p: p.memory_bytes.likely) if value == "memory" else (lambda p: p.total_seconds.likely)
    role = SERIES[number % len(SERIES)]
    return Trace(name, tuple(float(p.x) for p in points), tuple(of(p) for p in points), role, letter)


def column_line(letter: str, column: Column) -> Line:
    """A column in the list."""
    sign = SIGNS[column.answer.standing]
    role = _ROLES[column.answer.standing]
    pinned = " (pinned)" if column.pinned else ""
    return Line(
        (Cell(f"{letter} ", "strong"), Cell(column.label), Cell(pinned, "dim")),
        (Cell(f"{sign.mark} {sign.word}", role),),
        value=column,
    )
