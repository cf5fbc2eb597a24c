"""What the Runs screen shows at one moment: run folders as they were read, in words and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from textual.content import Content

from sora_spec.errors import UserError
from sora_spec.plan.amounts import GIB, duration
from sora_spec.tui.charts import SERIES, Level, Plot, Trace, number, seconds
from sora_spec.tui.numbers import gib, percent
from sora_spec.tui.pictures import Frames, thumbnails
from sora_spec.tui.rows import Cell, Line
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
        stage="VAE" if stage.name == "vae" else "denoiser",
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
