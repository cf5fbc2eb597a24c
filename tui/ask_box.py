"""A box over the screen in which one line is typed; what cannot be understood is said there."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from sora_spec.errors import UserError


class AskBox(ModalScreen[str | None]):
    """Returns the typed text once `check` takes it without a UserError; None where the user leaves."""

    DEFAULT_CSS = """
    AskBox { align: center middle; background: $background 50%; }
    AskBox > Vertical {
        width: 64; max-width: 95%; height: auto; padding: 0 1;
        border: round $accent; border-title-color: $accent; background: $surface;
    }
    AskBox Label { width: 100%; color: $foreground 70%; }
    AskBox .wrong { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def __init__(self, title: str, help: str, value: str, check: Callable[[str], object]) -> None:
        super().__init__()
        self.heading, self.help, self.value, self.check = title, help, value, check

    def compose(self) -> ComposeResult:
        """Help, the line, and room for what is wrong with it."""
        with Vertical() as box:
            box.border_title = self.heading
            yield Label(self.help, markup=False)
            yield Input(self.value, compact=True)
            yield Label("enter takes it, escape leaves", id="answer", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            self.check(event.value)
        except UserError as error:
            answer = self.query_one("#answer", Label)
            answer.update(Content(error.message + (f"\n{error.hint}" if error.hint else "")))
            answer.add_class("wrong")
            return
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)
