"""A box over the screen in which a value is typed or one of the settings is chosen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Input

from sora_spec.plan.axes.axis import Axis
from sora_spec.plan.job import Job
from sora_spec.tui.boxes import Box
from sora_spec.tui.rows import Cell, Line, RowList


class TypingBox(Box):
    """One knob. Returns the words of a setting or the typed text, None where the user leaves."""

    def __init__(self, axis: Axis, job: Job) -> None:
        super().__init__(axis.label, axis.help)
        self.axis, self.job = axis, job

    def content(self) -> ComposeResult:
        """A line to type in where the knob takes one, and its settings."""
        shown, words = self.axis.shown(self.job), list(self.axis.settings(self.job))
        if self.axis.read is not None:
            yield Input(shown.partition(" ")[0].replace("×", "x"), id="typed", compact=True)
        rows = RowList("enter chooses, escape leaves", "settings")
        rows.set_reactive(RowList.cursor, words.index(shown) if shown in words else 0)
        rows.set_lines([Line((Cell(word, "strong" if word == shown else "plain"),), (), word) for word in words])
        yield rows

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input if self.axis.read is not None else RowList).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        self.dismiss(str(message.line.value))

    def on_key(self, event: object) -> None:
        """From the line down to the settings."""
        if getattr(event, "key", "") == "down" and isinstance(self.focused, Input):
            self.query_one(RowList).focus()
