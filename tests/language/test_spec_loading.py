"""Loading, dumping, the JSON schema, and the agreement of the text checker with the pydantic models."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sora_spec.errors import UserError
from sora_spec.language.grammar import check_tree, language, resolve
from sora_spec.language.loading import check, dump_spec, load_spec, spec_from_values
from sora_spec.language.packaged import packaged_names, packaged_path
from sora_spec.language.report import render_concise, render_full
from sora_spec.language.schema.json_schema import generate_schema, schema_text
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes, latent_frames, pixel_frames
from sora_spec.language.source import load_document, parse_document
from sora_spec.language.span import Text
from sora_spec.language.spec_errors import SpecErrors

VALUES: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "clip": {"frames": 17, "height": 64, "width": 96, "fps": 12},
    "vae": {"kind": "causal3d", "compression": {"time": 4, "space": 8}, "channels": 8, "width": 32},
    "patch": {"time": 1, "space": 2},
    "backbone": {"kind": "transformer", "depth": 2, "width": 96, "heads": 4, "position": {"kind": "rope"}},
    "temporal": {"kind": "joint"},
    "condition": {"kind": "class", "classes": 10},
    "objective": {"kind": "interpolant", "path": "vp", "prediction": "score", "weighting": "velocity"},
    "sampler": {"kind": "euler", "steps": 12, "guidance": 2.5},
    "train": {"batch": 6, "optimizer": {"kind": "adamw", "lr": 3e-4, "betas": [0.9, 0.95]}},
    "parallel": {"shard": 2},
    "export": {"frames": [1, 33], "batch": [1, 4], "backends": ["onnx", "tensorrt"]},
}
TEXT = dump_spec(spec_from_values(VALUES))


def with_value(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(VALUES)
    *above, last = path.split(".")
    section = values
    for key in above:
        section = section[key]
    section[last] = value
    return values


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_specs_are_valid_and_round_trip(name: str, tmp_path: Path) -> None:
    spec = load_spec(name)
    path = packaged_path(name)
    assert path is not None
    assert {problem.code for problem in check(load_document(path)).diagnostics} <= {"W401"}
    again = tmp_path / "again.yaml"
    again.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(again) == spec


def test_dump_names_every_default_and_puts_kind_first() -> None:
    lines = TEXT.splitlines()
    assert lines[:2] == ["version: 1", "name: small"]
    assert "  perceptual: {kind: none}" in TEXT or "    perceptual: {kind: none}" in TEXT
    assert "sampler: {kind: euler, guidance: 2.5, guidance_channels: null, steps: 12}" in lines


def test_values_and_text_give_the_same_spec() -> None:
    document = parse_document(Text("a", json.dumps(VALUES)))
    assert check(document).spec() == spec_from_values(VALUES)


def test_values_report_their_problems_as_text() -> None:
    with pytest.raises(SpecErrors) as caught:
        spec_from_values(with_value("backbone.heads", 5))
    assert [item.code for item in caught.value.diagnostics] == ["E304", "E305"][:1]
    assert '"heads": 5' in str(caught.value)


@pytest.mark.parametrize("value", [object(), math.nan, {1, 2}])
def test_values_that_no_spec_can_hold(value: object) -> None:
    with pytest.raises(UserError):
        spec_from_values(with_value("train.batch", value))


def test_overrides_reach_the_spec() -> None:
    spec = load_spec("dit", ["train.steps=7", "sampler={kind: ddim}", "condition={kind: none}", "vae.scale=1"])
    assert (spec.train.steps, spec.sampler.kind, spec.condition.kind) == (7, "ddim", "none")
    assert spec.vae.kind == "image_kl"
    assert spec.vae.scale == 1.0
    assert isinstance(spec.vae.scale, float)


def test_overriding_a_kind_drops_the_keys_that_only_the_old_kind_has() -> None:
    spec = load_spec("dit", ["objective.kind=interpolant", "sampler.kind=heun"])
    assert spec.objective.kind == "interpolant"
    assert (spec.sampler.kind, spec.sampler.guidance) == ("heun", 4.0)
    with pytest.raises(SpecErrors) as caught:  # a key that no kind has is still an error, and so is one just given
        load_spec("dit", ["sampler.kind=heun", "objective.kind=interpolant", "sampler.eta=1.0"])
    assert [item.code for item in caught.value.diagnostics] == ["E201"]


def test_shapes_of_a_causal_spec() -> None:
    shapes = derive_shapes(spec_from_values(VALUES))
    assert shapes.latent == (8, 5, 8, 12)
    assert shapes.grid == (5, 4, 6)
    assert (shapes.tokens, shapes.video, shapes.out_channels) == (120, (3, 17, 64, 96), 16)


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["causal3d", "image_kl"]))
def test_pixel_frames_invert_latent_frames(count: int, time: int, kind: str) -> None:
    spec = Spec.model_construct(vae=_Vae(kind, time))  # type: ignore[arg-type]
    assert latent_frames(spec, pixel_frames(spec, count)) == count


class _Vae:
    def __init__(self, kind: str, time: int) -> None:
        self.kind = kind
        self.compression = type("Compression", (), {"time": time})


# --- the JSON schema -------------------------------------------------------------------------------------------------


def test_committed_schema_is_fresh() -> None:
    path = Path(__file__).parents[2] / "specs" / "schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(), "run: sora-spec schema --output specs/schema.json"


def test_every_field_has_a_description() -> None:
    schema = generate_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name, definition in [("Spec", schema), *schema["$defs"].items()]:
        assert definition["description"], name
        assert definition["additionalProperties"] is False
        undocumented = {key for key, field in definition["properties"].items() if not field.get("description")}
        assert undocumented <= {"kind"}, name


def test_docstrings_of_several_lines_are_one_line() -> None:
    assert "Left out: height and width get" in generate_schema()["$defs"]["Rope"]["properties"]["axes"]["description"]


# --- the checker against the models ----------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([8, 16, 64, 4096, 4097, 65536, 65537, 100_001, 10**9 + 1, 2**63]),
    st.floats(-2, 2),
    st.sampled_from([1e12, 1.1e12, 1000.0, 16.0]),
    st.sampled_from(["", "a", "kl", "linear", "fp32", "none", "heun", "onnx", "a b"]),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["kind", "time", "lr"]), inner)
)


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, child in items for path in ((*prefix, key), *_paths(child, (*prefix, key)))]


FULL = spec_from_values(VALUES).model_dump(mode="json")


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A whole spec with one to three values replaced, removed or added."""
    values = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(values)))
        section = values
        for key in path[:-1]:
            section = section[key]
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            section[path[-1]] = draw(ANYTHING)
        elif what == "remove":
            del section[path[-1]]
        elif isinstance(section, dict):
            section["extra"] = 1
    return values


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_checker_and_models_agree(values: dict[str, Any]) -> None:
    """The text checker reads the JSON schema; pydantic validates the models. They accept the same values."""
    document = parse_document(Text("a", json.dumps(values)))
    assert document.root is not None
    found, problems = check_tree(document.root)
    spec = _validated(values)
    assert (spec is None) == bool(problems)
    if spec is not None:
        assert Spec.model_validate(found.given) == spec


def _validated(values: dict[str, Any]) -> Spec | None:
    try:
        return Spec.model_validate(values)
    except ValidationError:
        return None


def test_checker_fills_in_the_models_defaults() -> None:
    minimal = {
        key: VALUES[key] for key in ("version", "name", "clip", "vae", "patch", "backbone", "objective", "sampler")
    }
    document = parse_document(Text("a", json.dumps(minimal)))
    assert document.root is not None
    found, problems = check_tree(document.root)
    assert problems == []
    spec = Spec.model_validate(minimal)
    for path in _paths(spec.model_dump()):
        left: Any = found
        right: Any = spec
        for key in path:
            left, right = getattr(left, key), getattr(right, key)
        if not hasattr(right, "model_fields_set"):
            assert left == right, path


def test_the_schema_uses_only_what_the_checker_reads() -> None:
    """A keyword that the checker does not know would be a rule that `validate` forgets."""
    known = {
        "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
        "pattern", "minItems", "maxItems", "items", "prefixItems", "anyOf", "oneOf", "discriminator", "$ref", "default",
        "properties", "required", "additionalProperties", "patternProperties", "description", "title",
    }  # fmt: skip

    def visit(schema: dict[str, Any]) -> None:
        assert set(schema) <= known, schema
        if "anyOf" in schema:
            assert [len(schema["anyOf"]), schema["anyOf"][1]] == [2, {"type": "null"}]
        children = [*schema.get("anyOf", []), *schema.get("prefixItems", []), *schema.get("properties", {}).values()]
        for child in [*children, *([schema["items"]] if "items" in schema else [])]:
            visit(child)

    for definition in language()["$defs"].values():
        visit(definition)
    assert resolve({"$ref": "#/$defs/Clip", "description": "d"}, language())["description"] == "d"


# --- random texts ----------------------------------------------------------------------------------------------------


SHORT = """\
version: 1
name: short
x-adam: &adam {kind: adamw, lr: 1e-4}
clip: {frames: 8, height: 32, width: 32}
vae: {kind: identity}
patch: {space: 4}
backbone:
  kind: transformer
  depth: 2   # blocks
  width: 64
  heads: 4
objective: {kind: interpolant}
sampler: {kind: "heun"}
train:
  optimizer:
    <<: *adam
    betas: [0.9, 0.95]
"""
PIECES = [*"{}[]:\n\t\"'!|>%@#,é字\x85\u2028", "", ": ", "- ", "&a ", "*a", "<<: ", "? "]


@st.composite
def mutated_text(draw: st.DrawFn) -> str:
    """A valid spec with characters removed, doubled or inserted."""
    text = SHORT
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(st.sampled_from([*PIECES, text[start:end] * 2]) | st.text(max_size=4))
        text = text[:start] + piece + text[end:]
    return text


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_text())
def test_any_text_gives_a_spec_or_problems_that_point_into_it(text: str) -> None:
    source = Text("a.yaml", text)
    document = parse_document(source, ["train.steps=3"])
    checked = check(document)
    problems = checked.diagnostics
    assert problems or checked.spec()
    for problem in problems:
        for span in [problem.span, *(note.span for note in problem.notes)]:
            if span is not None:
                assert 0 <= span.start <= span.end <= len(span.text.content)
                assert span.line >= 1
                assert span.column >= 1
                assert span.text is source or span.text.origin == "argument"
    if problems:
        assert render_full(problems)
        assert len(render_concise(problems).splitlines()) == len(problems)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 64), st.integers(1, 8), st.sampled_from([1, 2, 4]), st.floats(1e-9, 1e3), st.floats(0, 0.99),
    st.sampled_from([None, 1.0, 0.1]), st.text("abcXYZ019._- '\"#:{}é字", min_size=1, max_size=12),
)  # fmt: skip
def test_dump_and_load_are_inverse(
    frames: int, depth: int, heads: int, lr: float, beta: float, clip: float | None, folder: str
) -> None:
    values = copy.deepcopy(VALUES)
    values["clip"]["frames"] = 1 + 4 * frames
    values["export"]["frames"] = [1, 1 + 4 * frames]
    values["backbone"] |= {"depth": depth, "heads": heads}
    values["train"] |= {"optimizer": {"kind": "adamw", "lr": lr, "betas": [beta, beta]}, "clip_grad": clip}
    values["train"]["data"] = folder
    spec = spec_from_values(values)
    again = check(parse_document(Text("a", dump_spec(spec))))
    assert again.diagnostics == []
    assert again.spec() == spec
