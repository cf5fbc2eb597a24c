"""YAML 1.2 text to a tree of values in which every key and value knows its characters.

The tree is built from the parser's events, one at a time and without recursion, so that a hostile text is refused as
soon as it passes a limit: nothing is expanded first. An alias shares the node it names; its expanded size is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sora_spec.language.diagnostics import Diagnostic, Note
from sora_spec.language.scalars import MAX_DIGITS, Scalar, TooManyDigitsError, plain_scalar
from sora_spec.language.span import Span, Text

# What YAML 1.2 §5.1 calls printable; everything else makes a file binary, and an argument no YAML.
UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_VALUES = 5_000
"""Keys and values of a text with its aliases expanded. The largest reference spec has about 150."""
MAX_DEPTH = 32
"""Levels of nesting. A spec needs five."""


@dataclass(eq=False)
class ScalarNode:
    """One value without parts."""

    span: Span
    value: Scalar
    quoted: bool = False
    refused: bool = False
    """Its problem has been reported (a tag, too many digits); nothing more is to be said about it."""
    size: int = 1
    depth: int = 0


@dataclass(eq=False)
class ListNode:
    """A list."""

    span: Span
    items: list[Node] = field(default_factory=lambda: list[Node]())
    size: int = 1
    depth: int = 1


@dataclass(eq=False)
class Entry:
    """A key of a mapping and what stands behind it."""

    key_span: Span
    node: Node


@dataclass(eq=False)
class MapNode:
    """A mapping with text keys."""

    span: Span
    entries: dict[str, Entry] = field(default_factory=lambda: dict[str, Entry]())
    size: int = 1
    depth: int = 1


Node = ScalarNode | ListNode | MapNode


class RefusedError(Exception):
    """The text cannot be read any further."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


@dataclass(frozen=True, eq=False)
class _Child:
    """A value where it is used, which for an alias is not where it is written."""

    node: Node
    span: Span
    plain: bool
    """An unquoted scalar that is written here."""


@dataclass(eq=False)
class _Frame:
    """A list or mapping whose end has not been seen yet."""

    start: int
    is_map: bool
    anchor: str | None
    refused: bool = False
    children: list[_Child] = field(default_factory=lambda: list[_Child]())


def read_tree(text: Text, start: int = 0) -> tuple[Node | None, list[Diagnostic]]:
    """The tree of `text` from character `start` on, and everything wrong with it; no tree if it cannot be read."""
    builder = _Builder(text, start)
    wrong = UNPRINTABLE.search(text.content, start)
    if wrong is not None:  # of an argument or of values: a file has been looked through
        name = "this argument" if text.origin == "argument" else text.name
        message = f"{name} holds {_character(wrong.group())}, which no YAML holds as it is"
        help = "Remove it, or write the name of the file anew; YAML's escapes stand in double quotes."
        return None, [Diagnostic("E103", message, Span(text, wrong.start(), wrong.end()), help=help)]
    try:
        root = builder.build()
    except RefusedError as refused:
        return None, [*builder.problems, refused.diagnostic]
    return root, builder.problems


class _Builder:
    def __init__(self, text: Text, start: int) -> None:
        self.text = text
        self.offset = start
        self.problems: list[Diagnostic] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node | None] = {}  # None while the anchored value is still open
        self.root: Node | None = None
        self.documents = 0
        self.values = 0

    def build(self) -> Node | None:
        for event in self._events():
            getattr(self, f"_on_{type(event).__name__}", self._ignore)(event)
        return self.root

    def _events(self) -> Iterator[Any]:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        parser: Any = YAML(typ="safe", pure=True)
        try:
            yield from parser.parse(self.text.content[self.offset :])
        except RefusedError:
            raise
        except (YAMLError, Exception) as error:  # the scanner also leaks IndexError and ValueError on odd texts
            from sora_spec.language.yaml_errors import syntax_diagnostic

            raise RefusedError(syntax_diagnostic(error, self.text, self.offset)) from error

    def _ignore(self, event: Any) -> None:
        """Stream marks and document ends carry nothing."""

    def _on_DocumentStartEvent(self, event: Any) -> None:  # noqa: N802 - named after ruamel's event
        self.documents += 1
        if self.documents > 1:
            start = event.start_mark.index
            message = "a spec is one YAML document, but a second one starts here"
            raise RefusedError(
                self._problem("E105", message, start, start + 3, help="Put the second spec into its own file.")
            )

    def _on_ScalarEvent(self, event: Any) -> None:  # noqa: N802
        span = self._span(event.start_mark.index, event.end_mark.index)
        plain = not event.style and not event.tag
        value: Scalar = _joined(event.value)
        refused = self._refuses_tag(event, span) or self._refuses_half_characters(value, span)
        if plain:
            try:
                value = plain_scalar(value)
            except TooManyDigitsError:
                message = f"a number of {len(event.value)} digits; numbers may have up to {MAX_DIGITS}"
                self.problems.append(Diagnostic("E113", message, span, help="Write a number of a sensible size."))
                refused = True
        self._add(ScalarNode(span, value, quoted=not plain, refused=refused), span, event.anchor, plain)

    def _on_AliasEvent(self, event: Any) -> None:  # noqa: N802
        span = self._span(event.start_mark.index, event.end_mark.index)
        if event.anchor not in self.anchors:
            known = ", ".join(f"`&{name}`" for name in list(self.anchors)[:8])
            help = f"Anchors defined above this line: {known}." if known else "Define it above this line with `&name`."
            raise RefusedError(
                Diagnostic("E110", f"no anchor `&{event.anchor}` is defined before here", span, help=help)
            )
        node = self.anchors[event.anchor]
        if node is None:
            message = f"`*{event.anchor}` is used inside the value that `&{event.anchor}` names, so it never ends"
            raise RefusedError(Diagnostic("E110", message, span, "refers to itself", help="Write the inner value out."))
        self._add(node, span, None, plain=False)

    def _on_SequenceStartEvent(self, event: Any) -> None:  # noqa: N802
        self._open(event, is_map=False)

    def _on_MappingStartEvent(self, event: Any) -> None:  # noqa: N802
        self._open(event, is_map=True)

    def _on_SequenceEndEvent(self, event: Any) -> None:  # noqa: N802
        frame = self.stack.pop()
        node = ListNode(self._span(frame.start, event.end_mark.index), [child.node for child in frame.children])
        self._close(node, frame)

    def _on_MappingEndEvent(self, event: Any) -> None:  # noqa: N802
        frame = self.stack.pop()
        node = MapNode(self._span(frame.start, event.end_mark.index))
        pairs = list(zip(frame.children[::2], frame.children[1::2], strict=True))
        for key, value in pairs:
            if not _is_merge(key):
                self._add_entry(node, key.node, value.node)
        for key, value in pairs:
            if _is_merge(key):  # after the keys written here, which win
                self._merge(node, value)
        self._close(node, frame)

    def _add_entry(self, node: MapNode, key: Node, value: Node) -> None:
        if not isinstance(key, ScalarNode) or not isinstance(key.value, str):
            self.problems.append(_wrong_key(key))
        elif key.value.startswith("x-") or _SURROGATE.search(key.value):  # the second has been reported
            return
        elif key.value in node.entries:
            first = node.entries[key.value].key_span
            message = f"the key `{_shown(key.value)}` is given twice in one mapping"
            notes = (Note(first, "first given here"),)
            help = "Keep one of the two lines."
            self.problems.append(Diagnostic("E107", message, key.span, "given again here", notes, help))
        else:
            node.entries[key.value] = Entry(key.span, value)

    def _merge(self, node: MapNode, value: _Child) -> None:
        parts = value.node.items if isinstance(value.node, ListNode) else [value.node]
        mappings = [part for part in parts if isinstance(part, MapNode)]
        if len(mappings) < len(parts):
            message = "`<<` merges mappings, and this is not a mapping"
            help = "Write `<<: *anchor`, where `&anchor` stands before a mapping."
            self.problems.append(Diagnostic("E112", message, value.span, "not a mapping", help=help))
        for part in mappings:
            for key, entry in part.entries.items():
                node.entries.setdefault(key, entry)

    def _open(self, event: Any, is_map: bool) -> None:
        start = event.start_mark.index
        if len(self.stack) >= MAX_DEPTH:
            message = f"more than {MAX_DEPTH} levels of nesting"
            help = "The sections of a spec nest at most five levels deep; is a bracket or an indentation wrong?"
            raise RefusedError(self._problem("E111", message, start, start + 1, help=help))
        refused = self._refuses_tag(event, self._span(start, event.end_mark.index))
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(start, is_map, event.anchor, refused))

    def _close(self, node: ListNode | MapNode, frame: _Frame) -> None:
        children = [child.node for child in frame.children]
        node.size = 1 + sum(child.size for child in children)
        node.depth = 1 + max((child.depth for child in children), default=0)
        if node.size > MAX_VALUES or node.depth > MAX_DEPTH:
            message = f"the aliases expand to {node.size} values, {node.depth} levels deep"
            help = f"A spec holds up to {MAX_VALUES} values and {MAX_DEPTH} levels with its aliases expanded."
            raise RefusedError(Diagnostic("E110", message, node.span, "expands here", help=help))
        kept = ScalarNode(node.span, None, refused=True, size=node.size) if frame.refused else node
        self._add(kept, node.span, frame.anchor, plain=False)

    def _add(self, node: Node, span: Span, anchor: str | None, plain: bool) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            message = f"more than {MAX_VALUES} values"
            raise RefusedError(
                Diagnostic("E111", message, node.span, help="Is this a spec? They hold about a hundred values.")
            )
        if anchor is not None:
            self.anchors[anchor] = node
        if self.stack:
            self.stack[-1].children.append(_Child(node, span, plain))
        else:
            self.root = node

    def _refuses_tag(self, event: Any, span: Span) -> bool:
        if not event.tag:
            return False
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        message = f"the YAML tag `{_shown(tag)}` has no meaning in a spec"
        help = "Remove the tag. To make text of a number, put it in quotes."
        self.problems.append(Diagnostic("E109", message, span, "a tag", help=help))
        return True

    def _refuses_half_characters(self, value: str, span: Span) -> bool:
        """A lone surrogate, written as an escape: half of a character, which no file, name or terminal can hold."""
        half = _SURROGATE.search(value)
        if half is None:
            return False
        message = f"this text holds {_character(half.group())}"
        help = "Write the whole character, or its code as one `\\U0001F600`."
        self.problems.append(Diagnostic("E103", message, span, "half a character", help=help))
        return True

    def _problem(self, code: str, message: str, start: int, end: int, help: str) -> Diagnostic:
        return Diagnostic(code, message, self._span(start, end), help=help)

    def _span(self, start: int, end: int) -> Span:
        """Block collections end where the next token starts; the blank space between does not belong to them."""
        size = len(self.text.content)
        start, end = min(start + self.offset, size), min(end + self.offset, size)
        content = self.text.content
        while end > start and content[end - 1] in " \t\r\n":
            end -= 1
        return Span(self.text, start, end)


def _joined(text: str) -> str:
    """The text with surrogate pairs as the characters they stand for: JSON, which is YAML, escapes them so."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _character(character: str) -> str:
    """What an unprintable character is called."""
    if _SURROGATE.match(character):
        return f"half a character (the lone surrogate U+{ord(character):04X})"
    return "a NUL byte" if character == "\0" else f"the control character U+{ord(character):04X}"


def _is_merge(key: _Child) -> bool:
    return key.plain and isinstance(key.node, ScalarNode) and key.node.value == "<<"


def _wrong_key(key: Node) -> Diagnostic:
    written = _shown(key.span.source())
    if isinstance(key, ScalarNode):
        what = "empty" if key.value is None else f"`{written}`"
        message = f"keys are words, but this key is {what}"
    else:
        message = f"keys are words, but this key is a {'list' if isinstance(key, ListNode) else 'mapping'}"
    return Diagnostic(
        "E108", message, key.span, help="Name a key of the section; `sora-spec show dit` prints them all."
    )


def _shown(text: str) -> str:
    """Start of a text, for a message."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 40 else flat[:39] + "…"
