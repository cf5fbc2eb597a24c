"""Rules that cross sections, and the one function that runs them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sora_spec.language.diagnostics import Diagnostic, Note
from sora_spec.language.rules import buildable, diffusion, grid, machine, network, training, vae
from sora_spec.language.rules.problem import At, Problem, Rule
from sora_spec.language.source import locate
from sora_spec.language.span import Span
from sora_spec.language.values import BrokenValueError, Values
from sora_spec.language.yaml_tree import MapNode

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

RULES: tuple[Rule, ...] = (
    *grid.RULES,
    *vae.RULES,
    *network.RULES,
    *diffusion.RULES,
    *training.RULES,
    *buildable.RULES,
    *machine.RULES,
)


def check_rules(values: Values, root: MapNode) -> list[Diagnostic]:
    """Problems of every rule that can be evaluated; a rule that reads a missing or wrong value is skipped."""
    found = list[Diagnostic]()
    spec = cast("Spec", values)  # it has a spec's attributes, and checking one needs no pydantic
    for rule in RULES:
        try:
            found.extend(_diagnostic(problem, root) for problem in rule(spec))
        except BrokenValueError:
            continue
    return found


def _diagnostic(problem: Problem, root: MapNode) -> Diagnostic:
    span, label, _ = _place(problem.at, root)
    notes = list[Note]()
    for at in problem.also:
        other, text, written = _place(at, root)
        # A default has no place of its own, and a note that points at the problem's own place says nothing.
        if written and (other.text, other.start) != (span.text, span.start):
            notes.append(Note(other, text))
    return Diagnostic(
        problem.code,
        problem.message,
        span,
        label,
        tuple(notes),
        problem.help or None,
        problem.severity,
        problem.at.path,
    )


def _place(at: At, root: MapNode) -> tuple[Span, str, bool]:
    span, written = locate(root, at.path)
    return span, at.label if written else f"{at.label} (by default)", written
