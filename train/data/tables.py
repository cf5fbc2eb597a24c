"""Lists with columns: cells between commas, semicolons, tabs or bars, quoted as RFC 4180 has it.

Strict: a row has as many cells as there are headings. A caption with a comma that is not quoted would shift what
follows it, so such a row is refused at its line.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sora_spec.errors import UserError
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.list_text import encoding_of, in_words, opened
from sora_spec.train.data.rows import Columns, Paths, choose_columns, field_of
from sora_spec.train.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST_CELL = 10_000_000
_HOW_TO_HEAD = "name the columns in the first line, such as path,label or path,label,caption"


class _Lines:
    """Lines for `csv.reader`, without comments: a line that begins with `#` where a row would begin."""

    def __init__(self, file: Iterator[str], source: Path) -> None:
        self._file = file
        self._source = source
        self._waiting: str | None = None
        self.number = 0
        self.comments = 0
        self.begins_row = True
        """Set by the reader of rows after each row: the next line begins one."""
        self.row_line = 0
        """Line on which the latest row begins."""
        self.row_text = ""

    def first(self) -> str | None:
        """The first line that holds cells; None where there is none. Given again when the lines are iterated."""
        for line in self._file:
            self.number += 1
            text = line.strip()
            if text.startswith("#") and not heads(text.lstrip("# ")):
                self._check_comment(line)
                self.comments += 1
            elif text.strip(",;\t| \ufeff"):
                self._waiting = line
                return line
        return None

    def drop_first(self) -> None:
        """The first line is no row."""
        self._waiting = None

    def __iter__(self) -> Iterator[str]:
        if self._waiting is not None:
            self.row_line, self.row_text, self.begins_row = self.number, self._waiting, False
            yield self._waiting
        for line in self._file:
            self.number += 1
            if self.begins_row:
                if line[:1] == "#":
                    self._check_comment(line)
                    self.comments += 1
                    continue
                self.row_line, self.row_text, self.begins_row = self.number, line, False
            yield line

    def _check_comment(self, line: str) -> None:
        """A file whose name begins with `#` is not lost without a word."""
        name = re.split(r"[,;\t|]", line.strip(), maxsplit=1)[0]
        if os.path.isfile(os.path.join(self._source.parent, name)):
            raise UserError(
                f"{self._source}:{self.number}: a line that begins with # is a comment, but {name} is a file",
                f"where the file is meant, write ./{name}",
            )


@dataclass(frozen=True)
class _Layout:
    """What the first line tells."""

    delimiter: str
    columns: Columns
    width: int
    headed: bool
    unread: Sequence[str] = ()
    heading: str | None = None
    """What stands above the paths."""


def read_table(path: Path) -> Source:
    """Read a list with columns. Raises UserError for what is not understood, at its line."""
    encoding = encoding_of(path)
    source = Source(path, "", Entries(path.parent))
    with opened(path, encoding, newline="") as file:
        lines = _Lines(iter(file), path)
        first = lines.first()
        marked = re.fullmatch(
            r"\"?sep=(.)\"?[,;\t|]*", (first or "").strip("\r\n"), re.IGNORECASE
        )  # Excel's first line
        if marked is not None:
            first = lines.first()
        layout = _layout(first or "", path, lines.number, marked[1] if marked else None)
        if layout.headed:
            lines.drop_first()
        if first is not None:
            _read_rows(lines, layout, source)
    notes = [] if layout.delimiter == "," else [DELIMITERS[layout.delimiter]]
    notes += [words] if (words := in_words(encoding)) else []
    source.kind = "list with columns" + (f" ({', '.join(notes)})" if notes else "")
    if lines.comments:
        source.remarks.append(f"comment lines: {lines.comments}")
    source.unread = layout.unread
    if layout.unread:
        source.remarks.append(f"columns that are not read: {', '.join(layout.unread)}")
    source.headless = not layout.headed and layout.width > 1
    if not layout.headed and len(source.entries):
        columns = "the first column is the path" if layout.width == 1 else "the columns are path and caption"
        source.remarks.append(f"no headings: {columns}")
    return source


def _cells(line: str, delimiter: str) -> list[str]:
    """Cells of one line, leniently: what a heading or a first row may be."""
    row = next(csv.reader([line.strip("\r\n")], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in row]


def heads(line: str) -> bool:
    """Whether a line holds headings, so that what follows has columns."""
    return any(_are_headings(_cells(line, delimiter)) for delimiter in DELIMITERS)


def _are_headings(cells: Sequence[str]) -> bool:
    """One of them names the files, and none is a file: `a.mp4,image` is a file and its caption."""
    return "path" in map(field_of, cells) and not any(map(_is_media, cells))


def _layout(first: str, path: Path, line: int, marked: str | None) -> _Layout:
    """Delimiter and columns. The delimiter is the one under which headings, or else a file's name, come out."""
    if marked is not None and marked not in DELIMITERS:
        raise UserError(f"{path}:1: sep={marked} is not understood", "separate cells by commas, semicolons or tabs")
    likely = sorted(DELIMITERS, key=lambda each: path.suffix.lower() in {".tsv", ".tab"} and each != "\t")
    tried = [marked] if marked is not None else likely
    bare = first.strip().lstrip("# ") if first.lstrip().startswith("#") else first
    for delimiter in tried:
        cells = _cells(bare, delimiter)
        if _are_headings(cells):
            while cells and not cells[-1]:
                cells.pop()
            columns, unread = choose_columns(cells, f"{path}:{line}")
            assert columns is not None
            return _Layout(delimiter, columns, len(cells), True, unread, cells[columns.path])
    for delimiter in tried:
        cells = _cells(bare, delimiter)
        if {field_of(cell) for cell in cells} & {"label", "caption"} and not any(map(_is_media, cells)):
            raise UserError(f"{path}:{line}: no heading names the files: {', '.join(cells)}", _HOW_TO_HEAD)
    delimiter = next((each for each in tried if _is_media(_cells(first, each)[0])), tried[0]) if first else tried[0]
    cells = _cells(first, delimiter) if first else []
    while len(cells) > 1 and not cells[-1]:
        cells.pop()
    if len(cells) > 2:
        raise UserError(
            f"{path}:{line}: {len(cells)} cells and no headings: {_shown(first)}",
            f"{_HOW_TO_HEAD}; where a caption holds the separator, quote it: {_quoted(first, 2, delimiter)}",
        )
    if (
        first
        and "." not in cells[0]
        and "/" not in cells[0]
        and not os.path.exists(os.path.join(path.parent, cells[0]))
    ):
        raise UserError(f"{path}:{line}: no heading names the files, and no file is called {cells[0]}", _HOW_TO_HEAD)
    return _Layout(delimiter, Columns(0, None, 1 if len(cells) > 1 else None), max(1, len(cells)), False)


def _is_media(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _read_rows(lines: _Lines, layout: _Layout, source: Source) -> None:
    width, columns, add = layout.width, layout.columns, source.entries.add
    read_path = Paths(source.path).read
    path_at, label_at, caption_at = columns.path, columns.label, columns.caption
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        for row in csv.reader(iter(lines), delimiter=layout.delimiter, skipinitialspace=True, strict=True):
            lines.begins_row = True
            if len(row) != width:
                row = _fitted(row, layout, source.path, lines)
            path = row[path_at] if row else ""
            if not path and not any(cell.strip() for cell in row):
                continue
            if path.startswith(("-", ":")) and not "".join(row).strip("-:= "):  # below the headings of a Markdown table
                lines.comments += 1
                continue
            if lines.number > lines.row_line:
                _refuse_swallowed(row, layout, source.path, lines)
            if path == layout.heading:
                _refuse_headings(source.path, lines)
            label = None if label_at is None else row[label_at].strip()
            caption = None if caption_at is None else row[caption_at]
            add(read_path(path, lines.row_line), label, caption, lines.row_line)
    except csv.Error as error:
        raise _malformed(source.path, lines, layout.delimiter, str(error)) from None
    finally:
        csv.field_size_limit(before)


def _refuse_swallowed(row: Sequence[str], layout: _Layout, path: Path, lines: _Lines) -> None:
    """A quoted cell of several lines that holds rows: two quotes too many have swallowed them."""
    for line in (line for cell in row for line in cell.split("\n")[1:]):
        cells = _cells(line, layout.delimiter)
        if len(cells) >= layout.width > 1 and _is_media(cells[layout.columns.path]):
            raise UserError(
                f"{path}:{lines.row_line}: a cell that is opened here holds a row: {_shown(line)}",
                "close the quote, or write a quote inside a quoted cell twice",
            )


def _refuse_headings(path: Path, lines: _Lines) -> None:
    """Headings further down are those of a second list; as a row they would make a class of their own."""
    if heads(lines.row_text):
        raise UserError(
            f"{path}:{lines.row_line}: the headings stand here again: {_shown(lines.row_text)}",
            "where two lists were joined, remove the line",
        )


def _fitted(row: list[str], layout: _Layout, path: Path, lines: _Lines) -> list[str]:
    """A row with empty cells too many cut to its width; an empty row. Raises UserError for any other."""
    if not any(cell.strip() for cell in row):
        return []
    if len(row) > layout.width and not any(cell.strip() for cell in row[layout.width :]):
        return row[: layout.width]
    what = "headings" if layout.headed else "cells in the first row"
    cells = f"{len(row)} cell{'s' * (len(row) > 1)}"
    message = f"{path}:{lines.row_line}: {cells}, but {layout.width} {what}: {_shown(lines.row_text)}"
    if len(row) > layout.width:
        hint = (
            f"quote a cell that holds the separator, such as {_quoted(lines.row_text, layout.width, layout.delimiter)}"
        )
    else:
        hint = "leave a cell empty where there is nothing to say: " + layout.delimiter.join(
            row + [""] * (layout.width - len(row))
        )
    raise UserError(message, hint)


def _quoted(line: str, width: int, delimiter: str) -> str:
    """The row as it may have been meant: what is too much belongs to the last cell."""
    *cells, last = line.strip("\r\n").split(delimiter, width - 1)
    text = last.strip().replace('"', '""')
    return _shown(delimiter.join([*cells, f'"{text}"']))


def _shown(line: str) -> str:
    text = line.strip("\r\n")
    return text if len(text) <= 120 else text[:117] + "…"


def _malformed(path: Path, lines: _Lines, delimiter: str, reason: str) -> UserError:
    where = f"{path}:{lines.row_line}"
    if "field limit" in reason or "unexpected end" in reason:
        return UserError(
            f"{where}: a quote that is opened here is never closed: {_shown(lines.row_text)}",
            'close it; a quote inside a quoted cell is written twice: "a 5"" disk"',
        )
    if "expected after" in reason:
        return UserError(
            f"{where}: text follows a closing quote: {_shown(lines.row_text)}",
            f'quote the whole cell and write quotes inside it twice: a.mp4{delimiter}"a ""big"" dog"',
        )
    return UserError(
        f"{where}: not readable as a row: {reason}", "quote cells that hold separators, quotes or newlines"
    )
