"""Changes of a spec, and the arguments that make them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from sora_spec.language.changes import changed, overrides_between
from sora_spec.language.grammar import check_tree
from sora_spec.language.loading import load_spec
from sora_spec.language.overrides import apply_override
from sora_spec.language.schema.spec import Spec
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text
from tests.support.any_spec import ANY_SPEC, RELAXED


@RELAXED
@given(ANY_SPEC, ANY_SPEC)
def test_overrides_between_any_two_specs_turn_the_text_of_the_first_into_the_second(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    before, after = Spec.model_validate(first), Spec.model_validate(second)
    document = parse_document(Text("spec", json.dumps(first, ensure_ascii=False)))
    assert document.root is not None
    for order, text in enumerate(overrides_between(before, after)):
        assert apply_override(document.root, text, order) == []
    found, problems = check_tree(document.root)
    assert problems == []
    assert Spec.model_validate(found.given) == after


def test_changes_take_values_and_whole_sections() -> None:
    spec = load_spec("tiny-latte")
    again = changed(spec, {"train.recompute": {"kind": "blocks", "every": 2}, "clip.frames": 8, "parallel.shard": 2})
    assert again.train.recompute.kind == "blocks"
    assert (again.train.recompute.every, again.clip.frames, again.parallel.ranks) == (2, 8, 2)
    assert overrides_between(spec, again)[-1] == "parallel.shard=2"
    assert "train.recompute={kind: blocks, every: 2}" in overrides_between(spec, again)
    assert again.train.model_fields_set == spec.train.model_fields_set | {"recompute"}
    assert spec == load_spec("tiny-latte")


def test_an_override_names_the_kind_of_a_section_that_a_text_may_leave_out() -> None:
    given = {"kind": "sincos", "space_scale": 2.0}
    scaled = load_spec("tiny-dit", ["backbone.position={kind: sincos, space_scale: 2.0}"])
    whole = {"kind": "transformer", "depth": 2, "width": 64, "heads": 2, "position": given}
    assert overrides_between(load_spec("tiny-dit"), scaled) == ["backbone.position={kind: sincos, space_scale: 2.0}"]
    other = load_spec("tiny-dit", [f"backbone={json.dumps(whole)}"])
    assert load_spec("tiny-dit", overrides_between(load_spec("tiny-dit"), other)) == other


@pytest.mark.parametrize("text", ["...", "---", "...a", "---a"])
def test_text_that_would_end_a_document_is_quoted(text: str) -> None:
    before, after = load_spec("tiny-dit"), load_spec("tiny-dit", [f'train.data="{text}"'])
    assert load_spec("tiny-dit", overrides_between(before, after)).train.data == text
