"""What all screens have in common: the line of tabs above, the line of keys below, and how they hear of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from sora_spec.tui.signs import SIGNS

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp
    from sora_spec.tui.session import OpenSpec

PLOT_COLUMNS = [(0, "-narrow"), (72, "-normal"), (110, "-wide"), (160, "-vast")]
PLOT_ROWS = [(0, "-flat"), (22, "-middle"), (38, "-tall")]
"""Widths and heights at which a screen with plots is laid out anew."""


class Masthead(Widget):
    """Tabs on the left, the spec and its verdict on the right."""

    def render(self) -> Text:
        """One line."""
        from sora_spec.tui.app import TABS

        app, text = planner_app(self), Text(no_wrap=True, overflow="ellipsis")
        for number, name in enumerate(TABS, 1):
            style = "bold reverse" if app.current_mode == name else ""
            text.append(f" {number} {name.capitalize()} ", style)
        sign = SIGNS[app.spec.standing]
        right = f"{app.spec.name} {sign.mark} {sign.word} "
        space = self.size.width - text.cell_len - len(right)
        if space > 1:
            text.append(" " * space + right, "bold")
        return text

    def on_click(self, event: Click) -> None:
        from sora_spec.tui.app import TABS

        start = 0
        for number, name in enumerate(TABS, 1):
            start += len(f" {number} {name} ")
            if event.x < start:
                planner_app(self).action_show(name)
                return


class Frame(Screen[Any]):
    """A screen of the planner. Subclasses give `body` and `show_answer`."""

    def compose(self) -> ComposeResult:
        """Tabs, body, keys."""
        yield Masthead()
        yield from self.body()
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """What stands between the two lines."""
        return iter(())

    def on_mount(self) -> None:
        self.watch(self.app, "planned", self._heard)

    def on_screen_resume(self) -> None:
        """Show what was answered while another screen was in front."""
        self._heard()

    def _heard(self) -> None:
        if self.is_current:
            self.query_one(Masthead).refresh()
            self.show_answer(planner_app(self).spec)

    def show_answer(self, spec: OpenSpec) -> None:
        """A question was answered, advice was found, or another spec was chosen."""


def planner_app(widget: Widget) -> SoraSpecApp:
    """The app with its type."""
    return cast("SoraSpecApp", widget.app)
