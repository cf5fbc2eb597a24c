"""Which characters may reach a terminal as they are, and what stands for those that may not.

A name, a label or a text from a file may hold characters that drive a terminal (an escape sequence can write the
clipboard), turn its neighbours round (bidirectional overrides) or hide. They are shown as escapes: `\\x1b`, `\\u202e`.
Where the terminal's encoding lacks a character, `SUBSTITUTE` names the error handler that finds one like it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

SUBSTITUTE = "sora-spec-substitute"
"""Error handler of encodings: `×` becomes `x` in ASCII, what nothing resembles becomes an escape."""

_BLANKS = re.compile(r"[ \t\n]+")
_ORDINARY = re.compile(r"[\n\t -~]*")
# Blank although letters: Hangul fillers, Khmer vowels that are not drawn, the grapheme joiner.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_JOINERS = frozenset("\u200c\u200d")
"""Persian and Indic words and families of emoji are written with them; between ASCII letters they only mislead."""

_LIKE = {
    **dict(zip("×·•−–—‑“”‘’→←↑↓⟨⟩✓✗✕µ", "x.*----\"\"''><^v<>+xxu", strict=True)),
    **dict.fromkeys("─━═╌┄╴╶╸╺", "-"),
    **dict.fromkeys("│┃║▏▎▍▌┆┊", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╞╡╪┏┓┗┛┣┫", "+"),
    **dict.fromkeys("█▉▊▋▓■▇▆▅▄▃▂▁●◆", "#"),
    **dict.fromkeys("▒░□○◇", ":"),
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "±": "+-",
    "∞": "inf",
    "²": "^2",
    "³": "^3",
    "⇄": "<>",
    **dict.fromkeys("\u00a0\u2009\u202f\u2002\u2003\u3000", " "),
}


def visible(text: str) -> str:
    """The text with everything that could drive, turn or deceive a terminal as an escape; line ends and tabs stay."""
    if _ORDINARY.fullmatch(text):
        return text
    return "".join(
        character if _passes(character) or _joins(text, index) else escaped(character)
        for index, character in enumerate(text)
    )


def in_one_line(text: str) -> str:
    """The text as `visible` gives it, every run of blanks and line ends as one space."""
    return " ".join(_BLANKS.split(visible(text).strip(" \t\n")))


def visible_name(name: str) -> str:
    """A name as `visible` gives it; a line end in it is an escape, too."""
    return visible(name).replace("\n", "\\x0a").replace("\t", "\\x09")


def escaped(character: str) -> str:
    """`\\x1b`, `\\u202e` or `\\U000e0001`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def harmful(text: str) -> bool:
    """Whether `visible` would change the text."""
    return visible(text) != text


def _passes(character: str) -> bool:
    if " " <= character <= "~" or character in "\n\t":
        return True
    return character not in _BLANK and (character.isprintable() or unicodedata.category(character) in ("Zs", "Co"))


def _joins(text: str, index: int) -> bool:
    """A joiner between two characters that are no ASCII."""
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    return text[index] in _JOINERS and len(around) == 2 and not around.isascii() and _passes(around[0])


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_LIKE.get(character) or escaped(character) for character in lacking), error.end


codecs.register_error(SUBSTITUTE, _substitute)
