"""Lists without columns: JSON, one object a line or one array, and plain text with one path a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sora_spec.errors import UserError
from sora_spec.train.data.captions import check_encodable
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.list_text import encoding_of, in_words, opened
from sora_spec.train.data.rows import Columns, Paths, choose_columns, label_text
from sora_spec.train.data.tables import heads, read_table

_JSON_LINE = 'one object a line: {"path": "a.mp4", "label": "cat", "caption": "a cat"}'


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


class _Items:
    """Adds what JSON says about a file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.unread: dict[str, None] = {}
        self._paths = Paths(source.path)
        self._columns: dict[tuple[str, ...], tuple[str, str | None, str | None]] = {}

    def add(self, item: object, line: int) -> None:
        """One object, or a path alone. Raises UserError for anything else."""
        where = f"{self.source.path}:{line}"
        if isinstance(item, str):
            self.source.entries.add(self._paths.read(item, line), None, None, line)
            return
        if not isinstance(item, dict):
            raise UserError(f"{where}: not an object", _JSON_LINE)
        names = tuple(item)
        path_key, label_key, caption_key = self._columns.get(names) or self._learn(names, where)
        path, caption = item[path_key], item[caption_key] if caption_key else None
        if not isinstance(path, str):
            raise UserError(
                f"{where}: no path: {path_key} is {path!r}", "every line needs the path of a video or image"
            )
        if caption is not None and not isinstance(caption, str):
            raise UserError(f"{where}: caption {caption!r} is not text", 'a caption is a string: "caption": "a cat"')
        if caption is not None:
            check_encodable(caption, where)
        label = label_text(item[label_key], where) if label_key else None
        self.source.entries.add(self._paths.read(path, line), label, caption, line)

    def _learn(self, names: tuple[str, ...], where: str) -> tuple[str, str | None, str | None]:
        columns, unread = choose_columns(names, where)
        if columns is None:
            raise UserError(f"{where}: no path among the keys {', '.join(names) or '(none)'}", _JSON_LINE)
        self.unread |= dict.fromkeys(unread)
        self._columns[names] = chosen = _chosen(names, columns)
        return chosen


def _chosen(names: tuple[str, ...], columns: Columns) -> tuple[str, str | None, str | None]:
    label = None if columns.label is None else names[columns.label]
    caption = None if columns.caption is None else names[columns.caption]
    return names[columns.path], label, caption


def read_json(path: Path) -> Source:
    """Read a list of JSON: one object a line, or one array of objects or paths.

    Lines end where a text file's do; U+2028 and U+0085 inside a string are part of it.
    Raises UserError for what is not understood, at its line.
    """
    encoding = encoding_of(path)
    source = Source(path, "", Entries(path.parent))
    items = _Items(source)
    comments = 0
    with opened(path, encoding, newline=None) as file:
        is_array = _begins_array(file.read(4096))
        file.seek(0)
        if is_array:
            for item, line in _array(file.read(), path):
                items.add(item, line)
        else:
            for line, text in enumerate(file, start=1):
                if text.isspace():
                    continue
                if text[0] == "#" or text.startswith("//"):
                    comments += 1
                else:
                    items.add(_decoded(text, path, line), line)
    words = in_words(encoding)
    source.kind = ("JSON array" if is_array else "list of JSON lines") + (f" ({words})" if words else "")
    if comments:
        source.remarks.append(f"comment lines: {comments}")
    source.unread = list(items.unread)
    if items.unread:
        source.remarks.append(f"keys that are not read: {', '.join(items.unread)}")
    return source


def _begins_array(head: str) -> bool:
    return head.lstrip().startswith("[")


def _decoded(text: str, path: Path, line: int) -> object:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, line, error) from None


def _not_json(path: Path, line: int, error: Exception) -> UserError:
    if isinstance(error, _TwiceError):
        return UserError(f"{path}:{line}: {error}", "a file has one path, one label and one caption")
    if isinstance(error, RecursionError):
        return UserError(f"{path}:{line}: not JSON that can be read: nested too deeply", _JSON_LINE)
    if "integer string conversion" in str(error):  # Python's limit of 4,300 digits
        return UserError(f"{path}:{line}: a number of very many digits", _JSON_LINE)
    return UserError(f"{path}:{line}: not JSON: {getattr(error, 'msg', error)}", _JSON_LINE)


def _array(text: str, path: Path) -> Iterator[tuple[object, int]]:
    """Items of a JSON array, each with the line that it begins on."""
    line, counted = 1, 0
    place = text.index("[") + 1
    need_comma = False
    while True:
        place = _skip_space(text, place)
        line, counted = line + text.count("\n", counted, place), place
        closing = text[place : place + 1] == "]"
        if closing or (need_comma and text[place : place + 1] != ","):
            break
        place = _skip_space(text, place + 1) if need_comma else place
        line, counted = line + text.count("\n", counted, place), place
        try:
            item, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise _not_json(path, line, error) from None
        yield item, line
        need_comma = True
    rest = _skip_space(text, place + 1)
    if not closing or rest < len(text):
        what = "something follows the array" if closing else "a comma or ] is missing"
        line += text.count("\n", counted, rest if closing else place)
        raise UserError(f"{path}:{line}: not JSON: {what}", "one array of objects, or " + _JSON_LINE)


def _skip_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\t", "\r"):
        place += 1
    return place


def read_plain(path: Path) -> Source:
    """Read a text file: one path a line, or a list with columns where its first line holds headings."""
    encoding = encoding_of(path)
    with opened(path, encoding, newline=None) as file:
        first = next((text for text in file if text.strip() and (text[0] != "#" or heads(text.lstrip("# ")))), "")
    if heads(first.lstrip("# ")):
        return read_table(path)
    source = Source(path, "", Entries(path.parent))
    paths, comments = Paths(path), 0
    with opened(path, encoding, newline=None) as file:
        for line, text in enumerate(file, start=1):
            name = text.strip()
            if name.startswith("#"):
                if os.path.isfile(os.path.join(path.parent, name)):
                    raise UserError(
                        f"{path}:{line}: a line that begins with # is a comment, but {name} is a file",
                        f"where the file is meant, write ./{name}",
                    )
                comments += 1
            elif name:
                source.entries.add(paths.read(name, line), None, None, line)
    words = in_words(encoding)
    source.kind = "list of paths" + (f" ({words})" if words else "")
    if comments:
        source.remarks.append(f"comment lines: {comments}")
    return source
