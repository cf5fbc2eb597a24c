"""A spec's text to values that know where they stand: reading, parsing and `key=value` overrides.

`load_document` never raises for what a user can get wrong: the `Document` carries the problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.overrides import apply_override
from sora_spec.language.reading import read_text
from sora_spec.language.scalars import Scalar
from sora_spec.language.span import Span, Text
from sora_spec.language.yaml_tree import ListNode, MapNode, Node, RefusedError, ScalarNode, read_tree

Plain = Scalar | list["Plain"] | dict[str, "Plain"]
"""Values without positions."""


@dataclass
class Document:
    """One spec as written: the tree of values with positions, and what was wrong with the text."""

    text: Text
    root: MapNode | None
    problems: list[Diagnostic]

    def values(self) -> dict[str, Plain]:
        """The values alone."""
        return {} if self.root is None else {key: plain(entry.node) for key, entry in self.root.entries.items()}

    def span(self, path: str) -> Span | None:
        """Characters of the value at a dotted path, or of the key of the nearest section above it that is written."""
        return locate(self.root, path)[0] if self.root is not None else None


def plain(node: Node) -> Plain:
    """Values of a tree without positions."""
    if isinstance(node, MapNode):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value


def locate(root: MapNode, path: str) -> tuple[Span, bool]:
    """Span of the value at `path`, and True; or of the nearest key above it that is written, and False."""
    node: Node = root
    best = Span(root.span.text, root.span.start, root.span.start + len(next(iter(root.entries), "")))
    for segment in path.split("."):
        if isinstance(node, MapNode) and segment in node.entries:
            entry = node.entries[segment]
            best, node = entry.key_span, entry.node
        elif isinstance(node, ListNode) and segment.isdecimal() and int(segment) < len(node.items):
            node = node.items[int(segment)]
            best = node.span
        else:
            return best, False
    empty = node.span.start == node.span.end
    return (best if empty or isinstance(node, MapNode) else node.span), True


def load_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """The spec at `path` (`-` is standard input) with `key=value` overrides laid over it."""
    try:
        text = read_text(str(path))
    except RefusedError as refused:
        return Document(Text(str(path), ""), None, [refused.diagnostic])
    return parse_document(text, overrides)


def parse_document(text: Text, overrides: Sequence[str] = ()) -> Document:
    """The spec in `text` with `key=value` overrides laid over it."""
    tree, problems = read_tree(text)
    if tree is None and problems:
        return Document(text, None, problems)
    root = _root(tree, text, problems)
    if root is not None:
        for order, override in enumerate(overrides):
            problems.extend(apply_override(root, override, order))
    return Document(text, root, problems)


def _root(tree: Node | None, text: Text, problems: list[Diagnostic]) -> MapNode | None:
    if isinstance(tree, MapNode):
        return tree
    if tree is None or (isinstance(tree, ScalarNode) and tree.value is None):
        help = "`sora-spec init` writes a spec to start from; `sora-spec show dit` prints a whole one."
        problems.append(Diagnostic("E105", f"{text.name} holds no spec", help=help, file=text.name))
        return None
    what = "a list" if isinstance(tree, ListNode) else "a single value"
    message = f"a spec is a mapping of sections, but this file is {what}"
    first = Span(text, tree.span.start, min(tree.span.end, tree.span.start + 1))
    problems.append(Diagnostic("E106", message, first, help="Start with `version: 1`, `name: …`, `clip: …`."))
    return None
