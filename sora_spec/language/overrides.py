"""`key=value` arguments laid over a spec: `train.steps=100`, `vae.multipliers.0=2`, `condition={kind: none}`.

The value is YAML. Spans point into the argument itself, so that a report shows the argument with its caret.
"""

from __future__ import annotations

import re

from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.span import Span, Text
from sora_spec.language.yaml_tree import Entry, ListNode, MapNode, Node, ScalarNode, read_tree

_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+|\[\d{1,9}\])*", re.ASCII)
_SEGMENT = re.compile(r"[\w-]+", re.ASCII)
MAX_SEGMENTS = 16


def is_override(argument: str) -> bool:
    """Whether an argument reads as `dotted.path=value`."""
    path, equals, _ = argument.partition("=")
    return bool(equals) and _PATH.fullmatch(path) is not None


def apply_override(root: MapNode, argument: str, order: int = 0) -> list[Diagnostic]:
    """Lay one argument over the tree. Returns what is wrong with it; a wrong argument changes nothing."""
    text = Text("argument", argument, "argument", order)
    path, equals, _ = argument.partition("=")
    segments = list(_SEGMENT.finditer(path))
    if not equals or not _PATH.fullmatch(path) or len(segments) > MAX_SEGMENTS:
        message = "an override is `dotted.path=value`"
        help = "For example `train.steps=100` or `vae.multipliers.0=2`."
        return [Diagnostic("E114", message, Span(text, 0, max(1, len(path))), help=help)]
    value, problems = read_tree(text, start=len(path) + 1)
    if problems:
        return problems
    if value is None:  # `train.sample_every=` says null, as an empty value does in a file
        value = ScalarNode(Span(text, len(argument), len(argument)), None)
    keys = [(match.group(), Span(text, match.start(), match.end())) for match in segments]
    problem = _set(root, keys, value)
    return [problem] if problem else []


def _set(root: MapNode, keys: list[tuple[str, Span]], value: Node) -> Diagnostic | None:
    parent: MapNode | ListNode = root
    for depth, (key, span) in enumerate(keys):
        last = depth == len(keys) - 1
        above = ".".join(name for name, _ in keys[:depth])
        if isinstance(parent, ListNode):
            child = _item(parent, key)
            if child is None:
                count = len(parent.items)
                message = f"`{above}` has {count} {'item' if count == 1 else 'items'}, so there is no item `{key}`"
                help = f"Items count from 0; or give the whole list: `{above}=[…]`."
                return Diagnostic("E114", message, span, help=help)
            if last:
                parent.items[int(key)] = value
                return None
        else:
            child = parent.entries[key].node if key in parent.entries else None
            if last:
                parent.entries[key] = Entry(span, value)
                return None
            if child is None and keys[depth + 1][0].isdigit():
                name = f"{above}.{key}".lstrip(".")
                message = f"`{name}` is not written in the spec, so it has no item `{keys[depth + 1][0]}` to set"
                return Diagnostic("E114", message, span, help=f"Give the whole list: `{name}=[…]`.")
            if child is None or (isinstance(child, ScalarNode) and child.value is None):
                child = MapNode(span)
                parent.entries[key] = Entry(span, child)
        if isinstance(child, ScalarNode):
            message = f"`{above + '.' if above else ''}{key}` is a single value, so there is nothing inside it to set"
            return Diagnostic("E114", message, span, help=f"Set it whole: `{above + '.' if above else ''}{key}=…`.")
        parent = _own_copy(parent, key, child)
    return None


def _item(parent: ListNode, key: str) -> Node | None:
    return parent.items[int(key)] if key.isdigit() and len(key) < 10 and int(key) < len(parent.items) else None


def _own_copy(parent: MapNode | ListNode, key: str, child: MapNode | ListNode) -> MapNode | ListNode:
    """A copy of `child` in its place: an anchored value is shared, and only this use of it is overridden."""
    if isinstance(child, ListNode):
        copy: MapNode | ListNode = ListNode(child.span, list(child.items))
    else:
        copy = MapNode(child.span, dict(child.entries))
    if isinstance(parent, ListNode):
        parent.items[int(key)] = copy
    else:
        parent.entries[key] = Entry(parent.entries[key].key_span, copy)
    return copy
