"""Source lines with carets under the right characters: tabs, wide characters and very long lines included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sora_spec.characters import escaped, visible, visible_name
from sora_spec.language.span import Span, Text

LINE_WIDTH = 100
"""Columns of source shown; a longer line is cropped around its carets."""
_TAB = 4
_ELLIPSIS = "…"
Paint = Callable[[str, str], str]
"""Colour a text by role: `error`, `warning`, `note`, `frame`, `help`."""


@dataclass(frozen=True)
class Mark:
    """Something underlined: the problem itself (`^`) or a place that belongs to it (`-`)."""

    span: Span
    label: str
    primary: bool


@dataclass(frozen=True)
class _Underline:
    """A mark on one line, in columns of the screen."""

    start: int
    width: int
    label: str
    primary: bool


def render_snippet(marks: Sequence[Mark], role: str, paint: Paint) -> list[str]:
    """Lines of a report that show every mark in its text; `role` colours the primary one."""
    primary = marks[0].span
    texts: list[Text] = list(dict.fromkeys(mark.span.text for mark in marks))
    gutter = max(len(str(mark.span.line)) for mark in marks)
    lines = list[str]()
    for text in texts:
        own = [mark for mark in marks if mark.span.text is text]
        head = own[0].span
        arrow = "-->" if text is primary.text else ":::"
        lines.append(f"{' ' * gutter}{paint(arrow, 'frame')} {visible_name(text.name)}:{head.line}:{head.column}")
        lines.append(paint(" " * gutter + " |", "frame"))
        lines += _text_lines(text, own, gutter, role, paint)
    return lines


def _text_lines(text: Text, marks: list[Mark], gutter: int, role: str, paint: Paint) -> list[str]:
    lines = list[str]()
    previous = 0
    for number in sorted({mark.span.line for mark in marks}):
        if previous and number > previous + 1:
            lines.append(paint("." * max(3, gutter), "frame"))
        previous = number
        shown, underlines = _layout(text, number, [mark for mark in marks if mark.span.line == number])
        lines.append(f"{paint(f'{number:>{gutter}} |', 'frame')} {shown}".rstrip())
        frame = paint(" " * gutter + " |", "frame")
        lines += [f"{frame} {row}" for row in _underline_rows(underlines, role, paint)]
    return lines


def _layout(text: Text, number: int, marks: list[Mark]) -> tuple[str, list[_Underline]]:
    """The line as shown and its marks in screen columns, cropped so that the first mark stays visible."""
    line = text.line(number)
    start_of_line = text.starts()[number - 1]
    ranges = list[tuple[int, int]]()
    for mark in marks:
        start = min(mark.span.start - start_of_line, len(line))
        ranges.append((start, max(start + 1, min(mark.span.end - start_of_line, len(line)))))
    columns = _columns(line[: LINE_WIDTH * 2 + max(start for start, _ in ranges)])
    low, high = _window(columns, ranges)
    prefix = _ELLIPSIS if low else ""
    suffix = _ELLIPSIS if high < len(line) else ""
    shown = prefix + _expand(line, columns, low, high) + suffix

    def screen(index: int) -> int:
        return columns[min(max(index, low), high, len(columns) - 1)] - columns[low] + len(prefix)

    underlines = list[_Underline]()
    for (start, end), mark in zip(ranges, marks, strict=True):
        if mark.primary or low <= start <= high:
            first = screen(start)
            underlines.append(_Underline(first, max(1, screen(end) - first), mark.label, mark.primary))
    return shown, underlines


def _columns(line: str) -> list[int]:
    """Screen column of every character, and of the end."""
    columns, column = [0], 0
    for character in line:
        column += _TAB - column % _TAB if character == "\t" else sum(map(display_width, harmless(character)))
        columns.append(column)
    return columns


def _window(columns: list[int], ranges: list[tuple[int, int]]) -> tuple[int, int]:
    """Characters [low, high) that fit the width and hold the first mark."""
    size = len(columns) - 1
    if columns[-1] <= LINE_WIDTH:
        return 0, size
    first = min(start for start, _ in ranges)
    last = min(max(end for _, end in ranges), size)
    if columns[last] <= LINE_WIDTH:
        low = 0
    elif columns[last] - columns[first] <= LINE_WIDTH // 2:
        low = next(i for i in range(size + 1) if columns[i] >= columns[last] - LINE_WIDTH + LINE_WIDTH // 4)
    else:
        low = next(i for i in range(size + 1) if columns[i] >= max(0, columns[first] - LINE_WIDTH // 4))
    low = min(low, first)
    high = low
    while high < size and columns[high + 1] - columns[low] <= LINE_WIDTH:
        high += 1
    return low, high


def _expand(line: str, columns: list[int], low: int, high: int) -> str:
    """Characters [low, high) with tabs as spaces and nothing that could move the cursor."""
    parts = list[str]()
    for index in range(low, high):
        character = line[index]
        parts.append(" " * (columns[index + 1] - columns[index]) if character == "\t" else harmless(character))
    return "".join(parts)


def harmless(character: str) -> str:
    """The character, or an escape in the place of one that could drive a terminal; a line end inside a line is one."""
    return escaped(character) if character == "\n" else visible(character)


def display_width(character: str) -> int:
    """Columns that a terminal gives a character: 2 for East Asian wide ones, 0 for combining marks."""
    if character < "\u0300":
        return 1
    import unicodedata

    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _underline_rows(underlines: list[_Underline], role: str, paint: Paint) -> list[str]:
    """The row of carets with the rightmost label behind it, and one row for every other label."""
    ordered = sorted(underlines, key=lambda mark: (mark.start, not mark.primary))
    row, column = "", 0
    for mark in ordered:
        if mark.start < column:
            continue  # lies under an earlier mark
        colour = role if mark.primary else "note"
        row += " " * (mark.start - column) + paint(("^" if mark.primary else "-") * mark.width, colour)
        column = mark.start + mark.width
    labelled = [mark for mark in ordered if mark.label]
    if labelled and labelled[-1] is ordered[-1]:
        last = labelled.pop()
        row += " " + paint(last.label, role if last.primary else "note")
    rows = [row]
    for mark in reversed(labelled):
        rows.append(" " * mark.start + paint("|", "note"))
        rows.append(" " * mark.start + paint(mark.label, role if mark.primary else "note"))
    return rows
