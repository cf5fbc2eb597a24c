"""Records hold what the models hold: for every packaged spec, and for anything that the schema allows."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sora_spec.language.changes import changed, overrides_between
from sora_spec.language.grammar import check_tree, language
from sora_spec.language.loading import check, dump_spec, load_record, load_spec
from sora_spec.language.overrides import apply_override
from sora_spec.language.packaged import packaged_names
from sora_spec.language.record import Record, as_record, record_spec
from sora_spec.language.schema.derived import DERIVED
from sora_spec.language.schema.section import Section
from sora_spec.language.schema.spec import Spec
from sora_spec.language.source import load_document, parse_document
from sora_spec.language.span import Text

RELAXED = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow], database=None)


def assert_same(record: Any, model: Any, path: str = "spec") -> None:
    """Field for field, types included."""
    if isinstance(model, BaseModel):
        assert isinstance(record, Record), path
        assert type(record).__name__ == type(model).__name__, path
        assert list(record.__dict__) == list(type(model).model_fields), path
        for name in type(model).model_fields:
            assert_same(getattr(record, name), getattr(model, name), f"{path}.{name}")
        return
    assert type(record) is type(model), path
    assert record == model, path
    if isinstance(model, tuple):
        assert [type(item) for item in record] == [type(item) for item in model], path


def same(record: Any, model: Spec) -> None:
    """All that both can do."""
    assert_same(record, model)
    assert repr(record) == repr(model)
    assert record.clip.seconds == model.clip.seconds
    assert record.parallel.ranks == model.parallel.ranks
    for mode in ("python", "json"):
        for exclude in (False, True):
            wanted = model.model_dump(mode=mode, exclude_defaults=exclude)
            assert record.model_dump(mode=mode, exclude_defaults=exclude) == wanted
            assert repr(record.model_dump(mode=mode)) == repr(model.model_dump(mode=mode))
    assert dump_spec(record) == dump_spec(model)


# --- anything that the schema allows ---------------------------------------------------------------------------------


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


@RELAXED
@given(ANY_SPEC)
def test_a_record_of_any_values_equals_the_models(values: dict[str, Any]) -> None:
    same(record_spec(values), Spec.model_validate(values))


@RELAXED
@given(ANY_SPEC)
def test_a_record_of_models_equals_the_record_of_their_values(values: dict[str, Any]) -> None:
    record = record_spec(values)
    assert as_record(Spec.model_validate(values)) == record
    assert as_record(record) is record
    assert hash(as_record(Spec.model_validate(values))) == hash(record)
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record


@RELAXED
@given(ANY_SPEC, ANY_SPEC)
def test_equality_is_that_of_the_models(first: dict[str, Any], second: dict[str, Any]) -> None:
    one, two = record_spec(first), record_spec(second)
    assert (one == two) == (Spec.model_validate(first) == Spec.model_validate(second))
    for name in Spec.model_fields:
        left, right = getattr(one, name), getattr(two, name)
        models = [getattr(Spec.model_validate(values), name) for values in (first, second)]
        assert (left == right) == (models[0] == models[1])
        assert left != right or hash(left) == hash(right)


@RELAXED
@given(ANY_SPEC, ANY_SPEC)
def test_overrides_between_any_two_specs_turn_the_text_of_the_first_into_the_second(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    before, after = record_spec(first), record_spec(second)
    overrides = overrides_between(before, after)
    models = Spec.model_validate(first), Spec.model_validate(second)
    assert overrides == overrides_between(*models) == overrides_between(before, models[1])
    document = parse_document(Text("spec", json.dumps(first, ensure_ascii=False)))
    assert document.root is not None
    for order, text in enumerate(overrides):
        assert apply_override(document.root, text, order) == []
    found, problems = check_tree(document.root)
    assert problems == []
    assert record_spec(found.given) == after


# --- packaged specs and single cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_specs_are_the_same_either_way(name: str) -> None:
    same(load_record(name), load_spec(name))


def test_a_document_gives_both(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(dump_spec(load_record("tiny-latte")), encoding="utf-8")
    checked = check(load_document(path, ["train.batch=16", "clip.fps=8"]))
    same(checked.record(), checked.spec())


@pytest.mark.parametrize("load", [load_record, load_spec])
def test_changes_work_on_both(load: Any) -> None:
    spec = load("tiny-latte")
    again = changed(spec, {"train.recompute": {"kind": "blocks", "every": 2}, "clip.frames": 8, "parallel.shard": 2})
    assert type(again) is type(spec)
    assert type(again.train.recompute).__name__ == "BlockRecompute"
    assert again.train.recompute.kind == "blocks"
    assert (again.train.recompute.every, again.clip.frames, again.parallel.ranks) == (2, 8, 2)
    assert overrides_between(spec, again)[-1] == "parallel.shard=2"
    assert "train.recompute={kind: blocks, every: 2}" in overrides_between(spec, again)
    assert spec == load("tiny-latte")


def test_a_record_cannot_be_set() -> None:
    spec = load_record("tiny-dit")
    with pytest.raises(AttributeError):
        spec.name = "other"
    with pytest.raises(AttributeError):
        del spec.name
    with pytest.raises(AttributeError):
        _ = spec.backbone.nothing  # type: ignore[attr-defined]


def test_records_have_what_the_models_derive() -> None:
    """A property added to a model alone would be missing where the model is not."""
    plain = {name for name in dir(Section) if not name.startswith("__")}
    models = _models(Section)
    assert {model.__name__ for model in models} >= set(DERIVED)
    for model in models:
        own = {name for name in dir(model) if not name.startswith("_")} - plain - set(model.model_fields)
        assert own == {name for name in vars(DERIVED.get(model.__name__, object)) if not name.startswith("_")}, model


def _models(base: type[BaseModel]) -> list[type[BaseModel]]:
    return [model for child in base.__subclasses__() for model in (child, *_models(child))]


def test_an_override_names_the_kind_of_a_section_that_a_text_may_leave_out() -> None:
    given = {"kind": "sincos", "space_scale": 2.0}
    scaled = load_record("tiny-dit", ["backbone.position={kind: sincos, space_scale: 2.0}"])
    whole = {"kind": "transformer", "depth": 2, "width": 64, "heads": 2, "position": given}
    assert overrides_between(load_record("tiny-dit"), scaled) == ["backbone.position={kind: sincos, space_scale: 2.0}"]
    other = load_record("tiny-dit", [f"backbone={json.dumps(whole)}"])
    assert load_record("tiny-dit", overrides_between(load_record("tiny-dit"), other)) == other


@pytest.mark.parametrize("text", ["...", "---", "...a", "---a"])
def test_text_that_would_end_a_document_is_quoted(text: str) -> None:
    before, after = load_record("tiny-dit"), load_record("tiny-dit", [f'train.data="{text}"'])
    assert load_record("tiny-dit", overrides_between(before, after)).train.data == text
