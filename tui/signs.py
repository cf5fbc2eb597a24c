"""Signs beside words, and what stands for them on terminals without Unicode.

Nothing here is told by colour alone: every sign has its word, and every word its sign.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from sora_spec.characters import harmful


class Sign(NamedTuple):
    """How a verdict is shown."""

    mark: str
    word: str
    style: str
    """Name of the theme's colour: `success`, `warning`, `error` or `accent`."""


SIGNS = {
    "yes": Sign("✔", "fits", "success"),
    "tight": Sign("≈", "tight", "warning"),
    "no": Sign("✘", "does not fit", "error"),
    "cannot": Sign("✘", "unsupported", "error"),
    "errors": Sign("!", "has errors", "error"),
    "waiting": Sign("·", "planning", "accent"),
}
"""By `Answer.standing`; `waiting` until there is an answer."""

_ASCII = str.maketrans(
    {
        **dict.fromkeys("─━╌╍┄┅═▔▁▂▃‾", "-"),
        **dict.fromkeys("│┃║╎╏▏▎▍▕┆┇", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋╴╵╶╷╸╹╺╻", "+"),
        **dict.fromkeys("█▇▆▅▄▌▋▊▉▐▀■▪●◼▮▓▒", "#"),
        **dict.fromkeys("░▫□○◻▯◌", "."),
        **dict.fromkeys("▶►▸→❯›", ">"),
        **dict.fromkeys("◀◄◂←❮‹", "<"),
        **dict.fromkeys("▼▾↓", "v"),
        **dict.fromkeys("▲▴↑", "^"),
        **dict.fromkeys("•·∙⋅", "."),
        **dict.fromkeys("–—−", "-"),
        "×": "x",
        "÷": "/",
        "≈": "~",
        "≤": "<",
        "≥": ">",
        "✔": "+",
        "✓": "+",
        "✘": "x",
        "✗": "x",
        "…": "~",
        "³": "3",
        "²": "2",
        "Σ": "S",
        "↳": "+",
        "⏎": "<",
        "⭘": "o",
        "\u00a0": " ",
    }
)


def plain(text: str) -> str:
    """The text in ASCII, every character as wide as before."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else _braille(c) for c in text.translate(_ASCII))


def _braille(character: str) -> str:
    """Dots of a plot stay dots; anything unknown is shown as such."""
    return " " if character == "\u2800" else ("*" if "\u2800" < character <= "\u28ff" else "?")


class AsciiOnly(LineFilter):
    """The last step before the terminal: everything that any widget drew, in ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Translate what is not ASCII; control codes pass as they are."""
        return [
            Segment(plain(text), style, control) if control is None and not text.isascii() else segment
            for segment in segments
            for text, style, control in (segment,)
        ]


class Harmless(LineFilter):
    """Takes what drives a terminal out of what any widget drew: names and texts of files may hold anything."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Every such character becomes `?` in as many columns as the layout gave it, which is none for most."""
        return [
            segment if control is not None or text.isprintable() or not harmful(text) else Segment(_tamed(text), style)
            for segment in segments
            for text, style, control in (segment,)
        ]


def _tamed(text: str) -> str:
    return "".join("?" * cell_len(c) if harmful(c) or c in "\n\t" else c for c in text)


def unicode_allowed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal shows Unicode: not on the Linux console or a dumb one, and not where the locale denies it.

    Python turns the C locale into C.UTF-8 by setting LC_CTYPE (PEP 538), so an explicit LANG=C is asked for as well.
    """
    if environment.get("TERM", "") in ("linux", "dumb", "vt100", "vt220"):
        return False
    if environment.get("LC_ALL"):
        return _utf8(environment["LC_ALL"])
    kind, language = environment.get("LC_CTYPE", ""), environment.get("LANG", "")
    if kind == "C.UTF-8" and language in ("C", "POSIX"):
        return False
    return _utf8(kind or language or "UTF-8")


def _utf8(locale: str) -> bool:
    return "utf8" in locale.lower().replace("-", "")
