"""The Planner screen: specs, what-if knobs, verdict, where memory goes, time and cost, fixes."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from sora_spec.tui.frame import Frame
from sora_spec.tui.session import OpenSpec


class PlannerScreen(Frame):
    """What is asked, and what the planner says."""

    def body(self) -> ComposeResult:
        """Panels."""
        yield Static(id="verdict")

    def show_answer(self, spec: OpenSpec) -> None:
        """Redraw."""
        self.query_one("#verdict", Static).update(f"{spec.name}: {spec.standing}")
