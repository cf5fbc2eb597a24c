"""The Sweep screen: devices and settings as a table that can be sorted, and the best row under a budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import DataTable, Input, Label, Static
from textual.worker import Worker, get_current_worker

from sora_spec.errors import UserError
from sora_spec.language.source import Document
from sora_spec.plan.amounts import duration
from sora_spec.plan.job import Question
from sora_spec.plan.question import command_line
from sora_spec.plan.search.budget import Choice, best, parse_budget
from sora_spec.plan.search.listing import listed, listed_counts
from sora_spec.plan.search.sweep import Over, Row, parse_axes, render, row_values, sweep_rows, sweep_size, swept_devices
from sora_spec.plan.show.report import headline
from sora_spec.tui.ask_box import AskBox
from sora_spec.tui.frame import Frame, planner_app
from sora_spec.tui.numbers import dollars, gib, hours
from sora_spec.tui.session import OpenSpec
from sora_spec.tui.signs import SIGNS
from sora_spec.tui.sweep_table import (
    Column,
    Figure,
    export_format,
    first_axes,
    first_counts,
    in_order,
    sortable,
    split_axes,
)

_AT_ONCE = 2_000
"""Rows up to which a sweep is made anew by itself when the spec changes."""
_PERIOD = 0.1
"""Seconds between two batches of rows."""
_INPUTS = ("gpus", "counts", "over")


@dataclass(frozen=True)
class Asked:
    """What is swept."""

    document: Document
    question: Question
    gpus: str
    counts: str
    over: str


class Swept(Message):
    """More rows of a sweep, or its end."""

    def __init__(
        self, number: int, rows: Sequence[Row], size: int, axes: Sequence[Over], ended: bool, problem: str = ""
    ) -> None:
        super().__init__()
        self.number, self.rows, self.size, self.axes = number, tuple(rows), size, tuple(axes)
        self.ended, self.problem = ended, problem


class Exported(Message):
    """A file has been written, or why not."""

    def __init__(self, path: str, problem: str = "") -> None:
        super().__init__()
        self.path, self.problem = path, problem


class Rows(DataTable[Figure]):
    """The table. The row with the cursor stays in sight when the words above take some of its room, or give it back."""

    class Resized(Message):
        """The table has another size."""

    def on_resize(self) -> None:
        self.post_message(self.Resized())


class SweepScreen(Frame):
    """Axes above, rows below, and what is to be said about the row with the cursor."""

    CSS_PATH = "sweep.tcss"
    HORIZONTAL_BREAKPOINTS: ClassVar[Any] = [(0, "-narrow"), (72, "-normal"), (110, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "budget", "Budget"),
        Binding("s", "sort_next", "Sort"),
        Binding("S", "sort_turn", "Reverse", show=False),
        Binding("f", "fitting", "Only fits"),
        Binding("e", "edit", "Edit axes"),
        Binding("r", "sweep", "Again", show=False),
        Binding("x", "export", "Export"),
        Binding("escape", "stop", "Stop", show=False),
    ]

    only_fitting: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.axes: tuple[Over, ...] = ()
        self.size_asked = 0
        self.ended = True
        self.problem = ""
        self.choice: Choice | None = None
        self.sorted_by = ""
        self.reverse = False
        self._number = 0
        self._asked: Asked | None = None
        self._of: OpenSpec | None = None
        self._worker: Worker[None] | None = None
        self._budget = ""

    def body(self) -> ComposeResult:
        """Axes, progress, table, words."""
        with Horizontal(id="axes"):
            for name, label in zip(_INPUTS, ("GPUs", "count", "over"), strict=True):
                yield Label(f"{label} ", markup=False)
                yield Input(id=name, compact=True, placeholder="all" if name == "gpus" else "")
        yield Static(id="state")
        yield Rows(id="rows", cursor_type="row", zebra_stripes=True, fixed_columns=1)
        yield Static(id="words")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#gpus", Input).value = "all"
        self.query_one("#over", Input).placeholder = "KEY=A,B,… KEY=A,B,…"
        self.query_one("#words").border_title = "this row"
        self.query_one(DataTable).focus()
        self._begin(planner_app(self).spec)

    def show_answer(self, spec: OpenSpec) -> None:
        """The spec, or what is asked of it, has changed: sweep anew, unless that is long."""
        if self._asked is None or spec is not self._of:
            self._begin(spec)
        elif self._request(spec) != self._asked:
            if self.size_asked <= _AT_ONCE:
                self.action_sweep()
            else:
                self._say_state("the spec has changed; r sweeps again")

    def _begin(self, spec: OpenSpec) -> None:
        if spec.answer is None:
            return
        self._of = spec
        counts = first_counts(spec)
        self.query_one("#counts", Input).value = ",".join(map(str, counts))
        self.query_one("#over", Input).value = first_axes(spec, counts)
        self.action_sweep()

    def _request(self, spec: OpenSpec) -> Asked | None:
        if spec.answer is None:
            return None
        gpus, counts, over = (self.query_one(f"#{name}", Input).value.strip() for name in _INPUTS)
        return Asked(spec.answer.document, spec.answer.question, gpus, counts, over)

    # Sweeping

    def action_sweep(self) -> None:
        """Sweep what the axes say, from the beginning."""
        asked = self._request(planner_app(self).spec)
        if asked is None:
            return
        self._stop()
        self._number += 1
        self._asked, self._of = asked, planner_app(self).spec
        self.rows, self.axes, self.choice = [], (), None
        self.ended, self.problem, self.size_asked = False, "", 0
        self._fill()
        work = partial(self._sweep, self._number, asked)
        self._worker = self.app.run_worker(work, name="sweep", group="sweep", thread=True, exit_on_error=False)

    def _sweep(self, number: int, asked: Asked) -> None:
        axes: list[Over] = []
        size = 0
        try:
            axes = parse_axes(split_axes(asked.over))
            names = listed("GPUs", asked.gpus) or ["all"]
            devices, counts = (
                swept_devices(names, asked.question.hardware or None),
                listed_counts("count", asked.counts),
            )
            size = sweep_size(devices, counts, axes)
            self.post_message(Swept(number, (), size, axes, ended=False))
            way = asked.question
            way = replace(way, stage="denoiser") if way.mode == "generate" else way
            rows = sweep_rows(asked.document, way, devices, counts, axes)
            self._pass_on(number, rows, size, axes)
        except UserError as error:
            words = f"{error.message}{'; ' + error.hint if error.hint else ''}"
            self.post_message(Swept(number, (), size, axes, ended=True, problem=words))

    def _pass_on(self, number: int, rows: Any, size: int, axes: Sequence[Over]) -> None:
        """Rows in batches, until the end or until the user has had enough."""
        worker, batch, passed = get_current_worker(), list[Row](), time.monotonic()
        for row in rows:
            if worker.is_cancelled:
                return
            batch.append(row)
            if time.monotonic() - passed > _PERIOD:
                self.post_message(Swept(number, batch, size, axes, ended=False))
                batch, passed = [], time.monotonic()
            time.sleep(0)  # the interface goes first
        self.post_message(Swept(number, batch, size, axes, ended=True))

    def on_swept(self, message: Swept) -> None:
        if message.number != self._number:
            return
        first = not self.rows and message.axes != self.axes
        self.axes, self.size_asked, self.ended = message.axes, message.size, message.ended
        self.problem = message.problem
        start = len(self.rows)
        self.rows.extend(message.rows)
        if first or not self.query_one(DataTable).columns:
            self._fill()
        else:
            self._add(range(start, len(self.rows)))
        if message.ended and self.sorted_by:
            self._sort()
        self._say_state()
        self._say_row()

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None

    def action_stop(self) -> None:
        """Out of the axes; or stop sweeping and keep what is there."""
        if isinstance(self.focused, Input):
            self.query_one(DataTable).focus()
        elif not self.ended:
            self._stop()
            self._number += 1
            self.ended = True
            self._say_state("stopped; r sweeps again")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.action_sweep()
        self.query_one(DataTable).focus()

    def action_edit(self) -> None:
        """Type other axes."""
        self.query_one("#over", Input).focus()

    # The table

    def _columns(self) -> list[Column]:
        names = [axis.path.rpartition(".")[2] for axis in self.axes]
        short = [name if names.count(name) == 1 else axis.path for name, axis in zip(names, self.axes, strict=True)]
        return [
            Column("gpu", "GPU"),
            Column("count", "n"),
            *(Column(f"axis {number}", name) for number, name in enumerate(short)),
            Column("verdict", "fits"),
            Column("device_bytes", "GiB"),
            Column("total_seconds", "in all"),
            Column("cost", "cost"),
            Column("step_seconds", "a step"),
            Column("capacity", "of GiB"),
            Column("gpu_hours", "GPU-hours"),
        ]

    def _fill(self) -> None:
        """The whole table anew."""
        table = self.query_one(DataTable)
        table.clear(columns=True)
        for column in self._columns():
            mark = " " if column.key != self.sorted_by else ("▾" if self.reverse else "▴")
            table.add_column(f"{column.heading}{mark}", key=column.key)
        self._add(range(len(self.rows)))
        if self.sorted_by:
            self._sort()
        self._say_state()

    def _add(self, places: Sequence[int] | range) -> None:
        table = self.query_one(DataTable)
        for place in places:
            row = self.rows[place]
            if not self.only_fitting or (row.plan is not None and row.plan.fits):
                table.add_row(*self._cells(row, place), key=str(place))

    def _cells(self, row: Row, place: int) -> list[Figure]:
        """A row that does not fit is dim, the chosen one bold and marked."""
        standing = "errors" if row.plan is None else row.plan.standing
        chosen = self.choice is not None and self.choice.place == place
        base = "bold" if chosen else "" if standing in ("yes", "tight") else "dim"
        sign = SIGNS[standing]
        word = "no plan" if row.plan is None else sign.word
        colour = self.app.theme_variables[f"text-{sign.style}"]
        order = ("yes", "tight", "no", "cannot", "errors").index(standing)
        settings = [value.partition("=")[2] for value in row.settings]
        values = row_values(row)
        plan = row.plan
        cells = [
            Figure(("▸ " if chosen else "  ") + row.device, row.device, base, "left"),
            Figure(str(values["count"] or ""), values["count"], base),
            *(Figure(text, sortable(text), base) for text in settings),
            Figure(f"{sign.mark} {word}", order, colour, "left"),
        ]
        if plan is None:
            return cells + [Figure("", None, base) for _ in range(6)]
        cost = values["cost"]
        return [
            *cells,
            Figure(gib(values["device_bytes"]["likely"]), values["device_bytes"]["likely"], base),
            Figure(duration(values["total_seconds"]["likely"]), values["total_seconds"]["likely"], base),
            Figure("-" if cost is None else dollars(cost["likely"]), cost and cost["likely"], base),
            Figure(duration(values["step_seconds"]["likely"]), values["step_seconds"]["likely"], base),
            Figure(gib(plan.device.memory_bytes), plan.device.memory_bytes, base),
            Figure(hours(values["gpu_hours"]["likely"]), values["gpu_hours"]["likely"], base),
        ]

    def _sort(self) -> None:
        self.query_one(DataTable).sort(self.sorted_by, key=partial(in_order, self.reverse), reverse=self.reverse)

    def sort_by(self, key: str) -> None:
        """Sort by a column; by the same one again the other way round."""
        self.reverse = not self.reverse if key == self.sorted_by else False
        self.sorted_by = key
        self._fill()
        self.query_one(DataTable).move_cursor(row=0)

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        self.sort_by(str(event.column_key.value))

    def action_sort_next(self) -> None:
        keys = [column.key for column in self._columns()]
        place = keys.index(self.sorted_by) if self.sorted_by in keys else -1
        self.sorted_by = ""
        self.sort_by(keys[(place + 1) % len(keys)])

    def action_sort_turn(self) -> None:
        """The other way round."""
        if self.sorted_by:
            self.sort_by(self.sorted_by)

    def action_fitting(self) -> None:
        """Only rows that fit, or all."""
        self.only_fitting = not self.only_fitting
        place = self.place
        self._fill()
        self._go_to(place)

    @property
    def place(self) -> int | None:
        """Place among the rows of the one with the cursor."""
        table = self.query_one(DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return None if key is None else int(key)

    def _go_to(self, place: int | None) -> None:
        table = self.query_one(DataTable)
        if place is None or str(place) not in table.rows:
            return
        table.move_cursor(row=table.get_row_index(str(place)))

    def _centre(self) -> None:
        table = self.query_one(DataTable)
        table.scroll_to(y=max(0, table.cursor_row - table.size.height // 2), animate=False, force=True)

    def on_rows_resized(self) -> None:
        """Where a row was chosen, keep it in the middle."""
        if self.choice is not None:
            self._centre()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        self._say_row()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        place = self.place
        if place is not None:
            planner_app(self).ask(self.question(self.rows[place]))
            planner_app(self).action_show("planner")

    def question(self, row: Row) -> Question:
        """The question whose answer is a row."""
        assert self._asked is not None
        count = row.count if row.plan is None else row.plan.job.count
        asked = self._asked.question
        found = replace(asked, gpu=row.device, count=count)
        for setting in row.settings:
            path, _, value = setting.partition("=")
            found = found.having(path, value)
        return found

    # Words

    def _say_state(self, note: str = "") -> None:
        state = self.query_one("#state", Static)
        if self.problem:
            state.update(Content.from_markup("[$text-error]! $problem[/]", problem=self.problem))
            return
        fitting = sum(row.plan is not None and row.plan.fits for row in self.rows)
        words = [f"{fitting:,} of {len(self.rows):,} fit"]
        if not self.ended:
            size = self.size_asked
            share = len(self.rows) / size if size else 0.0
            words = [f"{'█' * round(20 * share):░<20} {len(self.rows):,} of {size:,} planned; escape stops", *words]
        words += ["only rows that fit are shown"] if self.only_fitting else []
        words += [note] if note else []
        text = Content(" · ".join(words))
        if self.choice is not None:
            chosen = Content.from_markup("[b $text-success]best: [/]$why", why=self.choice.why)
            if self.choice.row is None:
                chosen = Content.from_markup("[b $text-warning]no row: [/]$why", why=self.choice.why)
            text = Content("\n").join([text, chosen])
        state.update(text)

    def _say_row(self) -> None:
        words, place = self.query_one("#words", Static), self.place
        if place is None or place >= len(self.rows):
            words.update("")
            return
        row = self.rows[place]
        said = row.problem if row.plan is None else headline(row.plan)
        line = command_line(self._of.argument if self._of is not None else "", self.question(row))
        words.update(Content(f"{said}\n{line}"))

    # Budget and export

    def action_budget(self) -> None:
        """Ask for a limit, and go to the best row within it."""
        help = "The most it may cost or take: $500, 72 h, 3 days, or 24 GiB of one device. Nothing: the cheapest."
        self.app.push_screen(AskBox("Budget", help, self._budget, parse_budget), self._choose)

    def _choose(self, text: str | None) -> None:
        if text is None:
            return
        self._budget = text
        self.choice = best(self.rows, parse_budget(text))
        self._fill()
        self._go_to(self.choice.place)
        self.call_after_refresh(self._centre)  # the words above take some of the table's room

    def action_export(self) -> None:
        """Write the rows to a file."""
        help = "A file: .csv or .json, as `sora-spec plan --sweep --format` prints them."
        name = f"{self._of.name if self._of else 'spec'}-sweep.csv"
        self.app.push_screen(AskBox("Export", help, name, export_format), self._export)

    def _export(self, path: str | None) -> None:
        if path is not None:
            work = partial(self._write, path.strip(), tuple(self.rows))
            self.app.run_worker(work, name="export", group="export", thread=True, exit_on_error=False)

    def _write(self, path: str, rows: Sequence[Row]) -> None:
        try:
            Path(path).write_text(render(rows, export_format(path)) + "\n", encoding="utf-8")
            self.post_message(Exported(path))
        except OSError as error:
            self.post_message(Exported(path, error.strerror or str(error)))

    def on_exported(self, message: Exported) -> None:
        if message.problem:
            self.notify(f"{message.path} cannot be written: {message.problem}", severity="error", markup=False)
        else:
            self.notify(f"{len(self.rows):,} rows are in {message.path}", markup=False)
