"""From a file, or from values, to a checked `Spec`; and back to text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sora_spec.characters import harmful
from sora_spec.errors import UserError
from sora_spec.language.diagnostics import Diagnostic, has_errors
from sora_spec.language.grammar import check_tree
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.rules import check_rules
from sora_spec.language.source import Document, load_document, parse_document
from sora_spec.language.span import Text
from sora_spec.language.spec_errors import SpecErrors
from sora_spec.language.values import Values

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class Checked:
    """What is known of a document after all checks."""

    values: Values | None
    diagnostics: list[Diagnostic]

    @property
    def ok(self) -> bool:
        """Whether a `Spec` can be made of it. A GPU that no table knows (E330) is a matter of plans alone."""
        return self.values is not None and not has_errors(d for d in self.diagnostics if d.code != "E330")

    def spec(self) -> Spec:
        """The spec, as pydantic models; their import is what `validate` spares itself.

        Raises SpecErrors: with every problem, where a spec cannot be made.
        """
        if self.values is None or not self.ok:
            raise SpecErrors(self.diagnostics)
        from sora_spec.language.schema.spec import Spec

        return Spec.model_validate(self.values.given)


def check(document: Document, without: Collection[str] = ()) -> Checked:
    """Every problem of a document, in the order of its text. Imports no pydantic.

    `without`: codes of rules that do not hold here, such as E322 where other ranks share the batch than the file's.
    """
    if document.root is None:
        return Checked(None, document.problems)
    values, problems = check_tree(document.root)
    rules = [problem for problem in check_rules(values, document.root) if problem.code not in without]
    problems = [*document.problems, *problems, *rules]
    return Checked(values, sorted(problems, key=_order))


def _order(diagnostic: Diagnostic) -> tuple[bool, int, int]:
    span = diagnostic.span
    return (False, 0, 0) if span is None else (span.text.origin == "argument", span.text.order, span.start)


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec at `path`: a file, `-` for standard input, or the bare name of a packaged spec.

    Raises SpecErrors: with every problem of the file.
    """
    return check(load_document(find_spec_file(str(path)), overrides)).spec()


def spec_from_values(values: Mapping[str, Any]) -> Spec:
    """A spec from plain values, under the same rules; reports show the values as text.

    Raises SpecErrors: with every problem. Raises UserError: a value that no spec can hold.
    """
    try:
        # JSON is YAML, one key per line so that reports stay readable.
        content = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"these values are no spec: {error}"
        raise UserError(message, "Use text, numbers, lists and mappings.") from error
    return check(parse_document(Text("<values>", content, "values"))).spec()


def dump_spec(spec: Spec, ascii_only: bool = False) -> str:
    """The resolved spec, defaults included, as YAML that loads back to an equal spec.

    Texts that could drive a terminal, and with `ascii_only` all that are no ASCII, are quoted with YAML's own escapes.
    """
    values = _kind_first(spec.model_dump(mode="json"))
    text = _yaml(values, not ascii_only)
    return _yaml(values, unicode=False) if harmful(text) else text


def _yaml(values: dict[str, Any], unicode: bool) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # lists and innermost mappings on one line
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 160
    yaml.allow_unicode = unicode
    stream = StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def _kind_first(values: dict[str, Any]) -> dict[str, Any]:
    """Inherited fields come before a section's own; a reader wants its kind first."""
    first = {"kind": values["kind"]} if "kind" in values else dict[str, Any]()
    nested = {
        key: _kind_first(cast("dict[str, Any]", value)) for key, value in values.items() if isinstance(value, dict)
    }
    return {**first, **values, **nested}
