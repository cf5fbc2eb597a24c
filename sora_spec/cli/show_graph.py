"""`sora-spec show --graph`: the model graph of a spec as text, JSON, Mermaid or SVG."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.graph.component import COMPONENTS, Component, graph_from_spec
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.graph.eager.tape import YamlPath
from sora_spec.graph.setting import OptimizerKind, Precision, Recompute, Setting
from sora_spec.graph.show.json_values import graph_values
from sora_spec.graph.show.mermaid import mermaid
from sora_spec.graph.show.overview import (
    overview,
    overview_picture,
    overview_text,
    recomputation_text,
    recomputation_values,
    recomputations,
)
from sora_spec.graph.show.picture import Picture, picture_of
from sora_spec.graph.show.printing import LineOf, dotted, graph_text
from sora_spec.graph.show.svg import svg
from sora_spec.language.loading import check
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document, locate

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.source import Document

FORMATS = ("text", "json", "mermaid", "svg")
_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "attention": get_args(Kernel),
    "temporal_attention": tuple(kernel for kernel in get_args(Kernel) if kernel != "cpu"),
    "recompute": get_args(Recompute),
    "optimizer": get_args(OptimizerKind),
}
_PIPED = 100  # columns where stdout is no terminal


def show_graph(path: str, overrides: list[str], component: str, format: str, settings: list[str]) -> None:
    """Print one component's graph, or for `all` the overview and the denoiser's.

    Raises SpecErrors: the spec is wrong. Raises UserError: an unknown component, format or setting, or a variant
    without a graph.
    """
    if component != "all" and component not in COMPONENTS:
        raise UserError(f"--component {component} is none of all, {', '.join(COMPONENTS)}")
    if format not in FORMATS:
        raise UserError(f"--format {format} is none of {', '.join(FORMATS)}")
    setting = parse_setting(settings)
    document = load_document(find_spec_file(path), overrides)
    spec, lines = check(document).spec(), lines_of(document)
    if component == "all":
        output.data(_everything(spec, format, setting, lines))
    else:
        name: Component = next(known for known in COMPONENTS if known == component)
        output.data(_one(spec, name, format, setting, lines))


def lines_of(document: Document) -> LineOf:
    """Where the values of a spec stand: the line of the value, or, for a default, of the section that is written."""
    known: dict[YamlPath, int | None] = {}

    def find(path: YamlPath) -> int | None:
        if path not in known:
            known[path] = _line(document, dotted(path))
        return known[path]

    return find


def _line(document: Document, path: str) -> int | None:
    """None for what an argument gave."""
    if document.root is None or not path:
        return None
    span, _ = locate(document.root, path)
    return None if span.text.origin == "argument" else span.line


def _one(spec: Spec, component: Component, format: str, setting: Setting, lines: LineOf) -> str:
    graph = graph_from_spec(spec, component, setting)
    match format:
        case "json":
            return json.dumps(graph_values(graph, lines) | {"setting": setting_values(setting)}, indent=1)
        case "text":
            return graph_text(graph, lines, columns())
        case _:
            return _drawn(picture_of(graph, lines), format)


def _everything(spec: Spec, format: str, setting: Setting, lines: LineOf) -> str:
    found = overview(spec, setting)
    if format == "json":
        graph = graph_values(graph_from_spec(spec, "denoiser", setting), lines)
        trades = recomputation_values(recomputations(spec, setting), lines)
        values = {"setting": setting_values(setting), "components": [part.values for part in found]}
        return json.dumps(graph | values | {"recomputation": trades}, indent=1)
    if format == "text":
        width = columns()
        head = [overview_text(found, width), recomputation_text(recomputations(spec, setting), width)]
        return "\n\n".join([*head, _one(spec, "denoiser", format, setting, lines)])
    return _drawn(overview_picture(spec.name, found), format)


def _drawn(picture: Picture, format: str) -> str:
    return svg(picture) if format == "svg" else mermaid(picture)


def columns() -> int:
    """Columns of the terminal, or of `COLUMNS`; a fixed number where the output goes to a file."""
    fallback = (_PIPED, 24)
    return shutil.get_terminal_size(fallback).columns if sys.stdout.isatty() else _given_columns()


def _given_columns() -> int:
    import os

    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and len(text) < 5 and int(text) > 0 else _PIPED


def parse_setting(settings: list[str]) -> Setting:
    """`batch=4`, `precision=bf16`, … as a Setting.

    Raises UserError: an unknown name, or a value that it cannot have.
    """
    found = Setting()
    names = [field.name for field in fields(Setting) if field.name != "selected"]
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            raise UserError(f"--setting {text}: give NAME=VALUE, where NAME is one of {', '.join(names)}")
        found = replace(found, **{name: _value(text, name, value, getattr(found, name))})
    if found.attention == "cpu" and found.temporal_attention is not None:
        raise UserError("--setting temporal_attention: the CPU has one kernel for all attention", "leave it out")
    return found


def _value(text: str, name: str, value: str, default: Any) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UserError(f"--setting {text}: {name} is one of {', '.join(_CHOICES[name])}")
        return value
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise UserError(f"--setting {text}: {name} is true or false")
        return value == "true"
    if not isinstance(default, int):
        return value
    least = 0 if default == 0 else 1
    if not value.isdecimal() or len(value) > 7 or not least <= int(value) <= 2**20:
        raise UserError(f"--setting {text}: {name} is a number from {least} to {2**20}")
    return int(value)


def setting_values(setting: Setting) -> dict[str, Any]:
    """The setting as plain values."""
    return {field.name: getattr(setting, field.name) for field in fields(Setting) if field.name != "selected"}
