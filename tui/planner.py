"""The Planner screen: specs, what-if knobs, verdict, where memory goes, time and cost, fixes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical

from sora_spec.errors import UserError
from sora_spec.language.span import Text
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.axes.axis import Axis
from sora_spec.plan.job import Job
from sora_spec.plan.question import with_advice
from sora_spec.plan.search.advised import Advised
from sora_spec.plan.show.breakdown import OpRow, Row, breakdown
from sora_spec.plan.show.snapshot import Snapshot
from sora_spec.tui.frame import Frame, planner_app
from sora_spec.tui.numbers import gib
from sora_spec.tui.rows import Cell, Line, Lines, RowList
from sora_spec.tui.session import OpenSpec
from sora_spec.tui.signs import SIGNS
from sora_spec.tui.tree import Breakdown, header
from sora_spec.tui.verdict import fix_lines, problem_lines, time_lines, verdict_lines

_ROLES = {"yes": "good", "tight": "tight", "no": "bad", "cannot": "bad", "errors": "bad", "waiting": "dim"}


class SpecRows(RowList):
    """The specs with their standing."""

    def show(self, specs: list[OpenSpec], index: int) -> None:
        lines = [self._line(spec, number == index) for number, spec in enumerate(specs)]
        self.set_lines(lines)
        if self.cursor != index:
            self.cursor = index

    def _line(self, spec: OpenSpec, current: bool) -> Line:
        sign, role = SIGNS[spec.standing], _ROLES[spec.standing]
        name = spec.name + ("*" if spec.unsaved else "")
        return Line(
            (Cell(f"{sign.mark} ", role), Cell(name, "strong" if current else "plain")), (Cell(sign.word, role),), spec
        )


class KnobRows(RowList):
    """The knobs: left and right turn one, enter types a value or lists the settings."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h,minus", "turn(-1)", "Lower", show=False),
        Binding("right,l,plus", "turn(1)", "Higher", show=False),
    ]

    def __init__(self, id: str) -> None:
        super().__init__("What if", id, empty="no plan to change")
        self.job: Job | None = None

    def show(self, now: Job | None, first: Job | None) -> None:
        """Every knob that has an effect, with its value; changed ones are marked."""
        self.job = now
        if now is None:
            self.set_lines([])
            return
        knobs = [axis for axis in AXES.values() if axis.applies(now)]
        here = self.line.value.key if self.line is not None else None
        self.set_lines([self._line(knob, now, first) for knob in knobs])
        moved = next((i for i, knob in enumerate(knobs) if knob.key == here), None)
        if moved is not None and moved != self.cursor:
            self.cursor = moved

    def _line(self, knob: Axis, now: Job, first: Job | None) -> Line:
        shown = knob.shown(now)
        changed = first is not None and knob.applies(first) and knob.shown(first) != shown
        label = Cell(f"{knob.label}{' *' if changed else ''}", "accent" if changed else "plain")
        value = Cell(f" {shown} ", "strong" if changed else "plain")
        return Line((label,), (Cell("◂", "dim"), value, Cell("▸", "dim")), knob)

    @property
    def knob(self) -> Axis | None:
        return self.line.value if self.line is not None else None

    def turn(self, knob: Axis, way: Literal[-1, 1]) -> None:
        """Ask for the next setting."""
        change = None if self.job is None else knob.step(self.job, way)
        if self.job is None or change is None:
            self.app.bell()
        else:
            planner_app(self).ask(change.asked(planner_app(self).spec.question, self.job))

    def action_turn(self, way: Literal[-1, 1]) -> None:
        """The knob with the cursor, up or down."""
        if self.knob is not None:
            self.turn(self.knob, way)

    def clicked(self, line: Line, x: int) -> bool:
        """The two triangles turn the knob."""
        width = self.scrollable_content_region.width
        start = width - 1 - sum(len(cell.text) for cell in line.right)
        if x == start or x >= width - 2:
            self.turn(line.value, -1 if x == start else 1)
            return True
        return False


class PlannerScreen(Frame):
    """What is asked, and what the planner says."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "turn(-1)", "Turn", key_display="[ ]"),
        Binding("right_square_bracket", "turn(1)", "Turn up", show=False),
        Binding("u", "undo", "Undo"),
        Binding("ctrl+r", "redo", "Redo", show=False),
        Binding("r", "reset", "Reset", show=False),
        Binding("n", "next_spec(1)", "Next spec", show=False),
        Binding("N,b", "next_spec(-1)", "Previous spec", show=False),
        Binding("p", "phase", "Phase"),
        Binding("f", "to('fixes')", "Fixes"),
        Binding("w", "to('knobs')", "What if", show=False),
        Binding("t", "to('tree')", "Where it goes", show=False),
        Binding("s", "to('specs')", "Specs", show=False),
        Binding("c", "app.copy_command", "Copy"),
        Binding("x", "app.export", "Export"),
        Binding("ctrl+s", "app.write_spec", "Write", key_display="^s"),
        Binding("e", "app.edit", "Editor", show=False),
    ]
    AUTO_FOCUS = "#knobs"

    def __init__(self) -> None:
        super().__init__()
        self._phase: int | None = None
        """Number of the phase that the tree shows; None for the one that needs most."""

    def body(self) -> ComposeResult:
        """Left what is asked, right what comes of it."""
        with Horizontal(id="planner"):
            with Vertical(id="asked"):
                yield SpecRows("Specs", "specs")
                yield KnobRows("knobs")
                yield Lines("Phases", "phases")
            with Container(id="answer"):
                with Vertical(id="where"):
                    yield Lines("Verdict", "verdict")
                    yield Breakdown("tree")
                    yield Lines("", "detail")
                with Vertical(id="means"):
                    yield Lines("Time and cost", "time")
                    yield RowList("Fixes", "fixes")
                    yield Lines("Assumed (=) and not counted (-)", "notes")

    # Showing

    def show_answer(self, spec: OpenSpec) -> None:
        """Everything anew; rows that are the same are not drawn again."""
        self.query_one(SpecRows).show(planner_app(self).session.specs, planner_app(self).session.index)
        self.query_one(KnobRows).show(spec.job, spec.first)
        snapshot, stale = spec.shown, spec.stale
        self._show_verdict(spec, snapshot, stale)
        if snapshot is None:
            return
        self._show_tree(spec, snapshot, stale)
        self._show_means(spec, snapshot, stale)

    def _show_verdict(self, spec: OpenSpec, snapshot: Snapshot | None, stale: bool) -> None:
        panel = self.query_one("#verdict", Lines)
        width = panel.size.width
        lines = list[Line]()
        newest = spec.snapshot
        if newest is not None and newest.plan is None:
            lines += problem_lines(newest, width)
            keep = max(1, panel.size.height - (3 if snapshot is not None else 0))
            lines = lines[:keep]
        if snapshot is not None:
            app = planner_app(self)
            lines += verdict_lines(snapshot, width, app.ascii_only or app.no_color, stale)
        panel.set_lines(lines[: panel.size.height] or [Line((Cell("planning …", "dim"),))])

    def _show_tree(self, spec: OpenSpec, snapshot: Snapshot, stale: bool) -> None:
        tree = self.query_one(Breakdown)
        rows, plan = snapshot.rows, snapshot.plan
        title = "Where it goes"
        if plan is not None:
            phase = plan.peak
            if self._phase is not None and self._phase < len(plan.phases):
                phase = plan.phases[self._phase]
                rows = breakdown(plan, phase, spec.answered_document)
            title = f"Where it goes: {phase.name}"
            if tree.size.width < 56:
                title = "Where it goes" if phase is plan.peak else phase.name
        tree.head(title, header(tree.size.width))
        tree.show(rows, plan, stale)
        self._show_detail()

    def _show_detail(self) -> None:
        detail = self.query_one("#detail", Lines)
        branch = self.query_one(Breakdown).branch
        detail.set_lines(detail_lines(planner_app(self).spec, branch, detail.size.height))

    def _show_means(self, spec: OpenSpec, snapshot: Snapshot, stale: bool) -> None:
        time = self.query_one("#time", Lines)
        time.set_lines(time_lines(snapshot, time.size.width, stale)[: time.size.height])
        fixes = self.query_one("#fixes", RowList)
        fixes.head("What else fits" if snapshot.plan is not None and snapshot.plan.fits else "Fixes", "GiB    time")
        fixes.set_lines(fix_lines(snapshot, None if stale else spec.advice))
        phases = self.query_one("#phases", Lines)
        if phases.display:
            phases.head("Phases", phase_header(phases.size.width))
            phases.set_lines(phase_lines(snapshot, self._phase, phases.size.width))
        notes = self.query_one("#notes", Lines)
        if notes.display:
            notes.set_lines(note_lines(snapshot, notes.size.width))

    def on_resize(self) -> None:
        """Bars and columns follow the width, once the panels have theirs."""
        self.call_after_refresh(self._heard)

    # Acting

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """The list of specs chooses by moving; the tree explains the row."""
        if message.rows.id == "specs":
            planner_app(self).select_spec(message.rows.cursor)
        elif message.rows.id == "tree":
            self._show_detail()
        elif message.rows.id == "knobs" and isinstance(message.line.value, Axis):
            message.rows.tooltip = message.line.value.help

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        value: Any = message.line.value
        if isinstance(value, Axis):
            self._type(value)
        elif isinstance(value, Advised):
            self.apply(value, "".join(cell.text for cell in message.line.left))
        elif isinstance(value, OpenSpec):
            self.query_one(KnobRows).focus()

    def apply(self, advised: Advised, words: str) -> None:
        """Ask for what was advised."""
        app = planner_app(self)
        snapshot = app.spec.good
        if snapshot is not None and snapshot.plan is not None:
            app.ask(with_advice(app.spec.question, advised, snapshot.plan))
            app.notify(words.strip(), title="Applied; u takes it back", timeout=3)

    def _type(self, knob: Axis) -> None:
        job = self.query_one(KnobRows).job
        if job is None:
            return
        from sora_spec.tui.typing_box import TypingBox

        def take(text: str | None) -> None:
            if text is None:
                return
            try:
                planner_app(self).ask(knob.enter(job, text).asked(planner_app(self).spec.question, job))
            except UserError as error:
                self.notify(error.hint or "", title=error.message, severity="error")

        self.app.push_screen(TypingBox(knob, job), take)

    def action_turn(self, way: Literal[-1, 1]) -> None:
        """Turn the knob that has the cursor, wherever the focus is."""
        self.query_one(KnobRows).action_turn(way)

    def action_undo(self) -> None:
        """Ask the question before."""
        self._travel(planner_app(self).spec.undo())

    def action_redo(self) -> None:
        """Ask what undo took back."""
        self._travel(planner_app(self).spec.redo())

    def _travel(self, moved: bool) -> None:
        app = planner_app(self)
        if moved:
            app.replan(app.spec)
        else:
            self.app.bell()

    def action_reset(self) -> None:
        app = planner_app(self)
        app.ask(app.spec.beginning)

    def action_next_spec(self, by: int) -> None:
        app = planner_app(self)
        app.select_spec((app.session.index + by) % len(app.session.specs))

    def action_phase(self) -> None:
        """The tree of the next phase; after the last one that of the peak again."""
        app = planner_app(self)
        snapshot = app.spec.shown
        if snapshot is None:
            return
        following = 0 if self._phase is None else self._phase + 1
        self._phase = following if following < len(snapshot.phases) else None
        self.show_answer(app.spec)

    def action_to(self, panel: str) -> None:
        self.query_one(f"#{panel}").focus()


def detail_lines(spec: OpenSpec, branch: Row | OpRow | None, rows: int) -> list[Line]:
    """The YAML line that a row of the tree comes from, and how its number is reckoned."""
    if branch is None:
        return []
    if isinstance(branch, OpRow):
        return [Line((Cell(f"{branch.op}: ", "accent"), Cell(branch.formula)))]
    tag = f"{branch.tag} · " if branch.tag else ""
    formula = Line((Cell(tag, "accent"), Cell(branch.formula, "dim")))
    if not branch.path:
        return [Line((Cell("no line of the spec decides this", "dim"),)), formula]
    if branch.line is None:
        given = spec.question.given(branch.path)
        return [Line((Cell("what if ", "accent"), Cell(f"{branch.path}={given}" if given else branch.path))), formula]
    text = spec.answered_document.text
    if branch.line > len(text.starts()):  # typed over since: the tree is that of the last text that was planned
        return [Line((Cell("the text has changed, and this is not planned anew yet", "dim"),)), formula]
    source = text.line(branch.line).strip()
    first = Line((Cell(f"line {branch.line} ", "accent"), Cell(source)))
    if rows < 8:
        return [first, formula]
    return [formula, Line(()), *_excerpt(text, branch.line, rows - 2)]


def _excerpt(text: Text, line: int, rows: int) -> list[Line]:
    """The lines around one of the spec."""
    last = len(text.starts())
    start = max(1, min(line - rows // 2, last - rows + 1))
    return [
        Line(
            (
                Cell(f"{'▸' if n == line else ' '}{n:>3} ", "accent"),
                Cell(text.line(n), "strong" if n == line else "dim"),
            )
        )
        for n in range(start, min(start + rows, last + 1))
    ]


def phase_header(width: int) -> str:
    """Names of the columns."""
    return "allocated  device" if width < 50 else "allocated  reserved    device"


def phase_lines(snapshot: Snapshot, chosen: int | None, width: int) -> list[Line]:
    """Each phase with what PyTorch allocates, what it reserves and what is gone from the device."""
    lines = list[Line]()
    for number, phase in enumerate(snapshot.phases):
        shown = number == chosen or (chosen is None and phase.peak)
        columns = (phase.allocated, phase.device) if width < 50 else (phase.allocated, phase.reserved, phase.device)
        values = "".join(f"{gib(column.likely):>8}  " for column in columns)[:-2]
        role = "strong" if phase.peak else "plain"
        name = phase.name.replace("forward and backward", "fwd + back") if width < 50 else phase.name
        peak = " (peak)" if phase.peak and width >= 40 else ""
        lines.append(Line((Cell("▸" if shown else " "), Cell(name + peak, role)), (Cell(values, role),)))
    return lines


def note_lines(snapshot: Snapshot, width: int) -> list[Line]:
    """What was taken for granted and what is left out."""
    from textwrap import wrap

    if snapshot.plan is None:
        return []
    lines = list[Line]()
    for sign, entries in (("=", snapshot.plan.assumptions), ("-", snapshot.plan.not_counted)):
        for entry in entries:
            rows = wrap(entry, max(width - 2, 10))
            lines += [
                Line((Cell(f"{sign if i == 0 else ' '} ", "accent"), Cell(row, "dim"))) for i, row in enumerate(rows)
            ]
    return lines
