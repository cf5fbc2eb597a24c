"""The Spec screen: the YAML with its problems in the margin, planned anew while one types."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip
from textual.timer import Timer
from textual.widgets import TextArea

from sora_spec.characters import visible_name
from sora_spec.language.diagnostics import Diagnostic
from sora_spec.tui.files import packaged
from sora_spec.tui.frame import Frame, planner_app
from sora_spec.tui.palette import style_of
from sora_spec.tui.rows import Cell, Line, Lines, RowList
from sora_spec.tui.session import OpenSpec
from sora_spec.tui.verdict import verdict_lines

_PAUSE = 0.08  # seconds without a key before the text is planned
_MARKS = {"error": "✘", "warning": "!"}


class Editor(TextArea):
    """The text, with a mark beside the number of every line that has a problem."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "screen.focus_problems", "Out of the text", show=False, priority=True),
    ]
    marks: reactive[dict[int, str]] = reactive(dict[int, str], init=False)
    """Severity by line, from 0."""

    def render_line(self, y: int) -> Strip:
        """A line with its mark between its number and its text."""
        strip = super().render_line(y)
        if not self.marks:
            return strip
        offset = y + self.scroll_offset.y
        if offset >= len(self.wrapped_document._offset_to_line_info):
            return strip
        line, section = self.wrapped_document._offset_to_line_info[offset]
        severity = self.marks.get(line)
        if severity is None or section:
            return strip
        width = self.gutter_width
        style = style_of(self.app, "bad" if severity == "error" else "tight")
        head, tail = strip.crop(0, width - 2), strip.crop(width - 1)
        under = next(iter(strip.crop(width - 2, width - 1)), Segment(" "))
        base = under.style
        return Strip.join([head, Strip([Segment(_MARKS[severity], (base + style) if base else style)]), tail])


class SpecScreen(Frame):
    """Edit and see what comes of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "app.save_text", "Save", key_display="^s", priority=True),
        Binding("e", "app.edit", "Editor"),
        Binding("i", "focus_text", "Edit here"),
        Binding("ctrl+g", "next_problem", "Next problem", key_display="^g", priority=True),
        Binding("ctrl+w", "app.write_spec", "Write what-if", show=False),
        Binding("c", "app.copy_command", "Copy", show=False),
    ]
    AUTO_FOCUS = "Editor"

    def __init__(self) -> None:
        super().__init__()
        self._spec: OpenSpec | None = None
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        """The text, and beside or below it what the planner says."""
        with Container(id="editing"):
            editor = Editor(
                "", id="text", show_line_numbers=True, tab_behavior="indent", soft_wrap=False, compact=True, theme="css"
            )
            if "yaml" in editor.available_languages:
                editor.language = "yaml"
            editor.indent_width = 2
            yield editor
            with Vertical(id="beside"):
                yield Lines("Verdict", "verdict")
                yield RowList("Problems", "problems", empty="none")

    def on_mount(self) -> None:
        """Hear of answers; colours follow the theme."""
        super().on_mount()
        self.app.theme_changed_signal.subscribe(self, lambda _: self._colour())
        self._colour()

    def _colour(self) -> None:
        dark = self.app.current_theme.dark
        self.query_one(Editor).theme = "vscode_dark" if dark else "github_light"

    def show_answer(self, spec: OpenSpec) -> None:
        """The text of the spec that is looked at, its problems and its verdict."""
        editor = self.query_one(Editor)
        if spec is not self._spec or editor.text != spec.content:
            self._take(spec, editor)
        own = list(spec.answer.diagnostics) if spec.answer is not None else []
        editor.marks = _marks(own)
        self._show_problems(spec, own)
        panel = self.query_one("#verdict", Lines)
        app = planner_app(self)
        lines = list[Line]()
        if spec.good is not None:
            lines = verdict_lines(spec.good, panel.size.width, app.ascii_only or app.no_color, spec.stale)
        panel.set_lines(lines[: panel.size.height] or [Line((Cell("no plan yet", "dim"),))])
        panel.set_class(not lines, "-bare")

    def _take(self, spec: OpenSpec, editor: Editor) -> None:
        """Show another text. Typing goes on where it was, if it is the same file."""
        place = editor.cursor_location if spec is self._spec else (0, 0)
        self._spec = spec
        with self.prevent(TextArea.Changed):
            editor.load_text(spec.content)
        row = min(place[0], editor.document.line_count - 1)
        editor.cursor_location = (row, min(place[1], len(editor.document.get_line(row))))
        self._entitle(spec)

    def _entitle(self, spec: OpenSpec) -> None:
        editor = self.query_one(Editor)
        mark, state = "▸ " if editor.has_focus else "", " * not saved" if spec.unsaved else ""
        origin = " (packaged)" if packaged(spec) else ""
        editor.border_title = Content(f"{mark}{visible_name(spec.argument)}{origin}{state}")

    def on_descendant_focus(self) -> None:
        """The title says whether keys go into the text."""
        if self._spec is not None:
            self._entitle(self._spec)

    on_descendant_blur = on_descendant_focus

    def _show_problems(self, spec: OpenSpec, own: list[Diagnostic]) -> None:
        rows = self.query_one("#problems", RowList)
        width = rows.scrollable_content_region.width - 1
        lines = list[Line]()
        if spec.snapshot is not None and spec.snapshot.problem:
            lines += _problem(None, "no plan", spec.snapshot.problem, spec.snapshot.hint, width, "bad")
        for item in own:
            role = "bad" if item.severity == "error" else "tight"
            inside = item.span is not None and item.span.text.origin != "argument"
            place = f"line {item.span.line}" if item.span is not None and inside else "what if"
            lines += _problem(
                item, f"{_MARKS[item.severity]} {item.code} {place}", item.message, item.help, width, role
            )
        rows.head(
            f"Problems: {len(own)}" if own else "Problems", "last good plan shown" if spec.stale and spec.good else ""
        )
        rows.set_lines(lines)
        self._entitle(spec)

    # Editing

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """A key was typed: keep the text at once, and plan it when the typing pauses."""
        spec = self._spec
        if spec is None or not spec.write(event.text_area.text):
            return
        if not spec.unsaved:
            spec.unsaved = True
            self._entitle(spec)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_PAUSE, self._plan)

    def _plan(self) -> None:
        spec = self._spec
        if spec is not None and not spec.fresh:
            planner_app(self).replan(spec)

    def on_screen_suspend(self) -> None:
        """What has been typed is planned before another screen shows it."""
        if self._timer is not None:
            self._timer.stop()
        self._plan()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        item = message.line.value
        if isinstance(item, Diagnostic):
            self._go_to(item)

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Show the place of a problem while the list is walked."""
        item = message.line.value
        if message.rows.has_focus and isinstance(item, Diagnostic) and _place(item) is not None:
            self.query_one(Editor).cursor_location = _place(item) or (0, 0)

    def _go_to(self, item: Diagnostic) -> None:
        place, editor = _place(item), self.query_one(Editor)
        if place is not None and place[0] < editor.document.line_count:
            editor.cursor_location = place
            editor.focus()

    def action_next_problem(self) -> None:
        """To the next problem behind the cursor, from the last one to the first."""
        editor, spec = self.query_one(Editor), self._spec
        found = [item for item in (spec.answer.diagnostics if spec and spec.answer else ()) if _place(item) is not None]
        if not found:
            self.app.bell()
            return
        behind = (item for item in found if (_place(item) or (0, 0)) > editor.cursor_location)
        self._go_to(next(behind, found[0]))

    def action_focus_problems(self) -> None:
        """Out of the text, to where single keys are commands again."""
        self.query_one("#problems").focus()

    def action_focus_text(self) -> None:
        self.query_one(Editor).focus()


def _marks(items: list[Diagnostic]) -> dict[int, str]:
    """Severity by line; an error counts more than a warning."""
    found: dict[int, str] = {}
    for item in items:
        place = _place(item)
        if place is not None and found.get(place[0]) != "error":
            found[place[0]] = item.severity
    return found


def _place(item: Diagnostic) -> tuple[int, int] | None:
    """Row and column in the text, from 0; None for what an argument brought."""
    span = item.span
    if span is None or span.text.origin == "argument":
        return None
    return span.line - 1, span.column - 1


def _problem(item: Diagnostic | None, head: str, message: str, help: str | None, width: int, role: str) -> list[Line]:
    from textwrap import wrap

    lines = [Line((Cell(head, role),), (), item)]
    lines += [Line((Cell("  " + row),), (), item) for row in wrap(message, max(width - 2, 10))]
    return lines + [Line((Cell("  " + row, "dim"),), (), item) for row in wrap(help or "", max(width - 2, 10))]
