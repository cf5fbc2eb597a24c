"""Every key, taken from the bindings themselves, and what the words on the screens mean."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from sora_spec.plan.memory.meaning import Stretch
from sora_spec.tui.frame import Frame, planner_app
from sora_spec.tui.rows import Cell, Line, RowList
from sora_spec.tui.session import OpenSpec
from sora_spec.tui.signs import SIGNS

_PANELS = (
    ("sora_spec.tui.rows", "RowList", "Every list"),
    ("sora_spec.tui.planner", "KnobRows", "What if"),
    ("sora_spec.tui.tree", "Breakdown", "Where it goes"),
    ("sora_spec.tui.spec", "Editor", "The text of the Spec screen"),
)
_WORDS = (
    ("exact", "from the model graph, equal to PyTorch's trace to the byte"),
    ("documented", "published by PyTorch or NVIDIA"),
    ("estimated", "a range from measurements of others"),
    ("allocated", "what torch.cuda.max_memory_allocated will say"),
    ("reserved", "what torch.cuda.max_memory_reserved will say"),
    ("device", "what nvidia-smi shows: the verdict compares this"),
    ("FLOPs", "one pass on one device; a multiply-accumulate is 2"),
    ("params", "of the whole model, whatever a rank holds of them"),
)
_DISPLAY = {
    "question_mark": "?",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "minus": "-",
    "plus": "+",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}


class HelpScreen(Frame):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Back")]

    def body(self) -> ComposeResult:
        yield RowList("Keys and words", "keys", marked=False)

    def show_answer(self, spec: OpenSpec) -> None:
        """The keys do not depend on the spec."""
        self.query_one(RowList).set_lines(list(help_lines()))

    def action_back(self) -> None:
        app = planner_app(self)
        app.action_show(app.came_from)


def help_lines() -> Iterator[Line]:
    """Keys by where they work, then signs, letters and words."""
    for title, bindings in sections():
        yield Line((Cell(title, "accent"),))
        for keys, words in bindings:
            yield Line((Cell(f"  {keys:<22}", "strong"), Cell(words)))
        yield Line(())
    yield Line((Cell("Signs", "accent"),))
    for sign in SIGNS.values():
        yield Line((Cell(f"  {sign.mark:<22}", "strong"), Cell(sign.word)))
    yield Line(())
    yield Line((Cell("Letters of the bar", "accent"),))
    for stretch in Stretch:
        yield Line((Cell("  "), Cell(stretch.letter, stretch.name), Cell(f"{'':<21}{stretch.title}")))
    yield Line(())
    yield Line((Cell("Words", "accent"),))
    for word, meaning in _WORDS:
        yield Line((Cell(f"  {word:<22}", "strong"), Cell(meaning)))


def sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Titles with keys and what they do: of the app, of every screen, of the panels."""
    from sora_spec.tui.app import PLACES, SoraSpecApp

    yield "Everywhere", list(_keys(SoraSpecApp))
    for name, (module, kind) in PLACES.items():
        try:
            screen = getattr(import_module(module), kind)
        except ModuleNotFoundError:
            continue
        found = list(_keys(screen))
        if found:
            yield f"{name.capitalize()} screen", found
    for module, kind, title in _PANELS:
        yield title, list(_keys(getattr(import_module(module), kind)))


def _keys(owner: Any) -> Iterator[tuple[str, str]]:
    for binding in owner.__dict__.get("BINDINGS", ()):
        if isinstance(binding, Binding) and binding.description:
            yield "  ".join(shown(key.strip()) for key in binding.key.split(",")), binding.description


def shown(key: str) -> str:
    """A key as it is written on the keyboard."""
    return _DISPLAY.get(key, key.replace("ctrl+", "^"))
