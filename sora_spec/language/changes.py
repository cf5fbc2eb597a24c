"""Changes of a spec: made on it, and written as the `key=value` arguments that make them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sora_spec.language.scalars import plain_scalar

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from sora_spec.language.schema.section import Section
    from sora_spec.language.schema.spec import Spec

Model = TypeVar("Model", bound="Section")

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
        value = getattr(type(model).model_validate({**dict(model), head: value}), head)
    return model.model_copy(update={head: value})


def overrides_between(before: Section, after: Section, path: str = "") -> list[str]:
    """`key=value` arguments that turn one spec into the other."""
    found: list[str] = []
    for name, field in type(before).model_fields.items():
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        inner = f"{path}{name}"
        if _is_section(old) and type(old) is type(new) and not _is_left_out(old, field.default):
            found += overrides_between(old, new, f"{inner}.")
        else:
            found.append(f"{inner}={flow(new)}")
    return found


def _is_section(value: Any) -> TypeIs[Section]:
    """Asked without the class: planning is imported by what follows runs, which must not wait for pydantic."""
    return hasattr(type(value), "model_fields")


def _is_left_out(section: Section, default: object) -> bool:
    """Whether a text may leave out this section and mean its kind: it has no `kind` to build on."""
    return "kind" in type(section).model_fields and type(section) is type(default)


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    if _is_section(value):
        # A section names its kind even where it is the default, at every depth.
        named = ["kind"] if "kind" in type(value).model_fields else []
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
