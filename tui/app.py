"""The application: which screens there are, what is planned when, and what every screen can do.

A question goes from a widget to `ask`, from there to a worker, and comes back as a `Planned` message, whose snapshot
widgets read when `SoraSpecApp.planned` changes. Nothing that takes longer than a key press runs on the event loop.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

from textual.app import App
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.markup import escape
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import Worker, WorkerState

from sora_spec.characters import visible
from sora_spec.language.source import Document
from sora_spec.plan.job import Question
from sora_spec.plan.question import Answer, advise, plan_of
from sora_spec.plan.search.advised import Advice
from sora_spec.plan.show.snapshot import Snapshot, snapshot_of
from sora_spec.tui.ending import listen
from sora_spec.tui.session import OpenSpec, Session, document_of
from sora_spec.tui.signs import AsciiOnly, Harmless

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
_RESIZE_DELAY = 0.2  # seconds without another size before everything is drawn once more
_WATCH_PERIOD = 1.0  # seconds between two looks at the files


def _screen(name: str) -> Callable[[], Screen[Any]]:
    def made() -> Screen[Any]:
        module, kind = PLACES[name]
        return getattr(import_module(module), kind)()

    return made


class Planned(Message):
    """A question has been answered."""

    def __init__(self, spec: OpenSpec, number: int, answer: Answer, snapshot: Snapshot, document: Document) -> None:
        super().__init__()
        self.spec, self.number, self.answer, self.snapshot, self.document = spec, number, answer, snapshot, document


class Advised(Message):
    """What would make it fit, or how much more fits, is known."""

    def __init__(self, spec: OpenSpec, number: int, advice: Advice) -> None:
        super().__init__()
        self.spec, self.number, self.advice = spec, number, advice


class SoraSpecApp(App[None]):
    """The planner."""

    TITLE = "sora-spec"
    CSS_PATH = Path(__file__).with_name("style.tcss")
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {name: _screen(name) for name in PLACES}
    DEFAULT_MODE = "planner"
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [  # pyright: ignore[reportIncompatibleVariableOverride]
        (0, "-narrow"),
        (110, "-wide"),
        (170, "-broad"),
    ]
    VERTICAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [  # pyright: ignore[reportIncompatibleVariableOverride]
        (0, "-low"),
        (23, "-normal"),
        (31, "-tall"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"show('{name}')", name.capitalize(), show=False)
            for number, name in enumerate(TABS, 1)
        ),
        Binding("question_mark,f1", "show('help')", "Help", key_display="?"),
        Binding("m", "pin", "Pin to compare", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+p", "command_palette", "All commands", show=False, priority=True),
    ]

    planned: reactive[int] = reactive(0)
    """Grows with every answer and every advice; screens watch it and read `session`."""

    def __init__(
        self,
        session: Session,
        ascii_only: bool = False,
        run_folders: Sequence[Path] = (Path("runs"),),
        screen: str = "planner",
        greet: bool = False,
    ) -> None:
        self.DEFAULT_MODE = screen  # pyright: ignore[reportAttributeAccessIssue] - read by the base class at once
        super().__init__()
        self.session = session
        self.ascii_only = ascii_only
        self.run_folders = tuple(run_folders)
        """Run folders, or folders of them, that the Runs screen follows."""
        self.came_from = "planner"
        """The screen before the present one."""
        self._greet = greet
        self._busy: set[int] = set()
        self._advice_timer: Timer | None = None
        self._settling: Timer | None = None
        self.left = False
        """Whether the user has left, and knows of texts that are not saved."""
        self._filters.append(Harmless())
        if ascii_only:
            self._filters.append(AsciiOnly())

    @property
    def spec(self) -> OpenSpec:
        return self.session.current

    @property
    def settled(self) -> bool:
        """Whether every question is answered and nothing is being worked out, but for what follows files."""
        answered = all(spec.fresh for spec in self.session.specs)
        working = any(worker.is_running and worker.group not in ("runs", "files") for worker in self.workers)
        return answered and not self._busy and not working and self.spec.advice is not None

    def on_mount(self) -> None:
        """Plan the spec that is shown, then the others; look after the files."""
        listen(self)
        self.set_class(self.ascii_only, "-ascii")
        if self.spec.fresh:
            self._answered()
        else:
            self.replan(self.spec)
        self.set_interval(_WATCH_PERIOD, self._look_at_files)
        self.set_timer(_WATCH_PERIOD, self._collect)
        if self._greet:
            from sora_spec.tui.memory import recall

            self.call_after_refresh(self._welcome, recall())

    @staticmethod
    def _collect() -> None:
        """Collect garbage again, which starting left alone; what is there by now stays, and is not looked through."""
        gc.freeze()
        gc.enable()

    def _welcome(self, known: dict[str, Any]) -> None:
        """What the user chose last time; an introduction the first time."""
        if known.get("theme") in self.available_themes:
            self.theme = known["theme"]
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        if not known.get("greeted"):
            from sora_spec.tui.memory import remember
            from sora_spec.tui.welcome import Welcome

            remember(greeted=True)
            self.push_screen(Welcome())

    def _remember_theme(self, theme: Any) -> None:
        from sora_spec.tui.memory import remember

        remember(theme=theme.name)

    def action_command_palette(self) -> None:
        """Every command by name."""
        from sora_spec.tui.commands import Palette

        if not Palette.is_open(cast("App[object]", self)):
            self.push_screen(Palette(id="--command-palette"))

    def notify(self, message: str, *, title: str = "", markup: bool = False, **settings: Any) -> None:
        """A note in the corner. Users' texts may hold brackets, so they are no markup unless the caller says so."""
        message, title = visible(message), visible(title)
        super().notify(message, title=title if markup else escape(title), markup=markup, **settings)

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """Textual's own commands, and every action of the app and of the screen."""
        from sora_spec.tui.commands import commands

        own = list(commands(self, screen))
        titles = {command.title for command in own} | {"Screenshot"}
        yield from own
        yield from (command for command in super().get_system_commands(screen) if command.title not in titles)

    def on_resize(self) -> None:
        """Look again when the size has settled."""
        if self._settling is not None:
            self._settling.stop()
        self._settling = self.set_timer(_RESIZE_DELAY, self._settle_size)

    def _settle_size(self) -> None:
        """Draw everything once more: what was on its way to the terminal while it changed its size stands in the wrong
        place, and a screen that was being switched to has missed the change."""
        if not self.is_running or not self.screen_stack:
            return  # the app is being left
        if self.screen.size != self.size:
            self.screen.post_message(Resize(self.size, self.size))
        self.screen.refresh()

    # Screens

    def action_show(self, name: str) -> None:
        """Go to a screen; asking for help again goes back."""
        if name == "help" and self.current_mode == "help":
            name = self.came_from
        if self.current_mode != name and len(self.screen_stack) == 1:
            self.came_from = self.current_mode
            self.switch_mode(name)

    async def action_quit(self) -> None:
        """Leave; ask first where a text is not saved."""
        unsaved = [spec.name for spec in self.session.specs if spec.unsaved]
        if not unsaved:
            self._leave()
            return
        from sora_spec.tui.boxes import Choice

        question = f"{', '.join(unsaved)}: the text is not saved."
        self.push_screen(
            Choice("Leave?", question, {"stay": "stay and save with ^s", "leave": "leave, and lose the changes"}),
            lambda answer: self._leave() if answer == "leave" else None,
        )

    def _leave(self) -> None:
        self.left = True
        self.exit()

    # Planning

    def ask(self, question: Question) -> None:
        if self.spec.ask(question):
            self.replan(self.spec)

    def replan(self, spec: OpenSpec) -> None:
        """Answer the newest question of a spec. One worker a spec: what is asked meanwhile is answered next."""
        if id(spec) in self._busy:
            return
        self._busy.add(id(spec))
        work = partial(self._plan, spec, spec.asked, spec.draft, spec.document, spec.question)
        self.run_worker(work, name="plan", group=f"plan {id(spec)}", thread=True, exit_on_error=False)

    def plan_first(self) -> None:
        """Answer the first question at once, before there is a screen: the first thing drawn is then the verdict."""
        spec = self.spec
        answer = plan_of(spec.document, spec.question)
        spec.take(answer, snapshot_of(answer), spec.document, spec.asked)

    def _plan(self, spec: OpenSpec, number: int, draft: str | None, document: Document, question: Question) -> None:
        if draft is not None and draft != document.text.content:
            document = document_of(document.text.name, draft)
        answer = plan_of(document, question)
        self.post_message(Planned(spec, number, answer, snapshot_of(answer), document))

    def on_planned(self, message: Planned) -> None:
        """Show an answer; answer what has been asked since."""
        spec = message.spec
        self._busy.discard(id(spec))
        spec.take(message.answer, message.snapshot, message.document, message.number)
        if not spec.fresh:
            self.replan(spec)
        self._answered()

    def _answered(self) -> None:
        self.planned += 1
        self._plan_unanswered()
        self._advise_soon()

    def _plan_unanswered(self) -> None:
        """One spec of the list after the other."""
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
        self.post_message(Advised(spec, number, advise(answer.plan, answer.spec)))

    def on_advised(self, message: Advised) -> None:
        """Keep advice that still belongs to what is shown."""
        if message.number == message.spec.answered:
            message.spec.advice = message.advice
            self.planned += 1

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that failed says so; the app goes on."""
        if event.state is not WorkerState.ERROR:
            return
        if event.worker.name == "plan":
            self._busy.discard(int(event.worker.group.removeprefix("plan ")))
        error = event.worker.error
        self.notify(f"{type(error).__name__}: {error}", title=f"{event.worker.name} failed", severity="error")

    def select_spec(self, index: int) -> None:
        """Look at another spec of the list."""
        if 0 <= index < len(self.session.specs) and index != self.session.index:
            self.session.index = index
            self.planned += 1
            self._advise_soon()

    def action_pin(self) -> None:
        """Put aside what is asked, for the Compare screen."""
        from sora_spec.tui.pins import pin

        pinned = pin(self.spec)
        if pinned is None:
            self.notify("there is no answer yet to pin")
            return
        self.session.pins = [*[old for old in self.session.pins if old.answer is not pinned.answer], pinned]
        self.notify(f"pinned for Compare (2): {pinned.label}", markup=False)
        self.planned += 1

    # Files

    def _look_at_files(self) -> None:
        if not self.screen_stack:
            return  # the app is ending
        if self.screen.size != self.size:  # the signal of a new size can be lost while screens are switched
            self._settle_size()
        if len(self.screen_stack) > 1:
            return  # a box is open: one question at a time
        from sora_spec.tui.files import look

        look(self)

    def action_write_spec(self) -> None:
        from sora_spec.tui.files import write_question

        write_question(self)

    def action_save_text(self) -> None:
        from sora_spec.tui.files import save_text

        save_text(self)

    def action_edit(self) -> None:
        from sora_spec.tui.files import edit

        edit(self)

    def action_export(self, form: str = "") -> None:
        """Write the plan into a file."""
        from sora_spec.tui.files import export, export_as

        if form:
            export_as(self, form)
        else:
            export(self)

    def action_copy_command(self) -> None:
        """Copy the command line that prints the same numbers, and show it."""
        from sora_spec.tui.files import copy_command

        copy_command(self)
