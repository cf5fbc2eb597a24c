"""What the language's JSON schema says of a field, and knobs whose settings are those that it lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sora_spec.language.changes import flow
from sora_spec.language.grammar import language, resolve
from sora_spec.plan.knobs.knob import Knob, Setting, Situation

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def field_at(spec: Spec, path: str) -> dict[str, Any] | None:
    """JSON schema of a field, in the kinds that the spec has chosen; None where the language has no such field."""
    root = language()
    schema, value = root, cast("Any", spec)
    for segment in path.split("."):
        schema = _variant(schema, value)
        if segment not in schema.get("properties", {}):
            return None
        schema = schema["properties"][segment]
        value = getattr(value, segment, None)
    return schema


def _variant(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    root = language()
    schema = resolve(schema, root)
    if "anyOf" in schema:
        schema = resolve(schema["anyOf"][0], root)
    if "oneOf" in schema:
        schema = resolve({"$ref": schema["discriminator"]["mapping"].get(getattr(value, "kind", ""), "")}, root)
    return schema


def kinds_at(spec: Spec, path: str) -> list[str]:
    """Kinds of a section that has several."""
    schema = field_at(spec, path) or {}
    return list(schema.get("discriminator", {}).get("mapping", {}))


def help_at(path: str) -> str:
    """What the language says about a field: the text that editors show."""
    root = language()
    schema: dict[str, Any] = root
    for segment in path.split("."):
        schema = resolve(schema, root)
        variants = [schema] + [resolve(variant, root) for variant in schema.get("oneOf", ())]
        schema = next((v["properties"][segment] for v in variants if segment in v.get("properties", {})), {})
    return schema.get("description", "")


def field_knob(
    path: str, label: str, words: dict[str, str], applies: Callable[[Situation], bool] = lambda _: True
) -> Knob:
    """A knob for a field whose settings the schema lists: a yes or no, a choice, or a kind."""

    def values(at: Situation) -> list[str]:
        schema = field_at(at.spec, path) or {}
        if schema.get("type") == "boolean":
            return ["false", "true"]
        return [str(value) for value in schema.get("enum", ())] or [
            f"{{kind: {kind}}}" for kind in kinds_at(at.spec, path)
        ]

    def settings(at: Situation) -> list[Setting]:
        return [Setting(words.get(value, _bare(value)), at.question.having(path, value)) for value in values(at)]

    def shown(at: Situation) -> str:
        value: Any = at.spec
        for segment in path.split("."):
            value = getattr(value, segment)
        text = f"{{kind: {value.kind}}}" if hasattr(value, "kind") else flow(value)
        return words.get(text, _bare(text))

    def there(at: Situation) -> bool:
        return field_at(at.spec, path) is not None and applies(at)

    return Knob(path.rpartition(".")[2], label, help_at(path), shown, settings, applies=there)


def _bare(value: str) -> str:
    return value.removeprefix("{kind: ").removesuffix("}")
