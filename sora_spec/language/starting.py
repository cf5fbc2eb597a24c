"""Starting points of `init`: a packaged spec in which every line says what it is.

The words are the language's own: the docstrings of its fields, which the packaged JSON schema carries. What the
packaged file says beside a line is kept behind them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from textwrap import wrap
from typing import Any

from sora_spec.language.grammar import language, resolve
from sora_spec.language.packaged import specs_folder
from sora_spec.language.scalars import plain_scalar
from sora_spec.language.source import load_document
from sora_spec.language.yaml_tree import Entry, MapNode, Node, ScalarNode

WIDTH = 118
"""Columns of a line, its comment included; longer words stand above it."""
Schema = dict[str, Any]


def schema_reference(target: Path | None) -> str:
    """Where an editor finds the packaged schema: as seen from the spec where both lie below the current folder.

    A relative path holds for whoever has the same folders; everywhere else the place on this machine is given.
    """
    schema = (specs_folder() / "schema.json").resolve()
    here = Path.cwd().resolve()
    if target is not None and schema.is_relative_to(here) and target.resolve().is_relative_to(here):
        relative = os.path.relpath(schema, target.resolve().parent)
        if not re.search(r"[\s%]", relative):
            return relative
    return schema.as_uri()


def starting_point(source: Path, target: str, name: str | None, schema: str) -> str:
    """The packaged spec at `source` with every line explained, for a file at `target`.

    Args:
        source: a packaged spec.
        target: what commands in its comments call the new file.
        name: the spec's new name; None keeps the old one.
        schema: what an editor is pointed to.
    """
    root = load_document(source).root
    assert root is not None
    lines = root.span.text.content.splitlines()
    head: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        line = line.replace(f"specs/{source.name}", target)
        head.append(line if name is None else line.replace(f"runs/{source.stem}", f"runs/{name}"))
    writer = _Writer(lines, len(head))
    writer.section(root, language(), "", {} if name is None else {"name": _scalar(name)})
    return "\n".join([f"# yaml-language-server: $schema={schema}", *head, *writer.out, ""])


def _scalar(name: str) -> str:
    """A name as YAML: quoted where it would be read as something else, such as `007`."""
    return name if isinstance(plain_scalar(name), str) else json.dumps(name)


class _Writer:
    """Writes sections in block style, each line with its words."""

    def __init__(self, lines: list[str], head: int) -> None:
        self.lines, self.head = lines, head
        self.out: list[str] = []

    def section(self, node: MapNode, schema: Schema, pad: str, given: dict[str, str]) -> None:
        """Every entry of a section, and at its end which others there are."""
        fields: Schema = schema["properties"]
        for key, entry in node.entries.items():
            field = fields[key]
            meant = _meant(field, entry.node)
            above, beside = self._own_comments(entry)
            if isinstance(entry.node, MapNode):
                if not pad:
                    self.out.append("")
                self._line(f"{pad}{key}:", [*above, field["description"], *beside])
                self.section(entry.node, meant, pad + "  ", {})
            else:
                words = _kind_words(schema) if key == "kind" else [field["description"], *_choices(meant)]
                value = given.get(key) or _written(entry.node)
                self._line(f"{pad}{key}: {value}", [*above, *words, *beside])
        others = [key for key in fields if key not in node.entries]
        if others and pad:
            self._comment(pad, f"also: {', '.join(others)}")

    def _line(self, text: str, words: list[str]) -> None:
        comment = " ".join(words)
        if len(text) + len(comment) + 4 <= WIDTH:
            self.out.append(f"{text}  # {comment}")
        else:
            self._comment(text[: len(text) - len(text.lstrip())], comment)
            self.out.append(text)

    def _comment(self, pad: str, words: str) -> None:
        self.out += [f"{pad}# {row}" for row in wrap(words, WIDTH - len(pad) - 2, break_on_hyphens=False)]

    def _own_comments(self, entry: Entry) -> tuple[list[str], list[str]]:
        """What the packaged file says above and beside the line that begins with this key."""
        row = entry.key_span.line - 1
        line = self.lines[row]
        if line[: entry.key_span.column - 1].strip():
            return [], []  # inside braces: the comment belongs to the first key of the line
        above: list[str] = []
        while row > self.head and self.lines[row - 1].lstrip().startswith("#"):
            row -= 1
            above.insert(0, self.lines[row].lstrip(" #"))
        beside = re.search(r"\s#\s*(.*)$", line)
        return above, [_sentence(beside[1])] if beside else []


def _sentence(words: str) -> str:
    return f"Here: {words.rstrip('.')}."


def _written(node: Node) -> str:
    return node.span.text.content[node.span.start : node.span.end]


def _meant(field: Schema, node: Node) -> Schema:
    """The schema of a value: of its kind where there are several, and never of `null`."""
    schema: Schema = field["anyOf"][0] if "anyOf" in field else field
    if "$ref" in schema:
        schema = resolve({"$ref": schema["$ref"]}, language())  # with the section's own words
    if "oneOf" in schema:
        mapping: dict[str, str] = schema["discriminator"]["mapping"]
        kind = node.entries["kind"].node if isinstance(node, MapNode) else None
        assert isinstance(kind, ScalarNode)
        chosen = resolve({"$ref": mapping[str(kind.value)]}, language())
        schema = chosen | {"x-kinds": list(mapping), "x-kind": kind.value}
    return schema


def _kind_words(schema: Schema) -> list[str]:
    """What this kind is, and which others there are."""
    others = [kind for kind in schema.get("x-kinds", []) if kind != schema["x-kind"]]
    return [schema["description"], *([f"Other kinds: {', '.join(others)}."] if others else [])]


def _choices(schema: Schema) -> list[str]:
    found = [str(choice) for choice in schema.get("enum", [])]
    return [f"One of {', '.join(found)}."] if found else []
