"""The text of a list: its encoding, and the line at fault where it is not text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sora_spec.errors import UserError

_HEAD_BYTES = 4096
_MARKS = (  # UTF-32 first: its little-endian mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a zip archive, as .xlsx and .ods files are"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"(\xb5/\xfd", "compressed with zstd"),
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an .xls workbook"),
)


def encoding_of(path: Path) -> str:
    """Encoding of a list: UTF-8, or UTF-16 and UTF-32 by their mark or by the places of their zero bytes.

    Raises UserError for what is no text.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, what in _NO_TEXT:
        if head.startswith(magic):
            raise UserError(f"{path} is no text: it is {what}", "save the list as CSV text in UTF-8")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if 0 not in head:
        return "utf-8"
    half = max(1, len(head) // 2)
    # Text in UTF-16 is mostly ASCII here: paths and commas, whose other byte is zero.
    if head[1::2].count(0) > half * 0.4 and head[::2].count(0) == 0:
        return "utf-16-le"
    if head[::2].count(0) > half * 0.4 and head[1::2].count(0) == 0:
        return "utf-16-be"
    raise UserError(f"{path} is no text: it holds zero bytes", "save the list as text in UTF-8")


def in_words(encoding: str) -> str | None:
    """How a report names an encoding; None for plain UTF-8."""
    known = re.match(r"utf-(16|32)", encoding)
    return f"UTF-{known[1]}" if known else None


@contextmanager
def opened(path: Path, encoding: str, newline: str | None) -> Generator[TextIO]:
    """The list as text. Lines end at a line feed, a carriage return or both, and at nothing else.

    Raises UserError, from within the body too, where the file cannot be read or is not in this encoding.
    """
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeError:
        raise _undecodable(path, encoding) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _undecodable(path: Path, encoding: str) -> UserError:
    how = f"save it as UTF-8; if it came from Windows: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
    if encoding.startswith("utf-8"):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    byte = line[error.start]
                    return UserError(f"{path}:{number}: byte 0x{byte:02X} is not UTF-8 text", how)
    return UserError(f"{path} is not whole text in {in_words(encoding) or 'UTF-8'}", "save the list as UTF-8")
