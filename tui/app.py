"""The application: which screens there are, what is planned when, and what every screen can do.

A question goes from a widget to `ask`, from there to a worker, and comes back as a `Planned` message, whose snapshot
widgets watch as `SoraSpecApp.planned`. Nothing that takes longer than a key press runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import Worker, WorkerState

from sora_spec.plan.snapshot import Snapshot, snapshot_of
from sora_spec.plan.whatif import Advice, Answer, WhatIf, advise, plan_of
from sora_spec.tui.session import OpenSpec, Session
from sora_spec.tui.signs import AsciiOnly

PLACES = {
    "planner": ("sora_spec.tui.planner", "PlannerScreen"),
    "compare": ("sora_spec.tui.compare", "CompareScreen"),
    "sweep": ("sora_spec.tui.sweep", "SweepScreen"),
    "spec": ("sora_spec.tui.spec", "SpecScreen"),
    "runs": ("sora_spec.tui.runs", "RunsScreen"),
    "help": ("sora_spec.tui.help", "HelpScreen"),
}
"""Module and class of every screen, imported when it is first shown."""
TABS = ("planner", "compare", "sweep", "spec", "runs")

_ADVICE_DELAY = 0.15  # seconds without a new question before fixes are searched


def _screen(name: str) -> Callable[[], Screen[Any]]:
    def made() -> Screen[Any]:
        module, kind = PLACES[name]
        return getattr(import_module(module), kind)()

    return made


class Planned(Message):
    """A question has been answered."""

    def __init__(self, spec: OpenSpec, number: int, answer: Answer, snapshot: Snapshot) -> None:
        super().__init__()
        self.spec, self.number, self.answer, self.snapshot = spec, number, answer, snapshot


class Advised(Message):
    """What would make it fit, or how much more fits, is known."""

    def __init__(self, spec: OpenSpec, number: int, advice: Advice) -> None:
        super().__init__()
        self.spec, self.number, self.advice = spec, number, advice


class SoraSpecApp(App[None]):
    """The planner."""

    TITLE = "sora-spec"
    CSS_PATH = "style.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {name: _screen(name) for name in PLACES}
    DEFAULT_MODE = "planner"
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]]] = [(0, "-narrow"), (110, "-wide"), (170, "-broad")]
    VERTICAL_BREAKPOINTS: ClassVar[list[tuple[int, str]]] = [(0, "-low"), (23, "-normal"), (31, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"show('{name}')", name.capitalize(), show=False)
            for number, name in enumerate(TABS, 1)
        ),
        Binding("question_mark,f1", "show('help')", "Help", key_display="?"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("q", "quit", "Quit"),
    ]

    planned: reactive[int] = reactive(0)
    """Grows with every answer and every advice; screens watch it and read `session`."""

    def __init__(
        self, session: Session, ascii_only: bool = False, run_folders: Sequence[Path] = (Path("runs"),)
    ) -> None:
        super().__init__()
        self.session = session
        self.ascii_only = ascii_only
        self.run_folders = tuple(run_folders)
        """Run folders, or folders of them, that the Runs screen follows."""
        self._busy: set[int] = set()
        self._advice_timer: Timer | None = None
        if ascii_only:
            self._filters.append(AsciiOnly())

    @property
    def spec(self) -> OpenSpec:
        """The spec that is looked at."""
        return self.session.current

    def on_mount(self) -> None:
        """Plan the spec that is shown, then the others."""
        self.set_class(self.ascii_only, "-ascii")
        self.replan(self.spec)

    def action_show(self, name: str) -> None:
        """Go to a screen."""
        if self.current_mode != name:
            self.switch_mode(name)

    # Planning

    def ask(self, whatif: WhatIf) -> None:
        """Ask another question of the current spec."""
        if self.spec.ask(whatif):
            self.replan(self.spec)

    def replan(self, spec: OpenSpec) -> None:
        """Answer the newest question of a spec. One worker a spec: what is asked meanwhile is answered next."""
        if id(spec) in self._busy:
            return
        self._busy.add(id(spec))
        work = partial(self._plan, spec, spec.asked, spec.document, spec.whatif)
        self.run_worker(work, name="plan", group=f"plan {id(spec)}", thread=True, exit_on_error=False)

    def _plan(self, spec: OpenSpec, number: int, document: Any, whatif: WhatIf) -> None:
        answer = plan_of(document, whatif)
        self.post_message(Planned(spec, number, answer, snapshot_of(answer)))

    def on_planned(self, message: Planned) -> None:
        """Show an answer; answer what has been asked since."""
        spec = message.spec
        self._busy.discard(id(spec))
        spec.take(message.answer, message.snapshot, message.number)
        if not spec.fresh:
            self.replan(spec)
        self.planned += 1
        self._plan_unanswered()
        self._advise_soon()

    def _plan_unanswered(self) -> None:
        """One spec of the list after the other, the current one first."""
        waiting = next((spec for spec in self.session.specs if spec.answer is None), None)
        if waiting is not None:
            self.replan(waiting)

    def _advise_soon(self) -> None:
        if self._advice_timer is not None:
            self._advice_timer.stop()
        self._advice_timer = self.set_timer(_ADVICE_DELAY, self._advise)

    def _advise(self) -> None:
        spec = self.spec
        if spec.fresh and spec.advice is None and spec.answer is not None:
            work = partial(self._find_advice, spec, spec.answered, spec.answer)
            self.run_worker(work, name="advice", group="advice", thread=True, exit_on_error=False)

    def _find_advice(self, spec: OpenSpec, number: int, answer: Answer) -> None:
        self.post_message(Advised(spec, number, advise(answer)))

    def on_advised(self, message: Advised) -> None:
        """Keep advice that still belongs to what is shown."""
        if message.number == message.spec.answered:
            message.spec.advice = message.advice
            self.planned += 1

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that failed says so; the app goes on."""
        if event.state is WorkerState.ERROR:
            self._busy.clear()
            error = event.worker.error
            self.notify(f"{type(error).__name__}: {error}", title=f"{event.worker.name} failed", severity="error")

    def select_spec(self, index: int) -> None:
        """Look at another spec of the list."""
        if 0 <= index < len(self.session.specs) and index != self.session.index:
            self.session.index = index
            self.planned += 1
            self._advise_soon()


def run(session: Session, ascii_only: bool = False, arguments: Sequence[str] = ()) -> None:
    """Open the app and stay until the user leaves."""
    SoraSpecApp(session, ascii_only).run()
