"""Values of any spec that the schema allows, whatever the rules between sections say."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sora_spec.language.grammar import language

RELAXED = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow], database=None)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, without the rules between sections; keys with a default may be left out."""
    if "$ref" in schema:
        return st.deferred(lambda: values_of(language()["$defs"][schema["$ref"].rsplit("/", 1)[1]]))
    if "anyOf" in schema or "oneOf" in schema:
        return st.one_of([values_of(part) for part in schema.get("anyOf", schema.get("oneOf", []))])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "object":
            required = schema.get("required", [])
            parts = {key: values_of(part) for key, part in schema["properties"].items()}
            kind = {"kind"} & set(parts)  # a text names its kind even where it is the default
            needed = {key: part for key, part in parts.items() if key in required or key in kind}
            return st.fixed_dictionaries(needed, optional={k: part for k, part in parts.items() if k not in needed})
        case "array":
            if "prefixItems" in schema:
                return st.tuples(*map(values_of, schema["prefixItems"])).map(list)
            items = values_of(schema["items"])
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 4))
        case "integer":
            return st.integers(*_range(schema, 0))
        case "number":
            low, high = _range(schema, 1e-9)
            whole = st.integers(max(1, int(low)), int(high)) if high >= 1 else st.nothing()
            return st.floats(low, high) | whole
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case _:
            if "pattern" in schema:
                return st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,7}\Z")
            return st.sampled_from(["true", "null", "12", "1e3", "a"]) | st.text("ab01._-/ '\"#:{}[],é字~", max_size=8)


def _range(schema: dict[str, Any], gap: Any) -> tuple[Any, Any]:
    low = schema["minimum"] if "minimum" in schema else schema.get("exclusiveMinimum", 0) + gap
    high = schema.get("maximum")
    if high is None:
        high = schema["exclusiveMaximum"] - (gap or 1) if "exclusiveMaximum" in schema else 2**40
    return low, high


ANY_SPEC = values_of(language())
