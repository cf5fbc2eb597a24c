"""What the models do beside holding fields: they are keys of caches, are copied, and end what was checked."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from sora_spec.language.grammar import check_tree
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text
from tests.support.any_spec import ANY_SPEC, RELAXED


@RELAXED
@given(ANY_SPEC)
def test_what_the_checker_hands_on_is_what_was_written(values: dict[str, Any]) -> None:
    document = parse_document(Text("spec", json.dumps(values, ensure_ascii=False)))
    assert document.root is not None
    found, problems = check_tree(document.root)
    assert problems == []
    spec, wanted = Spec.model_validate(found.given), Spec.model_validate(values)
    assert repr(spec) == repr(wanted)  # types included, and whether a number is whole
    assert spec.model_fields_set == wanted.model_fields_set


@RELAXED
@given(ANY_SPEC, ANY_SPEC)
def test_equality_is_pydantics_and_equal_models_are_one_key(first: dict[str, Any], second: dict[str, Any]) -> None:
    one, two, again = (Spec.model_validate(values) for values in (first, second, first))
    assert (one, hash(one)) == (again, hash(again))
    for name in Spec.model_fields:
        left, right = getattr(one, name), getattr(two, name)
        same = BaseModel.__eq__(left, right) if isinstance(left, BaseModel) else left == right
        assert (left == right) is same
        assert not same or hash(left) == hash(right)


@RELAXED
@given(ANY_SPEC)
def test_copies_are_equal(values: dict[str, Any]) -> None:
    spec = Spec.model_validate(values)
    for hashed in (False, True):  # what has been a key carries its hash; a copy must not carry one of another process
        for again in (copy.deepcopy(spec), copy.copy(spec), pickle.loads(pickle.dumps(spec))):
            assert (again, hash(again)) == (spec, hash(Spec.model_validate(values)))
        assert not hashed or b"_hash" not in pickle.dumps(spec)
        hash(spec)


def test_a_changed_copy_is_another_key() -> None:
    spec = load_spec("tiny-dit")
    assert {spec: 1}[load_spec("tiny-dit")] == 1
    again = spec.model_copy(update={"name": "other"})
    assert again != spec
    assert hash(again) == hash(load_spec("tiny-dit", ["name=other"]))


def test_a_spec_cannot_be_set() -> None:
    spec: Any = load_spec("tiny-dit")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        del spec.name
    with pytest.raises(AttributeError):
        _ = spec.backbone.nothing
