"""The Runs screen: training runs on disk, followed as they write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from sora_spec.errors import UserError
from sora_spec.plan.report import GIB, duration
from sora_spec.tui.charts import SERIES, Chart, Level, Plot, Trace, number, seconds
from sora_spec.tui.frame import Frame, planner_app
from sora_spec.tui.numbers import gib, percent
from sora_spec.tui.pictures import Frames, SampleGrid, thumbnails
from sora_spec.tui.rows import Cell, Line, RowList
from sora_spec.tui.signs import Sign
from sora_spec.watch.pictures import frames_of, read_png
from sora_spec.watch.prediction import Compared
from sora_spec.watch.run import RunState, RunWatch, StageState, find_runs

RUN_SIGNS = {
    "starting": Sign("…", "starting", "accent"),
    "running": Sign("▶", "running", "success"),
    "finished": Sign("✔", "finished", "success"),
    "stopped": Sign("■", "stopped", "error"),
    "empty": Sign("·", "not begun", "accent"),
}
_ROLES = {"success": "good", "error": "bad", "accent": "accent"}
_PERIOD = 1.0
"""Seconds between two looks."""


class Charted(NamedTuple):
    """What one chart shows."""

    title: str
    field: str
    second: str
    """A field drawn beside it instead of the moving average."""
    form: Callable[[float], str]
    from_zero: bool


CHARTS = (
    Charted("loss", "loss", "", number, False),
    Charted("step time and data wait", "step_seconds", "data_seconds", seconds, True),
    Charted("learning rate", "lr", "", number, True),
    Charted("gradient norm", "grad_norm", "", number, True),
)


@dataclass(frozen=True)
class Pictured:
    """A sample grid that was read."""

    path: Path | None = None
    frames: Frames = ()
    problem: str = ""


@dataclass(frozen=True)
class View:
    """All that the screen shows, at one moment."""

    runs: tuple[RunState, ...] = ()
    run: RunState | None = None
    stage: StageState | None = None
    picture: Pictured = Pictured()
    where: str = ""
    """Folders that were searched."""


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at: the run, its stage (the one worked on last if None), and how many grids back."""

    run: Path | None = None
    stage: str | None = None
    back: int = 0


class Looked(Message):
    """The folders have been read."""

    def __init__(self, view: View | None, wanted: Wanted) -> None:
        super().__init__()
        self.view, self.wanted = view, wanted


class RunsFollower:
    """Reads run folders. Only ever called from one worker at a time."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._watches: dict[Path, RunWatch] = {}
        self._picture = Pictured()

    def look(self, wanted: Wanted, now: float) -> View:
        """All runs, and one of them closely."""
        runs = tuple(self._watch(path).look(now) for path in find_runs(self.folders))
        run = next((run for run in runs if run.path == wanted.run), runs[0] if runs else None)
        stage = _stage(run, wanted.stage)
        return View(runs, run, stage, self._read(stage, wanted.back), ", ".join(map(str, self.folders)))

    def _watch(self, path: Path) -> RunWatch:
        return self._watches.setdefault(path, RunWatch(path))

    def _read(self, stage: StageState | None, back: int) -> Pictured:
        if stage is None or not stage.samples:
            return Pictured()
        path = stage.samples[max(0, len(stage.samples) - 1 - back)]
        if self._picture.path == path and not self._picture.problem:
            return self._picture
        try:
            picture = read_png(path)
        except UserError as error:
            return Pictured(path, problem=error.message)
        height, width = stage.schedule.frame_height or picture.height, stage.schedule.frame_width or picture.width
        self._picture = Pictured(path, thumbnails(frames_of(picture, height, width)))
        return self._picture


def _stage(run: RunState | None, name: str | None) -> StageState | None:
    if run is None:
        return None
    return next((stage for stage in run.stages if stage.name == name), run.current)


class Sized(Static):
    """Words that depend on how many columns they have."""

    _words: Callable[[int], Content] | None = None
    _width = -1

    def show(self, words: Callable[[int], Content]) -> None:
        """Show what `words` makes of the width."""
        self._words, self._width = words, -1
        self.on_resize()

    def on_resize(self) -> None:
        """As wide as there is room."""
        width = self.content_size.width
        if self._words is not None and width != self._width:
            self._width = width
            self.update(self._words(width))


class RunsScreen(Frame):
    """Run folders on the left, the chosen one on the right."""

    CSS_PATH = "runs.tcss"
    HORIZONTAL_BREAKPOINTS: ClassVar[Any] = [
        (0, "-narrow"),
        (72, "-normal"),
        (110, "-wide"),
        (160, "-vast"),
    ]
    VERTICAL_BREAKPOINTS: ClassVar[Any] = [(0, "-flat"), (22, "-middle"), (38, "-tall")]
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
        """Look now and every second."""
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
        """Go on."""
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
        """Another run."""
        if message.line.value is not None and (self.view.run is None or message.line.value != self.view.run.path):
            self._want(Wanted(message.line.value))

    def action_next_chart(self) -> None:
        """Show the next quantity in the large chart."""
        self.chart = (self.chart + 1) % len(CHARTS)

    def action_next_stage(self) -> None:
        """Show the other stage of the run."""
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
        """Redraw."""
        if not self.is_mounted:
            return
        self._show_runs(view)
        self.query_one("#progress", Sized).show(partial(progress, view))
        self._show_charts(view.stage)
        self._show_samples(view)
        self.query_one("#compared", Sized).show(partial(compared, view.stage))

    def watch_chart(self) -> None:
        """Another quantity."""
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


def run_line(run: RunState) -> Line:
    """A run in the list."""
    stage = run.current
    sign = RUN_SIGNS["empty" if stage is None else stage.status]
    role = _ROLES[sign.style]
    return Line((Cell(f"{sign.mark} ", role), Cell(run.path.name)), (Cell(sign.word, role),), value=run.path)


def progress(view: View, width: int) -> Content:
    """What the run does, how far it is, and its last figures."""
    run, stage = view.run, view.stage
    if run is None:
        return Content.from_markup(
            "No run in $where.\nTrain one, and it appears here:\n  $command",
            where=view.where or "sight",
            command="sora-spec train tiny-sit-digits train.data=data/digits",
        )
    if stage is None:
        return Content.from_markup("$name: no stage has begun", name=run.name)
    sign = RUN_SIGNS[stage.status]
    head = Content.from_markup(
        f"[b ${sign.style}]$mark $word[/]  [b]$name[/] · $stage · $why",
        mark=sign.mark,
        word=sign.word,
        name=run.name,
        stage="codec" if stage.name == "vae" else "denoiser",
        why=stage.why,
    )
    notes = [_figures(stage)]
    if run.problem:
        notes.append(Content.from_markup("[$warning]its spec cannot be read: $problem[/]", problem=run.problem))
    return Content("\n").join([head, Content(_bar(stage, width)), *notes])


def _bar(stage: StageState, width: int) -> str:
    steps = stage.schedule.steps
    if not steps:
        return f"step {stage.step:,}"
    share = min(1.0, stage.step / steps)
    words = [f"step {stage.step:,} of {steps:,}", percent(share)]
    if stage.eta_seconds and stage.status in ("running", "starting"):
        words.append(f"{duration(stage.eta_seconds)} left")
    if stage.eta_seconds and stage.status == "stopped":
        words.append(f"{duration(stage.eta_seconds)} of training missing")
    text = " · ".join(words)
    room = min(width - len(text) - 2, 60)
    if room < 6:
        return text
    full = round(share * room)
    return "█" * full + "░" * (room - full) + "  " + text


def _figures(stage: StageState) -> Content:
    latest = stage.latest
    if not latest:
        return Content("")
    words: list[str] = []
    for name, title, form in (
        ("loss", "loss", number),
        ("step_seconds", "step", seconds),
        ("data_seconds", "data wait", seconds),
        ("lr", "lr", number),
        ("grad_norm", "grad norm", number),
    ):
        if name in latest:
            words.append(f"{title} {form(latest[name])}")
    known = {"loss", "step_seconds", "data_seconds", "lr", "grad_norm", "clips"}
    words += [f"{name} {number(value)}" for name, value in latest.items() if name not in known]
    return Content(" · ".join(words))


def plot(stage: StageState | None, charted: Charted) -> Plot:
    """A chart of a stage."""
    if stage is None:
        return Plot(form=charted.form)
    curve = stage.curves[charted.field]
    xs = tuple(map(float, curve.steps))
    if charted.field == "lr":
        traces = (Trace("", xs, curve.values, SERIES[0]),)
    elif charted.second:
        second = stage.curves[charted.second]
        traces = (
            Trace("data wait", tuple(map(float, second.steps)), second.values, SERIES[1], "."),
            Trace("step", xs, curve.values, SERIES[0], "*"),
        )
    else:
        traces = (Trace("each line", xs, curve.values, "muted", "."), Trace("smoothed", xs, curve.smoothed, SERIES[0]))
    return Plot(traces, levels(stage, charted), charted.form, from_zero=charted.from_zero, empty="no line yet")


def levels(stage: StageState, charted: Charted) -> tuple[Level, ...]:
    """The predicted step time, if it is near enough to share an axis with the real one."""
    if charted.field != "step_seconds":
        return ()
    found = [one for one in stage.compared if one.quantity == "step time" and one.predicted is not None]
    highest = max(stage.curves["step_seconds"].values, default=0.0)
    return tuple(
        Level(f"predicted {duration(one.predicted.likely)}", one.predicted.likely, "accent")
        for one in found
        if one.predicted is not None and one.predicted.likely < 4 * highest
    )


def compared(stage: StageState | None, width: int) -> Content:
    """Predicted and real figures as a table, then what is on disk."""
    if stage is None:
        return Content("")
    lines = [Content(_row("", "predicted", "from – to" if width >= _WITH_RANGE else "", "real"))]
    lines += [_compared_line(one, width) for one in stage.compared]
    kept = ", ".join(f"{step:,}" for step in stage.checkpoints) or "none yet"
    device = f" · {stage.device}" if stage.device else ""
    there = "" if stage.capacity_bytes is None else f" · {memory(stage.capacity_bytes)} there"
    lines.append(Content(f"checkpoints {kept}{device}{there}"))
    if stage.skipped:
        lines.append(Content(f"{stage.skipped} lines of metrics could not be read"))
    return Content("\n").join(lines)


_WITH_RANGE = 68
"""Columns from which the range has room."""
_MEANS = {"met": "$success", "within": "$success", "outside": "$warning", "unknown": "$foreground-muted"}


def _compared_line(one: Compared, width: int) -> Content:
    form = memory if one.is_bytes else duration
    predicted = "-" if one.predicted is None else form(one.predicted.likely)
    ends = "" if one.predicted is None else f"{form(one.predicted.low)} – {form(one.predicted.high)}"
    real = "-" if one.real is None else form(one.real)
    row = _row(
        one.quantity.removeprefix("allocated ").replace("reserved memory", "reserved"),
        predicted,
        ends if width >= _WITH_RANGE else "",
        real,
    )
    note = f" ({one.note})" if one.note and one.real is not None and width >= _WITH_RANGE + 20 else ""
    return Content.from_markup(f"$row[{_MEANS[one.standing]}]$verdict[/]$note", row=row, verdict=one.verdict, note=note)


def _row(name: str, predicted: str, ends: str, real: str) -> str:
    return f"{name:<10}{predicted:>9}{f' {ends:>19}' if ends else ''} {real:>9}  "


def memory(nbytes: float) -> str:
    """Bytes with their unit: a run on a CPU takes MiB, one on GPUs GiB."""
    return f"{nbytes / 2**20:.3g} MiB" if nbytes < GIB else f"{gib(nbytes)} GiB"
