"""A list of rows with a cursor: the one widget behind specs, knobs, the tree and the fixes.

Rows are drawn line by line and only where they are seen, so that an answer is on the screen within a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sora_spec.tui.palette import style_of


class Cell(NamedTuple):
    """A piece of a row. `palette` names the roles."""

    text: str
    role: str = "plain"


@dataclass(frozen=True)
class Line:
    """One row. `left` starts at the left edge, `right` ends at the right one and wins where they meet."""

    left: tuple[Cell, ...]
    right: tuple[Cell, ...] = ()
    value: Any = field(default=None, compare=False)
    """What the row stands for."""


class RowList(ScrollView, can_focus=True):
    """Rows, one of which has the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "jump(0)", "First", show=False),
        Binding("end,G", "jump(-1)", "Last", show=False),
        Binding("enter", "choose", "Choose", show=False),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, rows: RowList, line: Line) -> None:
            super().__init__()
            self.rows, self.line = rows, line

        @property
        def control(self) -> RowList:
            return self.rows

    class Chosen(Moved):
        """Enter, or a click on the row that has the cursor."""

    def __init__(self, title: str, id: str, empty: str = "", marked: bool = True) -> None:
        super().__init__(id=id)
        self.title = title
        self.empty = empty
        """What is shown where there are no rows."""
        self.marked = marked
        """Whether the cursor's row starts with a mark, for terminals without colour."""
        self.lines: tuple[Line, ...] = ()
        self._columns = ""
        self.border_title = title

    def head(self, title: str, columns: str = "") -> None:
        """Name the list, and at the right its columns."""
        self.title, self._columns = title, columns
        self._show_head()

    def _show_head(self) -> None:
        title = f"▸ {self.title}" if self.has_focus else self.title
        bar = 1 if self.show_vertical_scrollbar else 0
        gap = self.outer_size.width - len(title) - len(self._columns) - 4 - bar
        if not self._columns or gap < 0:
            self.border_title = Content(title)
        else:
            rule = Content.styled(f" {'─' * gap} ", "$foreground 25%")
            self.border_title = Content.assemble(title, rule, Content.styled(self._columns, "not bold $foreground 60%"))

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Show other rows; the cursor stays where it is as far as it can."""
        lines = tuple(lines)
        if lines == self.lines:
            self.lines = lines  # equal for the eye, but what they stand for may differ
            return
        self.lines = lines
        self.virtual_size = Size(self.size.width, len(lines))
        if lines and self.cursor >= len(lines):
            self.cursor = len(lines) - 1
        self.refresh()

    @property
    def line(self) -> Line | None:
        return self.lines[self.cursor] if 0 <= self.cursor < len(self.lines) else None

    def on_resize(self, event: Resize) -> None:
        self._show_head()
        self.virtual_size = Size(self.size.width, len(self.lines))
        self._show_cursor()

    def watch_cursor(self, _: int, now: int) -> None:
        self._show_cursor()
        self.refresh()
        if 0 <= now < len(self.lines):
            self.post_message(self.Moved(self, self.lines[now]))

    def _show_cursor(self) -> None:
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)

    def watch_has_focus(self, focused: bool) -> None:
        """Told by a mark in the title too, not by colour alone."""
        super().watch_has_focus(focused)
        self._show_head()

    def action_move(self, by: int) -> None:
        self.cursor = min(max(self.cursor + by, 0), max(0, len(self.lines) - 1))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 1))

    def action_jump(self, to: int) -> None:
        self.cursor = to if to >= 0 else max(0, len(self.lines) - 1)

    def action_choose(self) -> None:
        if self.line is not None:
            self.post_message(self.Chosen(self, self.line))

    def on_click(self, event: Click) -> None:
        """A first click moves the cursor, a second one chooses."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = offset.y + self.scroll_offset.y
        if not 0 <= index < len(self.lines):
            return
        again, self.cursor = index == self.cursor, index
        if not self.clicked(self.lines[index], offset.x) and again:
            self.action_choose()

    def clicked(self, line: Line, x: int) -> bool:
        """A click on a row at column x; True if that was all there is to it. For subclasses."""
        return False

    def render_line(self, y: int) -> Strip:
        index, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        base = self.rich_style
        if index >= len(self.lines):
            text = self.empty if index == 0 else ""
            return Strip([Segment(text, self._style("dim", base))]).adjust_cell_length(width, base)
        here = index == self.cursor
        if here:
            base += style_of(self.app, "cursor" if self.has_focus else "strong")
        return self._strip(self.lines[index], here, width, base)

    def _strip(self, line: Line, here: bool, width: int, base: Style) -> Strip:
        mark = ("▸" if here else " ") if self.marked else ""
        left = [Segment(mark, base), *(Segment(cell.text, self._style(cell.role, base)) for cell in line.left)]
        margin = [Segment(" ", base)] if line.right else []
        right = Strip([*(Segment(cell.text, self._style(cell.role, base)) for cell in line.right), *margin])
        room = width - right.cell_length - (1 if line.right else 0)
        found = Strip(left)
        if found.cell_length > room and room > 1:
            found = Strip.join([found.crop(0, room - 1), Strip([Segment("…", base)])])
        return Strip.join([found.adjust_cell_length(max(0, width - right.cell_length), base), right])

    def _style(self, role: str, base: Style) -> Style:
        return base if role == "plain" else base + style_of(self.app, role)


class Lines(RowList, can_focus=False):
    """Rows that are only read."""

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, title: str, id: str) -> None:
        super().__init__(title, id, marked=False)
        self.set_reactive(RowList.cursor, -1)

    def _show_cursor(self) -> None:
        """There is none."""

    def on_click(self, event: Click) -> None:
        """Nothing to choose."""
