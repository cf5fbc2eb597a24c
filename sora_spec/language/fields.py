"""What the language's JSON schema says of a field at a dotted path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sora_spec.language.grammar import language, resolve

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def field_at(spec: Spec, path: str) -> dict[str, Any] | None:
    """JSON schema of a field, in the kinds that the spec has chosen; None where the language has no such field."""
    root = language()
    schema, value = root, cast("Any", spec)
    for segment in path.split("."):
        schema = resolve(schema, root)
        schema = resolve(schema["anyOf"][0], root) if "anyOf" in schema else schema
        if "oneOf" in schema:
            schema = resolve({"$ref": schema["discriminator"]["mapping"].get(getattr(value, "kind", ""), "")}, root)
        if segment not in schema.get("properties", {}):
            return None
        schema, value = schema["properties"][segment], getattr(value, segment, None)
    return schema


def kinds_at(spec: Spec, path: str) -> list[str]:
    """Kinds of a section that has several."""
    return list((field_at(spec, path) or {}).get("discriminator", {}).get("mapping", {}))


def help_at(path: str) -> str:
    """What the language says about a field: the text that editors show."""
    root = language()
    schema: dict[str, Any] = root
    for segment in path.split("."):
        schema = resolve(schema, root)
        variants = [schema] + [resolve(variant, root) for variant in schema.get("oneOf", ())]
        schema = next((v["properties"][segment] for v in variants if segment in v.get("properties", {})), {})
    return schema.get("description", "")
