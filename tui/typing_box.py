"""A box over the screen in which a value is typed or one of the settings is chosen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from sora_spec.plan.axes.axis import Axis
from sora_spec.plan.job import Job
from sora_spec.tui.rows import Cell, Line, RowList


class TypingBox(ModalScreen[str | None]):
    """One knob. Returns the words of a setting or the typed text, None where the user leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def __init__(self, axis: Axis, job: Job) -> None:
        super().__init__()
        self.axis, self.job = axis, job

    def compose(self) -> ComposeResult:
        """A line to type in where the knob takes one, and its settings."""
        shown, words = self.axis.shown(self.job), list(self.axis.settings(self.job))
        with Vertical(id="box"):
            yield Label(self.axis.help, id="help")
            if self.axis.read is not None:
                yield Input(shown.partition(" ")[0].replace("×", "x"), id="typed", compact=True)
            rows = RowList("enter chooses, escape leaves", "settings")
            rows.set_reactive(RowList.cursor, words.index(shown) if shown in words else 0)
            rows.set_lines([Line((Cell(word, "strong" if word == shown else "plain"),), (), word) for word in words])
            yield rows

    def on_mount(self) -> None:
        self.query_one("#box").border_title = self.axis.label
        self.query_one(Input if self.axis.read is not None else RowList).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        self.dismiss(str(message.line.value))

    def on_key(self, event: object) -> None:
        """From the line down to the settings."""
        if getattr(event, "key", "") == "down" and isinstance(self.focused, Input):
            self.query_one(RowList).focus()

    def action_leave(self) -> None:
        self.dismiss(None)
