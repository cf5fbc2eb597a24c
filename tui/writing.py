"""A spec's text with other values in it: only the characters of a value change, so comments and layout stay.

Where that cannot be done, as inside an anchored value, ruamel.yaml's round trip takes over. Whichever way was taken,
the result is read again and must say what was asked for, or nothing is written.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from sora_spec.errors import UserError
from sora_spec.language.changes import flow
from sora_spec.language.source import Document, parse_document, plain
from sora_spec.language.span import Text
from sora_spec.language.yaml_tree import Entry, MapNode, Node, ScalarNode, read_tree

Values = Sequence[tuple[str, str]]
"""Dotted paths and the YAML that is to stand there."""


def with_values(content: str, values: Values) -> str:
    """The text of a spec with other values. Raises UserError: neither way of writing says what was asked for."""
    wanted = parse_document(Text("spec", content), [f"{path}={value}" for path, value in values]).values()
    for way in (_by_span, _by_round_trip):
        try:
            changed = way(content, values)
        except _NoWayError:
            continue
        found = parse_document(Text("spec", changed))
        if not found.problems and found.values() == wanted:
            return changed
    raise UserError("these values cannot be written into the spec without touching others", "edit the spec by hand")


class _NoWayError(Exception):
    """This way of writing does not reach the value."""


def _by_span(content: str, values: Values) -> str:
    for path, value in values:
        content = _set(content, path.split("."), value)
    return content


def _document(content: str) -> Document:
    document = parse_document(Text("spec", content))
    if document.root is None:
        raise _NoWayError
    return document


def _set(content: str, path: list[str], value: str) -> str:
    """One value, which may be a mapping: then key by key, so that comments between its keys stay."""
    document = _document(content)
    assert document.root is not None
    parent, depth = _deepest(document.root, path)
    if depth < len(path):
        return _insert(content, document.root, parent, path[depth], _nested(path[depth + 1 :], value))
    node = parent[-1].node
    inner, _ = read_tree(Text("value", value))
    if isinstance(node, MapNode) and isinstance(inner, MapNode):
        for key in [key for key in node.entries if key not in inner.entries]:
            content = _remove(content, [*path, key])
        for key, entry in inner.entries.items():
            content = _set(content, [*path, key], flow(plain(entry.node)))
        return content
    return _replace(content, parent[-1], value)


def _deepest(root: MapNode, path: Sequence[str]) -> tuple[list[Entry], int]:
    """The entries that lead towards a path, and how much of it is written."""
    found = list[Entry]()
    node: Node = root
    for depth, segment in enumerate(path):
        if not isinstance(node, MapNode) or segment not in node.entries:
            return found, depth
        found.append(node.entries[segment])
        node = node.entries[segment].node
    return found, len(path)


def _nested(path: Sequence[str], value: str) -> str:
    for segment in reversed(path):
        value = f"{{{segment}: {value}}}"
    return value


def _replace(content: str, entry: Entry, value: str) -> str:
    span, key = entry.node.span, entry.key_span
    if span.start == span.end:  # nothing is written behind the colon
        colon = content.index(":", key.end - 1 if content[key.end - 1 : key.end] == ":" else key.end)
        return f"{content[: colon + 1]} {value}{content[colon + 1 :]}"
    between = content[key.end : span.start]
    if span.start < key.end or between.strip(" \n\r\t:") or "\n" in between:
        raise _NoWayError  # an alias, an anchor, a tag, or a value on lines of its own
    return content[: span.start] + value + content[span.end :]


def _insert(content: str, root: MapNode, entries: list[Entry], key: str, value: str) -> str:
    """A key that is not written yet, at the end of its section."""
    if not entries:
        return _insert_line(content, root, key, value)
    entry = entries[-1]
    node = entry.node
    if isinstance(node, ScalarNode) and node.value is None:
        return _replace(content, entry, f"{{{key}: {value}}}")
    if not isinstance(node, MapNode) or node.span.start < entry.key_span.end:
        raise _NoWayError
    if content[node.span.start] != "{":
        return _insert_line(content, node, key, value)
    last = max((inner.node.span.end for inner in node.entries.values()), default=node.span.start + 1)
    if not node.span.start < last <= node.span.end:
        raise _NoWayError
    comma = ", " if node.entries else ""
    return f"{content[:last]}{comma}{key}: {value}{content[last:]}"


def _insert_line(content: str, node: MapNode, key: str, value: str) -> str:
    """A line of its own behind the last line of a block, as far in as the block's keys."""
    first = next(iter(node.entries.values()), None)
    if first is None:
        raise _NoWayError
    last = max(max(e.node.span.end, e.key_span.end) for e in node.entries.values())
    end = content.find("\n", last)
    end = len(content) if end < 0 else end
    newline = "\r\n" if content[:end].endswith("\r") else "\n"
    return f"{content[:end].removesuffix(chr(13))}{newline}{' ' * (first.key_span.column - 1)}{key}: {value}" + (
        content[end - 1 :] if newline == "\r\n" else content[end:]
    )


def _remove(content: str, path: list[str]) -> str:
    """A key and its value; only where it stands on a line of its own or inside braces, and has one line."""
    document = _document(content)
    assert document.root is not None
    entries, depth = _deepest(document.root, path)
    if depth < len(path):
        return content
    entry = entries[-1]
    start, end = entry.key_span.start, max(entry.node.span.end, entry.key_span.end + 1)
    line_start = content.rfind("\n", 0, start) + 1
    if "\n" in content[start:end]:
        raise _NoWayError
    if not content[line_start:start].strip():
        newline = content.find("\n", end)
        rest = content[end : newline if newline >= 0 else len(content)]
        if rest.strip():
            raise _NoWayError  # a comment that would be lost
        return content[:line_start] + (content[newline + 1 :] if newline >= 0 else "")
    if content[end:].lstrip(" ").startswith(","):
        end += content[end:].index(",") + 1
        end += len(content[end:]) - len(content[end:].lstrip(" "))
    else:
        before = content[:start].rstrip(" ")
        start = len(before) - 1 if before.endswith(",") else start
    return content[:start] + content[end:]


def _by_round_trip(content: str, values: Values) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml: Any = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        root = yaml.load(content)
        for path, value in values:
            *above, last = path.split(".")
            section = root
            for segment in above:
                if not isinstance(section.get(segment), dict):
                    section[segment] = {}
                section = section[segment]
            section[last] = YAML(typ="rt").load(value)
        stream = io.StringIO()
        yaml.dump(root, stream)
    except (YAMLError, AttributeError, TypeError) as error:
        raise _NoWayError from error
    return stream.getvalue()
