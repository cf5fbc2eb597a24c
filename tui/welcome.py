"""What a user sees at the first start, once."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from sora_spec.tui.boxes import Shown

_TEXT = """\
Left: the specs, and what can be asked of the one in front.
Right: whether it fits, where memory goes, time, cost, fixes.

  ↑ ↓     choose a knob        ← →     turn it
  enter   type its value       tab     to the next panel
  enter   on a fix applies it  u       takes it back
  1 … 5   the other screens    ctrl+p  every command by name
  c       the same as a command line, ready to paste
  ^s      writes what you found into the spec
  ?       every key            q       leaves

The mouse works too: ◂ and ▸ turn a knob, tabs change the screen.
Nothing is trained, downloaded or written unless you ask for it."""


class Welcome(Shown):
    """The introduction."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,q,n,y", "leave", "Close", show=False)]

    def __init__(self) -> None:
        super().__init__("The planner in the terminal", "", _TEXT + "\n\n[ enter begins ]")
