"""Colours of what pieces of a row mean, made once from the theme.

They are no component classes: those would be worked out anew for every list, which is a quarter of the app's start.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.style import Style
from textual.color import Color

from sora_spec.plan.memory.meaning import Stretch

if TYPE_CHECKING:
    from textual.app import App


def style_of(app: App[object], role: str) -> Style:
    """Style of a role: `plain`, `strong`, `dim`, `stale`, `good`, `tight`, `bad`, `accent`, `free`, `cursor`, or a
    stretch of the bar."""
    values = app.theme_variables
    names = ("background", "foreground", "accent", "text-success", "text-warning", "text-error", "text-accent")
    return _styles(*(values[name] for name in names))[role]


@lru_cache(maxsize=32)
def _styles(
    background: str, foreground: str, accent: str, good: str, tight: str, bad: str, marked: str
) -> dict[str, Style]:
    ground, ink = Color.parse(background), Color.parse(foreground)

    def faint(share: float) -> str:
        return ground.blend(ink, share).hex6

    bars = {item.name: Style(color="#ffffff", bgcolor=item.colour, bold=True) for item in Stretch}
    return bars | {
        "plain": Style(),
        "strong": Style(bold=True),
        "dim": Style(color=faint(0.65)),
        "stale": Style(color=faint(0.5), italic=True),
        "good": Style(color=_hex(good), bold=True),
        "tight": Style(color=_hex(tight), bold=True),
        "bad": Style(color=_hex(bad), bold=True),
        "accent": Style(color=_hex(marked)),
        "free": Style(color=faint(0.45)),
        "cursor": Style(bgcolor=ground.blend(Color.parse(accent), 0.3).hex6, bold=True),
    }


def _hex(colour: str) -> str:
    return Color.parse(colour).hex6
