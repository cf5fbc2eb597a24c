"""The Runs screen: training runs on disk, followed as they write."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from sora_spec.tui.charts import Chart
from sora_spec.tui.frame import PLOT_COLUMNS, PLOT_ROWS, Frame, planner_app
from sora_spec.tui.pictures import SampleGrid
from sora_spec.tui.rows import RowList
from sora_spec.tui.runs_view import (
    CHARTS,
    RunsFollower,
    View,
    Wanted,
    compared,
    plot,
    progress,
    run_line,
)
from sora_spec.watch.run import StageState

_PERIOD = 1.0
"""Seconds between two looks."""


class Looked(Message):
    """The folders have been read."""

    def __init__(self, view: View | None, wanted: Wanted) -> None:
        super().__init__()
        self.view, self.wanted = view, wanted


class Sized(Static):
    """Words that depend on how many columns they have."""

    _words: Callable[[int], Content] | None = None
    _width = -1

    def show(self, words: Callable[[int], Content]) -> None:
        """Show what `words` makes of the width."""
        self._words, self._width = words, -1
        self.on_resize()

    def on_resize(self) -> None:
        width = self.content_size.width
        if self._words is not None and width != self._width:
            self._width = width
            self.update(self._words(width))


class RunsScreen(Frame):
    """Run folders on the left, the chosen one on the right."""

    CSS_PATH = "runs.tcss"
    HORIZONTAL_BREAKPOINTS: ClassVar[Any] = PLOT_COLUMNS
    VERTICAL_BREAKPOINTS: ClassVar[Any] = PLOT_ROWS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "next_chart", "Chart"),
        Binding("s", "next_stage", "Stage"),
        Binding("left_square_bracket", "sample(1)", "Older", key_display="["),
        Binding("right_square_bracket", "sample(-1)", "Newer", key_display="]"),
        Binding("space", "play", "Play"),
        Binding("z", "zoom", "Zoom"),
        Binding("r", "look", "Look again", show=False),
    ]

    view: reactive[View] = reactive(View())
    chart: reactive[int] = reactive(0)

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()
        self._busy = False
        self._follower: RunsFollower | None = None

    def body(self) -> ComposeResult:
        """Runs and samples on the left; progress, curves and predictions on the right."""
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield RowList("Runs", "runs", "no runs")
                yield SampleGrid(id="samples")
            with Vertical(id="right"):
                yield Sized(id="progress")
                yield Chart(id="chart")
                with Horizontal(id="more"):
                    for number_ in range(1, len(CHARTS)):
                        yield Chart(id=f"more-{number_}")
                yield Sized(id="compared")

    def on_mount(self) -> None:
        super().on_mount()
        self._follower = RunsFollower(planner_app(self).run_folders)
        self._timer = self.set_interval(_PERIOD, self.action_look)
        self.query_one("#samples").border_title = "samples"
        self.query_one("#compared").border_title = "predicted and real"
        self.query_one(RowList).focus()
        self.action_look()

    def on_screen_suspend(self) -> None:
        """Nothing is read while another screen is in front."""
        self._timer.pause()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if hasattr(self, "_timer"):
            self._timer.resume()
            self.action_look()

    # Looking

    def now(self) -> float:
        """Seconds since the epoch, by which ages of files are judged."""
        return time.time()

    def action_look(self) -> None:
        """Read what is new, unless that is being done."""
        if self._busy or self._follower is None:
            return
        self._busy = True
        work = partial(self._look, self._follower, self.wanted, self.now())
        self.app.run_worker(work, name="runs", group="runs", thread=True, exit_on_error=False)

    def _look(self, follower: RunsFollower, wanted: Wanted, now: float) -> None:
        view = None
        try:
            view = follower.look(wanted, now)
        finally:
            self.post_message(Looked(view, wanted))

    def on_looked(self, message: Looked) -> None:
        """Show it; look again if something else is wanted by now."""
        self._busy = False
        if message.wanted != self.wanted:
            self.action_look()
        elif message.view is not None:
            self.view = message.view

    def _want(self, wanted: Wanted) -> None:
        if wanted != self.wanted:
            self.wanted = wanted
            self.action_look()

    # Keys

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        if message.line.value is not None and (self.view.run is None or message.line.value != self.view.run.path):
            self._want(Wanted(message.line.value))

    def action_next_chart(self) -> None:
        """Show the next quantity in the large chart."""
        self.chart = (self.chart + 1) % len(CHARTS)

    def action_next_stage(self) -> None:
        run, stage = self.view.run, self.view.stage
        if run is None or stage is None or len(run.stages) < 2:
            self.notify("this run has one stage")
            return
        names = [found.name for found in run.stages]
        self._want(Wanted(run.path, names[(names.index(stage.name) + 1) % len(names)]))

    def action_sample(self, by: int) -> None:
        """An older or a newer sample grid."""
        run, stage = self.view.run, self.view.stage
        if run is None or stage is None:
            return
        back = min(max(self.wanted.back + by, 0), max(0, len(stage.samples) - 1))
        self._want(Wanted(run.path, stage.name, back))

    def action_play(self) -> None:
        """Let the clips move, or hold them."""
        samples = self.query_one(SampleGrid)
        samples.playing = not samples.playing

    def action_zoom(self) -> None:
        """The sample grid alone, or with everything again."""
        self.toggle_class("-zoomed")

    # Showing

    def watch_view(self, view: View) -> None:
        if not self.is_mounted:
            return
        self._show_runs(view)
        self.query_one("#progress", Sized).show(partial(progress, view))
        self._show_charts(view.stage)
        self._show_samples(view)
        self.query_one("#compared", Sized).show(partial(compared, view.stage))

    def watch_chart(self) -> None:
        if self.is_mounted:
            self._show_charts(self.view.stage)

    def _show_runs(self, view: View) -> None:
        rows = self.query_one(RowList)
        rows.empty = f"no runs in {view.where}"
        rows.set_lines([run_line(run) for run in view.runs])
        places = [run.path for run in view.runs]
        if view.run is not None and rows.cursor != places.index(view.run.path):
            rows.cursor = places.index(view.run.path)

    def _show_charts(self, stage: StageState | None) -> None:
        large = self.query_one("#chart", Chart)
        charted = CHARTS[self.chart]
        large.plot = plot(stage, charted)
        large.entitle(charted.title)
        for number_, small in enumerate(CHARTS[1:], 1):
            chart = self.query_one(f"#more-{number_}", Chart)
            chart.plot = plot(stage, small)
            chart.entitle(small.title)

    def _show_samples(self, view: View) -> None:
        samples, picture = self.query_one(SampleGrid), view.picture
        samples.note = picture.problem or "no sample grid yet"
        samples.frames = picture.frames
        stage = view.stage
        if picture.path is None or stage is None:
            samples.border_title = "samples"
            return
        step = picture.path.stem.removeprefix("step-").lstrip("0") or "0"
        place = stage.samples.index(picture.path) + 1 if picture.path in stage.samples else 0
        of = f"step {int(step):,}" if step.isdigit() else picture.path.stem
        samples.border_title = f"samples of {of}, {place} of {len(stage.samples)}"
