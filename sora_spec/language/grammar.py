"""A tree of values against the language: unknown and missing keys, wrong types, ranges and choices, all at once.

The language is the packaged JSON schema, which is generated from the pydantic models; a test holds the two together.
Reading it instead of the models keeps pydantic out of `validate`: it would take longer to import than all the rest.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.packaged import specs_folder
from sora_spec.language.scalars import Scalar
from sora_spec.language.span import Span
from sora_spec.language.values import BROKEN, Values, from_default, from_given
from sora_spec.language.yaml_tree import Entry, ListNode, MapNode, Node, ScalarNode

Schema = dict[str, Any]


def _wording() -> Any:
    """The sentences, imported only when one is needed: most specs are right."""
    from sora_spec.language import wording

    return wording


@cache
def language() -> Schema:
    """The packaged JSON schema."""
    return json.loads((specs_folder() / "schema.json").read_text(encoding="utf-8"))


def check_tree(root: MapNode) -> tuple[Values, list[Diagnostic]]:
    """The spec's values, with holes where something is wrong, and every problem that a single value has."""
    checker = _Checker(language())
    values = checker.mapping(checker.schema, Entry(_top(root), root), "")
    return values, checker.problems


def _top(root: MapNode) -> Span:
    """Where a missing section is reported: the first key of the file."""
    first = next(iter(root.entries.values()), None)
    if first is not None and first.key_span.text is root.span.text:
        return first.key_span
    return Span(root.span.text, root.span.start, min(root.span.start + 1, root.span.end))


def resolve(schema: Schema, root: Schema) -> Schema:
    """A schema with its `$ref` followed; keys beside the reference win."""
    if "$ref" not in schema:
        return schema
    target = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def kinds_of(section: str) -> list[str]:
    """Kinds of a section, as the language lists them; `a.b` for the section `b` of a kind of `a`."""
    root = language()
    found = [root]
    for name in section.split("."):
        has = next(schema["properties"][name] for schema in found if name in schema["properties"])
        found = [resolve(kind, root) for kind in resolve(has, root)["oneOf"]]
    return [kind["properties"]["kind"]["const"] for kind in found]


class _Checker:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.problems: list[Diagnostic] = []

    def value(self, schema: Schema, entry: Entry, path: str) -> Any:
        """The value behind a key, or BROKEN with its problem reported."""
        if isinstance(entry.node, ScalarNode) and entry.node.refused:
            return BROKEN
        schema = resolve(schema, self.schema)
        if "anyOf" in schema:  # the language has only one kind of it: something, or null
            if isinstance(entry.node, ScalarNode) and entry.node.value is None:
                return None
            schema = resolve(schema["anyOf"][0], self.schema)
        if "oneOf" in schema:
            return self._union(schema, entry, path)
        match schema.get("type"):
            case "object":
                if not isinstance(entry.node, MapNode):
                    return self._wrong_type(schema, entry, path)
                return self.mapping(schema, entry, path)
            case "array":
                return self._list(schema, entry, path)
            case _:
                return self._scalar(schema, entry, path)

    def mapping(
        self, schema: Schema, entry: Entry, path: str, kind: str = "", siblings: frozenset[str] = frozenset()
    ) -> Values:
        """A section. `siblings` are keys of other kinds that an override of `kind` made void: they are dropped."""
        assert isinstance(entry.node, MapNode)
        properties: dict[str, Schema] = schema["properties"]
        written = entry.node.entries
        fields, meant = dict[str, Any](), set[str | None]()
        for key, child in written.items():
            if key in properties:
                fields[key] = self.value(properties[key], child, _join(path, key))
            elif not (key in siblings and child.key_span.text.origin != "argument"):
                words = _wording()
                meant.add(words.meant_key(key, properties, path))
                self.problems.append(
                    words.unknown_key(key, child.key_span, path, properties, written, self.schema, kind)
                )
        given = {key: from_given(value) for key, value in fields.items()}
        missing = [key for key in schema.get("required", ()) if key not in fields]
        unmentioned = [key for key in missing if key not in meant]  # a misspelt key is one problem, not two
        if unmentioned:
            self.problems.append(_wording().missing_keys(unmentioned, entry.key_span, path, properties))
        for key, child_schema in properties.items():
            if key not in fields:
                fields[key] = BROKEN if key in missing else self._default(child_schema)
        return Values(fields, given)

    def _default(self, schema: Schema) -> Any:
        if "default" in schema:
            return from_default(schema["default"])
        return schema.get("const", BROKEN)

    def _union(self, schema: Schema, entry: Entry, path: str) -> Any:
        found: dict[str, str] = schema["discriminator"]["mapping"]
        order = [variant["$ref"] for variant in schema["oneOf"]]  # as declared: what can be built comes first
        mapping = dict(sorted(found.items(), key=lambda item: order.index(item[1])))
        if not isinstance(entry.node, MapNode):
            return self._broken(_wording().no_mapping(entry, path, list(mapping)))
        kind_entry = entry.node.entries.get("kind")
        kind = kind_entry.node.value if kind_entry and isinstance(kind_entry.node, ScalarNode) else None
        if kind_entry is None or not isinstance(kind, str) or kind not in mapping:
            if kind_entry is None:
                self.problems.append(_wording().no_kind(entry, path, list(mapping)))
            elif not (isinstance(kind_entry.node, ScalarNode) and kind_entry.node.refused):
                self.problems.append(_wording().unknown_kind(kind_entry, path, mapping))
            meant = _wording().meant_kind(kind, mapping)
            if meant is None:
                self._whatever_the_kind(schema, entry, path)
            else:
                self._as_of_kind(meant, resolve({"$ref": mapping[meant]}, self.schema), entry, path)
            return BROKEN
        siblings = frozenset[str]()
        if kind_entry.key_span.text.origin == "argument":
            variants = [resolve(variant, self.schema) for variant in schema["oneOf"]]
            siblings = frozenset(key for variant in variants for key in variant["properties"])
        return self.mapping(resolve({"$ref": mapping[kind]}, self.schema), entry, path, kind, siblings)

    def _as_of_kind(self, kind: str, schema: Schema, entry: Entry, path: str) -> None:
        """Report what else is wrong in a section whose kind is misspelt, as if it were written right."""
        assert isinstance(entry.node, MapNode)
        written = entry.node.entries["kind"]
        right = Entry(written.key_span, ScalarNode(written.node.span, kind))
        node = MapNode(entry.node.span, {**entry.node.entries, "kind": right})
        known = frozenset(schema["properties"])
        void = frozenset(node.entries) - known if written.key_span.text.origin == "argument" else frozenset[str]()
        self.mapping(schema, Entry(entry.key_span, node), path, kind, void)

    def _whatever_the_kind(self, schema: Schema, entry: Entry, path: str) -> None:
        """Report what is wrong in a section whose kind is not known: keys and values that no kind of it takes."""
        assert isinstance(entry.node, MapNode)
        variants = [resolve(variant, self.schema)["properties"] for variant in schema["oneOf"]]
        anything: dict[str, Schema] = {key: child for variant in reversed(variants) for key, child in variant.items()}
        for key, child in entry.node.entries.items():
            homes = [variant[key] for variant in variants if key in variant]
            if not homes:
                known = {name: anything[name] for name in anything if name != "kind"}
                self.problems.append(
                    _wording().unknown_key(key, child.key_span, path, known, entry.node.entries, self.schema, "")
                )
            elif key != "kind":
                found = [self._problems_of(home, child, _join(path, key)) for home in homes]
                self.problems += [] if [] in found else found[0]

    def _problems_of(self, schema: Schema, entry: Entry, path: str) -> list[Diagnostic]:
        trial = _Checker(self.schema)
        trial.value(schema, entry, path)
        return trial.problems

    def _list(self, schema: Schema, entry: Entry, path: str) -> Any:
        if not isinstance(entry.node, ListNode):
            return self._wrong_type(schema, entry, path)
        items = entry.node.items
        fewest, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        if not fewest <= len(items) <= most:
            self.problems.append(_wording().wrong_length(entry, path, len(items), fewest, most))
        prefix: list[Schema] = schema.get("prefixItems", [])
        if "items" not in schema:
            items = items[: len(prefix)]
        values = [
            self.value(
                prefix[index] if index < len(prefix) else schema["items"], Entry(item.span, item), f"{path}.{index}"
            )
            for index, item in enumerate(items)
        ]
        fits = fewest <= len(entry.node.items) <= most
        return tuple(values) if fits and all(value is not BROKEN for value in values) else BROKEN

    def _scalar(self, schema: Schema, entry: Entry, path: str) -> Any:
        node = entry.node
        if not isinstance(node, ScalarNode) or not _has_type(node.value, schema["type"]):
            return self._wrong_type(schema, entry, path)
        value = node.value
        choices: list[Scalar] | None = [schema["const"]] if "const" in schema else schema.get("enum")
        if choices is not None:
            return value if value in choices else self._broken(_wording().no_choice(entry, path, choices))
        if isinstance(value, str):
            return self._text(schema, entry, path, value)
        return self._number(schema, entry, path, value)

    def _text(self, schema: Schema, entry: Entry, path: str, value: str) -> Any:
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
        if fits and _pattern(schema.get("pattern", "")).search(value) and "\0" not in value:
            return value
        return self._broken(_wording().wrong_text(entry, path, schema))

    def _number(self, schema: Schema, entry: Entry, path: str, value: Scalar) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if not math.isfinite(value):
            return self._broken(_wording().not_finite(entry, path))
        low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
        high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
        if low <= value <= high and above < value < below:
            return float(value) if schema["type"] == "number" else value
        return self._broken(_wording().out_of_range(entry, path, schema))

    def _wrong_type(self, schema: Schema, entry: Entry, path: str) -> Any:
        return self._broken(_wording().wrong_type(entry, path, schema))

    def _broken(self, problem: Diagnostic) -> Any:
        self.problems.append(problem)
        return BROKEN


@cache
def _pattern(written: str) -> re.Pattern[str]:
    """A pattern as JSON schema and pydantic mean it: `$` is the very end; Python's also stands before a line end."""
    return re.compile(re.sub(r"(?<!\\)\$\Z", r"\\Z", written))


def _has_type(value: Scalar, wanted: str) -> bool:
    match wanted:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


__all__ = ["Node", "check_tree", "language", "resolve"]
