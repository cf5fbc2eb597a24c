"""The JSON schema of the language, generated from the models. Committed as `specs/schema.json`.

It has three readers: editors (completion and hover), `sora_spec.language.grammar` (which checks specs against it
without importing pydantic) and people. A test compares the committed file with what this module generates.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from sora_spec.language.schema.section import Section
from sora_spec.language.schema.spec import Spec

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_IGNORED_KEYS = {"^x-": {"description": "Ignored; a place for anchors."}}


def generate_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a spec, with every field's docstring as its description."""
    schema = Spec.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    models = {model.__name__: model for model in _sections(Section)}
    for name, definition in [*definitions.items(), ("Spec", schema)]:
        _finish(definition, _field_docstrings(models[name]))
    return {"$schema": SCHEMA_ID, **schema, "$defs": dict(sorted(definitions.items()))}


def schema_text() -> str:
    """The schema as committed."""
    return json.dumps(generate_schema(), indent=2, ensure_ascii=False) + "\n"


def _sections(base: type[BaseModel]) -> list[type[BaseModel]]:
    return [model for child in base.__subclasses__() for model in (child, *_sections(child))]


def _finish(definition: dict[str, Any], docstrings: dict[str, str]) -> None:
    """Add descriptions and `x-` keys; drop the titles that pydantic derives from names."""
    if "properties" not in definition:
        return
    for name, field in definition["properties"].items():
        field.pop("title", None)
        if name in docstrings:
            field["description"] = docstrings[name]
    definition["description"] = " ".join(str(definition.get("description", "")).split())
    definition["patternProperties"] = _IGNORED_KEYS


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings below the fields of a model and of its bases."""
    found = dict[str, str]()
    for base in reversed(model.__mro__):
        if issubclass(base, Section):
            found |= _docstrings_in(sys.modules[base.__module__].__file__ or "").get(base.__name__, {})
    return found


def _docstrings_in(path: str) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_documented(node.body)) for node in classes}


def _documented(body: list[ast.stmt]) -> list[tuple[str, str]]:
    pairs = list[tuple[str, str]]()
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            pairs.append((field.target.id, " ".join(inspect.cleandoc(below.value.value).split())))
    return pairs
