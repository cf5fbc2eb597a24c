"""What is wrong with a spec: one `Diagnostic` per problem, and `SpecErrors`, which carries all problems of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sora_spec.errors import UserError
from sora_spec.span import Span

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Note:
    """A second place that belongs to a problem, and what is to be seen there."""

    span: Span
    label: str


@dataclass(frozen=True)
class Diagnostic:
    """One problem: a numbered sentence, the place, what is there, and how to mend it."""

    code: str
    message: str
    span: Span | None = None
    """The characters to mend; None where there is no text to point at (a missing file)."""
    label: str = ""
    """A few words beside the caret."""
    notes: tuple[Note, ...] = ()
    help: str | None = None
    severity: Severity = "error"
    path: str = ""
    """Dotted path of the value, empty for problems of the text itself."""
    file: str = ""
    """File of a problem without a span."""

    def where(self) -> str:
        """`file:line:column`, or the file alone."""
        if self.span is None:
            return self.file
        return f"{self.span.text.name}:{self.span.line}:{self.span.column}"


class SpecErrors(UserError):  # noqa: N818 - it carries several
    """A spec that cannot be used. `diagnostics` holds every problem; the text is the full report."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        from sora_spec.report import render_full

        self.diagnostics = tuple(diagnostics)
        unreadable = any(diagnostic.code == "E101" for diagnostic in self.diagnostics)
        super().__init__(render_full(self.diagnostics), hint=None, exit_code=2 if unreadable else 1)


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether anything in the list is an error; warnings alone leave a spec usable."""
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that the user most likely meant, or None when nothing is close."""
    from difflib import get_close_matches

    lowered = {choice.lower(): choice for choice in choices}
    flat = word.lower().replace("-", "_").replace(" ", "_")
    for candidate in (word.lower(), flat):
        match = get_close_matches(candidate[:64], lowered, n=1, cutoff=0.6)
        if match:
            return lowered[match[0]]
    starts = [choice for choice in lowered if len(flat) >= 3 and (choice.startswith(flat) or flat.startswith(choice))]
    return lowered[starts[0]] if len(starts) == 1 else None
