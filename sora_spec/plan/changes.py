"""Changes of a spec: made on the models, and written as the `key=value` arguments that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

Model = TypeVar("Model", bound=BaseModel)


def changed(spec: Spec, values: dict[str, Any]) -> Spec:
    """The spec with the values at dotted paths replaced: by what the models hold, or a whole section as a mapping."""
    for path, value in values.items():
        spec = _set(spec, path.split("."), value)
    return spec


def _set(model: Model, path: list[str], value: Any) -> Model:
    head, rest = path[0], path[1:]
    if not rest and isinstance(value, dict):
        return type(model).model_validate({**model.model_dump(), head: value})
    inner = _set(getattr(model, head), rest, value) if rest else value
    return model.model_copy(update={head: inner})


def overrides_between(before: BaseModel, after: BaseModel, path: str = "") -> list[str]:
    """`key=value` arguments that turn one spec into the other."""
    found: list[str] = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        inner = f"{path}{name}"
        if isinstance(old, BaseModel) and type(old) is type(new):
            found += overrides_between(old, new, f"{inner}.")
        else:
            found.append(f"{inner}={flow(new)}")
    return found


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, BaseModel):
        fields = {"kind": getattr(value, "kind", None), **value.model_dump(mode="json", exclude_defaults=True)}
        return flow({key: inner for key, inner in fields.items() if inner is not None})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
