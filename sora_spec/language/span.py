"""Where something stands: a text and a range of characters in it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, eq=False)
class Text:
    """A text that spans point into: a file, standard input, or one `key=value` argument."""

    name: str
    """What a report calls it: the path as given, `<stdin>`, or `argument`."""
    content: str
    origin: Literal["file", "stdin", "argument", "values"] = "file"
    order: int = 0
    """Place among the arguments, for reports in the order of the command line."""
    _starts: list[int] = field(default_factory=lambda: list[int](), repr=False)

    def starts(self) -> list[int]:
        """Offset of the first character of every line. `\\n`, `\\r\\n` and `\\r` end a line, as in YAML 1.2."""
        if not self._starts:
            self._starts.append(0)
            content, size = self.content, len(self.content)
            for index, character in enumerate(content):
                lone_return = character == "\r" and not (index + 1 < size and content[index + 1] == "\n")
                if character == "\n" or lone_return:
                    self._starts.append(index + 1)
        return self._starts

    def line(self, number: int) -> str:
        """Line `number` (from 1) without its line end."""
        starts = self.starts()
        end = starts[number] if number < len(starts) else len(self.content)
        return self.content[starts[number - 1] : end].rstrip("\r\n")

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both from 1."""
        starts = self.starts()
        row = bisect_right(starts, offset) - 1
        return row + 1, offset - starts[row] + 1


@dataclass(frozen=True)
class Span:
    """The characters [start, end) of a text."""

    text: Text
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line of the first character, from 1."""
        return self.text.position(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, from 1."""
        return self.text.position(self.start)[1]

    @property
    def end_position(self) -> tuple[int, int]:
        """Line and column just behind the last character, both from 1."""
        return self.text.position(self.end)

    def source(self) -> str:
        """The characters themselves."""
        return self.text.content[self.start : self.end]
