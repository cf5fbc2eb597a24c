"""The sentences of E2xx: what a single value of a spec got wrong, and how to mend it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sora_spec.characters import visible
from sora_spec.language.diagnostics import Diagnostic, nearest
from sora_spec.language.other_words import CHOICES, ELSEWHERE, KEYS, KINDS, NO_GUESS
from sora_spec.language.scalars import Scalar
from sora_spec.language.span import Span
from sora_spec.language.yaml_tree import Entry, ListNode, MapNode, Node, ScalarNode

Schema = dict[str, Any]
Meaning = TypeVar("Meaning")

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
}

# What a missing key may look like, for keys without a default.
_EXAMPLES = {
    "version": "1",
    "name": "my-model",
    "clip": "{frames: 16, height: 256, width: 256}",
    "vae": "{kind: image_kl}",
    "patch": "{time: 1, space: 2}",
    "backbone": "{kind: transformer, depth: 12, width: 384, heads: 6}",
    "objective": "{kind: interpolant}",
    "sampler": "{kind: heun, steps: 30}",
    "frames": "16",
    "height": "256",
    "backbone.width": "384",
    "width": "256",
    "depth": "12",
    "heads": "6",
    "classes": "1000",
    "encoder": "google/t5-v1_1-xxl",
    "window": "[5, 8, 8]",
    "weights": "path/to/weights",
}


def meant_kind(word: Scalar, kinds: Iterable[str]) -> str | None:
    """The kind that a misspelt one, or a word of another system, stands for."""
    names = list(kinds)
    if not isinstance(word, str):
        return None
    flat = _flat(word)
    meant = KINDS.get(flat)
    return meant if meant in names else None if flat in NO_GUESS else nearest(word, names)


def _flat(word: str) -> str:
    return "_".join(word.lower().replace("-", " ").split())


def unknown_key(
    key: str, span: Span, path: str, known: Mapping[str, Schema], written: Iterable[str], language: Schema, kind: str
) -> Diagnostic:
    """E201. Suggests a similar key, the kind that has this key, or the section where it belongs.

    `kind` is the section's own kind, empty where a section has only one.
    """
    where = f"`{path}`" if path else "a spec"
    if kind:
        where += f" of kind `{kind}`"
    match = meant_key(key, known, path) or _key_of_training(key, path, known, language)
    place = None if match else _place_of(key, path, language)
    elsewhere = _of_section(ELSEWHERE, key, path)
    used = set(written)
    others = [name for name in known if name not in used]
    if match:
        help = f"Did you mean `{match}`?"
    elif elsewhere:
        help = elsewhere
    elif place:
        help = place
    elif others:
        help = f"Other keys of {where}: {listed(others)}."
    else:
        help = f"Remove it: {where} takes no other keys."
    message = f"{where} has no key `{shown(key)}`"
    return Diagnostic("E201", message, span, "unknown key", help=help, path=f"{path}.{key}".lstrip("."))


def meant_key(key: str, known: Iterable[str], path: str = "") -> str | None:
    """The key of the section at `path` that a misspelt one, or a word of another system, stands for."""
    names = list(known)
    for meant in _of_section(KEYS, key, path) or ():
        section, _, field = meant.rpartition(".")
        if (section or field) in names:
            return meant
        if field in names:
            return field
    other = _of_section(ELSEWHERE, key, path) or _of_section(KEYS, key, path)
    return None if other else nearest(key, names)


def _key_of_training(key: str, path: str, known: Mapping[str, Schema], language: Schema) -> str | None:
    """What a VAE's own `training` has of what a key stands for, before `train`, which is the denoiser's."""
    definition = language["$defs"].get(known.get("training", {}).get("$ref", "").rsplit("/", 1)[-1], {})
    if _of_section(ELSEWHERE, key, path):
        return None
    for word in (*(_of_section(KEYS, key, path) or ()), key):
        if word.split(".")[0] in definition.get("properties", {}):
            return f"training.{word}"
    return None


def _of_section(words: Mapping[str, Meaning], key: str, path: str) -> Meaning | None:
    """What a word means: in this section, written `section.word`, or else in any."""
    word = _flat(key)
    return words.get(f"{path.rpartition('.')[2]}.{word}") or words.get(word)


def _place_of(key: str, path: str, language: Schema) -> str | None:
    """Where in the language a key, or what a word of another system stands for, is at home, as a help line."""
    words = _of_section(KEYS, key, path)
    if words is None:
        return _home_of(key, path, language)
    for word in words:
        if home := _home_of(word.split(".")[0], path, language):
            return f"It is called `{word}`. {home}"
    return None


def _home_of(key: str, path: str, language: Schema) -> str | None:
    if path and key in language["properties"]:
        return f"`{key}` is a section of its own: move it to the left margin."
    own = path.split(".")[0]
    homes, kinds = list[str](), list[str]()
    for section, schema in language["properties"].items():
        for variant in schema.get("oneOf", [schema]):
            definition = language["$defs"].get(variant.get("$ref", "").rsplit("/", 1)[-1], {})
            if key in definition.get("properties", {}):
                (kinds if section == path else homes).append(
                    definition["properties"]["kind"]["const"] if section == path else section
                )
    if kinds:
        return f"`{key}` belongs to {' or '.join(f'`kind: {kind}`' for kind in kinds)}."
    homes = list(dict.fromkeys(home for home in homes if home != own))
    return f"`{key}` is a key of {' or '.join(f'`{home}`' for home in homes)}; move it there." if homes else None


def missing_keys(missing: Sequence[str], span: Span, path: str, properties: Mapping[str, Schema]) -> Diagnostic:
    """E202, one for all keys that a section lacks."""
    where = f"`{path}`" if path else "the spec"
    message = f"{where} lacks the {'key' if len(missing) == 1 else 'keys'} {listed(missing)}"
    lines = [f"`{key}: {_example(key, path, properties[key])}`" for key in missing]
    help = f"Add {', '.join(lines)}."
    return Diagnostic("E202", message, span, f"needs {listed(missing)}", help=help, path=path)


def _example(key: str, path: str, schema: Schema) -> str:
    section = path.split(".")[0]
    example = _EXAMPLES.get(f"{section}.{key}") or _EXAMPLES.get(key)
    return example if example is not None else str(schema.get("minimum", "…"))


def no_mapping(entry: Entry, path: str, kinds: Sequence[str]) -> Diagnostic:
    """E203 for a section given as one word, such as `sampler: heun`."""
    message = f"`{path}` must be a mapping with a `kind`, but it is {described(entry.node)}"
    value = entry.node.value if isinstance(entry.node, ScalarNode) else None
    if isinstance(value, str):
        kind = value if value in kinds else meant_kind(value, kinds) or "…"
    elif isinstance(value, bool) and "none" in kinds:  # a switch: on is the one kind that is not `none`
        others = [kind for kind in kinds if kind != "none"]
        kind = "none" if not value else others[0] if len(others) == 1 else "…"
    else:
        kind = kinds[0]
    help = f"Write `{path.rsplit('.', 1)[-1]}: {{kind: {kind}}}`. Kinds: {listed(kinds)}."
    return Diagnostic("E203", message, span_of(entry), "not a mapping", help=help, path=path)


def no_kind(entry: Entry, path: str, kinds: Sequence[str]) -> Diagnostic:
    """E202 for a section without its `kind`."""
    help = f"Add `kind: {kinds[0]}`. Kinds: {listed(kinds)}."
    return Diagnostic("E202", f"`{path}` lacks the key `kind`", entry.key_span, "needs `kind`", help=help, path=path)


def unknown_kind(entry: Entry, path: str, kinds: Mapping[str, str]) -> Diagnostic:
    """E205."""
    node = entry.node
    value = node.value if isinstance(node, ScalarNode) else None
    match = meant_kind(value, kinds)
    what = f"`{shown(value)}`" if isinstance(value, str) else described(node)
    help = (f"Did you mean `{match}`? " if match else "") + f"Kinds: {listed(kinds)}."
    message = f"`{path}` has no kind {what}" if isinstance(node, ScalarNode) else f"`{path}.kind` is {what}, not a word"
    return Diagnostic("E205", message, span_of(entry), "unknown kind", help=help, path=f"{path}.kind")


def no_choice(entry: Entry, path: str, choices: Sequence[Scalar]) -> Diagnostic:
    """E206."""
    value = entry.node.value if isinstance(entry.node, ScalarNode) else None
    names = [str(choice) for choice in choices]
    if len(names) == 1:
        message = f"`{path}` must be {names[0]}, but it is {described(entry.node)}"
        return Diagnostic("E206", message, span_of(entry), help=f"Write `{names[0]}`.", path=path)
    message = f"`{path}` is {described(entry.node)}, which is none of its choices"
    match = _similar_choice(value, names) if isinstance(value, str) else _closest(value, choices)
    help = (f"Did you mean `{match}`? " if match else "") + f"Choices: {listed(names)}."
    return Diagnostic("E206", message, span_of(entry), "not a choice", help=help, path=path)


def _similar_choice(value: str, names: Sequence[str]) -> str | None:
    flat = _flat(value)
    meant = next((word for word in (*CHOICES.get(flat, ()), KINDS.get(flat)) if word in names), None)
    return meant or (None if flat in CHOICES or flat in NO_GUESS else nearest(value, names))


def _closest(value: Scalar, choices: Sequence[Scalar]) -> str | None:
    numbers = [choice for choice in choices if isinstance(choice, int)]
    if isinstance(value, bool) or not isinstance(value, int) or not numbers:
        return None
    return str(min(numbers, key=lambda number: abs(number - value)))


def wrong_type(entry: Entry, path: str, schema: Schema) -> Diagnostic:
    """E203."""
    wanted = _TYPES[schema["type"]]
    message = f"`{path}` must be {wanted}, but it is {described(entry.node)}"
    help = _type_help(entry.node, path, schema)
    return Diagnostic("E203", message, span_of(entry), f"not {wanted}", help=help, path=path)


def _type_help(node: Node, path: str, schema: Schema) -> str:
    wanted = schema["type"]
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(node, ScalarNode) and value is None:
        return f"Give it a value, or remove the key{_default(schema)}."
    if wanted == "boolean" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        meant = "true" if value.lower() in ("yes", "on", "y") else "false"
        return f"YAML 1.2 has only `true` and `false`: write `{meant}`."
    if wanted in ("integer", "number") and isinstance(value, str):
        return _number_help(value, wanted, isinstance(node, ScalarNode) and node.quoted)
    if wanted == "integer" and isinstance(value, float) and math.isfinite(value) and abs(value) < 1e15:
        return f"Write `{round(value)}`."
    if wanted == "array" and isinstance(node, ScalarNode):
        return f"Write a list: `[{shown(str(value))}]`."
    if wanted == "string" and "enum" in schema and isinstance(node, ScalarNode):
        match = _similar_choice(node.span.source(), schema["enum"])
        return (f"Did you mean `{match}`? " if match else "") + f"Choices: {listed(schema['enum'])}."
    if wanted == "string" and isinstance(node, ScalarNode):
        return f'Put it into quotes: `"{shown(node.span.source())}"`.'
    if wanted == "object":
        return "Write it as `{key: value}`, or as indented lines below its key."
    return f"Write {_TYPES[wanted]}{_default(schema)}."


def _number_help(value: str, wanted: str, quoted: bool) -> str:
    bare = value.replace("_", "").replace(",", "").strip()
    if re.fullmatch(r"[-+]?\d{1,18}(\.\d+)?", bare):
        return f"Write `{bare}`{', without quotes' if quoted else ''}."
    suffix = re.fullmatch(r"(\d{1,9})\s*([kKmM])", bare)
    if suffix:
        return f"Write `{int(suffix[1]) * (1000 if suffix[2] in 'kK' else 1_000_000)}`."
    return f"Write {_TYPES[wanted]} in digits."


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return f"; the default is {default}" if isinstance(default, int | float | str) else ""


def wrong_length(entry: Entry, path: str, count: int, fewest: int, most: float) -> Diagnostic:
    """E207."""
    wanted = f"{fewest}" if fewest == most else f"at least {fewest}" if math.isinf(most) else f"{fewest} to {int(most)}"
    items = "item" if most == 1 or (math.isinf(most) and fewest == 1) else "items"
    message = f"`{path}` must have {wanted} {items}, but it has {count}"
    label = f"{count} {'item' if count == 1 else 'items'}"
    return Diagnostic("E207", message, span_of(entry), label, help=f"Write a list of {wanted} {items}.", path=path)


def wrong_text(entry: Entry, path: str, schema: Schema) -> Diagnostic:
    """E208."""
    value = str(entry.node.value) if isinstance(entry.node, ScalarNode) else ""
    longest = schema.get("maxLength")
    if longest is not None and len(value) > longest:
        message = f"`{path}` has {len(value)} characters, but may have up to {longest}"
        return Diagnostic("E208", message, span_of(entry), "too long", help="Choose a shorter one.", path=path)
    message = f"`{path}` is `{shown(value)}`, which cannot be used as a name"
    proposal = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-._")[:64]
    help = "Use letters, digits, `.`, `_` and `-`, starting with a letter or digit"
    help += f": `{proposal}`." if proposal else "."
    return Diagnostic("E208", message, span_of(entry), "not a name", help=help, path=path)


def not_finite(entry: Entry, path: str) -> Diagnostic:
    """E209."""
    message = f"`{path}` is {described(entry.node)}, but every number of a spec is finite"
    return Diagnostic("E209", message, span_of(entry), "not finite", help="Write an ordinary number.", path=path)


def out_of_range(entry: Entry, path: str, schema: Schema) -> Diagnostic:
    """E204."""
    wanted = _range(schema)
    message = f"`{path}` is {described(entry.node)}, but must be {wanted}"
    help = f"Write {_TYPES[schema['type']]} {wanted}{_default(schema)}."
    return Diagnostic("E204", message, span_of(entry), "out of range", help=help, path=path)


def _range(schema: Schema) -> str:
    """The bounds of a number in words."""
    if "minimum" in schema and "maximum" in schema:
        return f"from {_number(schema['minimum'])} to {_number(schema['maximum'])}"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    return " and ".join(f"{words} {_number(schema[key])}" for key, words in bounds.items() if key in schema)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e10 else f"{value:g}"


def described(node: Node) -> str:
    """What stands in the text, in words."""
    if isinstance(node, ListNode):
        count = len(node.items)
        return f"a list of {count} {'item' if count == 1 else 'items'}"
    if isinstance(node, MapNode):
        return "a mapping"
    if node.value is None:
        return "empty" if not node.span.source() else "null"
    if isinstance(node.value, str):
        return f"the text `{shown(node.value)}`"
    return shown(node.span.source())


def span_of(entry: Entry) -> Span:
    """The value's characters, or its key's where the value is empty or a whole block."""
    span = entry.node.span
    multiline = "\n" in span.source()
    return entry.key_span if span.start == span.end or (multiline and isinstance(entry.node, MapNode)) else span


def listed(names: Iterable[str]) -> str:
    """Names in backquotes, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def shown(text: str) -> str:
    """Start of a text, for a message, in one line."""
    flat = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return flat if len(flat) <= 40 else flat[:39] + "…"
