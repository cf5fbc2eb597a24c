"""Small boxes over the screen: a choice, a line to type, a text to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from sora_spec.tui.rows import Cell, Line, RowList


class Box(ModalScreen[str | None]):
    """A titled box; escape leaves it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def __init__(self, title: str, text: str = "") -> None:
        super().__init__()
        self.heading, self.text = title, text

    def compose(self) -> ComposeResult:
        """Title, text, and what subclasses put below."""
        with Vertical(id="box"):
            if self.text:
                yield Label(self.text, id="help", markup=False)
            yield from self.content()

    def content(self) -> ComposeResult:
        """What stands below the text."""
        return iter(())

    def on_mount(self) -> None:
        self.query_one("#box").border_title = self.heading

    def action_leave(self) -> None:
        self.dismiss(None)


class Choice(Box):
    """One of several; returns its key."""

    def __init__(self, title: str, text: str, choices: Mapping[str, str]) -> None:
        super().__init__(title, text)
        self.choices = choices

    def content(self) -> ComposeResult:
        rows = RowList("enter chooses, escape leaves", "settings")
        rows.set_lines([Line((Cell(words),), (), key) for key, words in self.choices.items()])
        yield rows

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(RowList).focus()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        self.dismiss(str(message.line.value))


class Typed(Box):
    """A line to type; returns it."""

    def __init__(self, title: str, text: str, value: str) -> None:
        super().__init__(title, text)
        self.value = value

    def content(self) -> ComposeResult:
        yield Input(self.value, id="typed", compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class Shown(Box):
    """A text to read and to select from."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space,q", "leave", "Close", show=False)]

    def __init__(self, title: str, text: str, shown: str) -> None:
        super().__init__(title, text)
        self.shown = shown

    def content(self) -> ComposeResult:
        yield Static(self.shown, id="shown", markup=False)
