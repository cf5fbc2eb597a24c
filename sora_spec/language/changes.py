"""Changes of a spec: made on it, be it models or a record, and written as the `key=value` arguments that make them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sora_spec.language.record import Section, as_record, is_left_out, is_section, section_from
from sora_spec.language.scalars import plain_scalar

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

Model = TypeVar("Model", bound=Section)

_PLAIN = re.compile(r"[\w/.][\w./-]*", re.ASCII)


def changed(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """The spec with the values at dotted paths replaced: by what the models hold, or a whole section as a mapping."""
    for path, value in values.items():
        spec = _set(spec, path.split("."), value)
    return spec


def _set(model: Model, path: list[str], value: Any) -> Model:
    head, rest = path[0], path[1:]
    if rest:
        value = _set(getattr(model, head), rest, value)
    elif isinstance(value, dict):
        value = section_from(model, head, value)
    return model.model_copy(update={head: value})


def overrides_between(before: Section, after: Section, path: str = "") -> list[str]:
    """`key=value` arguments that turn one spec into the other; one may be models and the other a record."""
    before, after = as_record(before), as_record(after)
    found: list[str] = []
    fields: Any = type(before)
    for name in fields.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        inner = f"{path}{name}"
        if is_section(old) and type(old) is type(new) and not is_left_out(before, name):
            found += overrides_between(old, new, f"{inner}.")
        else:
            found.append(f"{inner}={flow(new)}")
    return found


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    if is_section(value):
        # A section names its kind even where it is the default, at every depth.
        named = ["kind"] if hasattr(value, "kind") else []
        given = dict.fromkeys([*named, *value.model_dump(mode="json", exclude_defaults=True)])
        return flow({name: getattr(value, name) for name in given})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    """Text without quotes where it then still means itself."""
    ends = value.startswith(("...", "---"))  # of a document, at the start of a line
    plain = _PLAIN.fullmatch(value) is not None and plain_scalar(value) == value and not ends
    return value if plain else json.dumps(value, ensure_ascii=False)
