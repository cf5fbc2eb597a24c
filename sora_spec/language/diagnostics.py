"""What is wrong with a spec: one `Diagnostic` per problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sora_spec.language.span import Span

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


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether anything in the list is an error; warnings alone leave a spec usable."""
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a word most likely stands for: a typing mistake of it, or the choice with more or fewer words.

    None where nothing is close: a guess that is wrong misleads more than a list of the choices.
    """
    lowered = {choice.lower(): choice for choice in choices}
    flat = "_".join(word.lower().replace("-", " ").split())[:64]
    near = [(edits(flat, choice), choice) for choice in lowered]
    close = [(distance, choice) for distance, choice in near if distance <= _allowed(flat, choice)]
    if close:
        least = min(distance for distance, _ in close)
        return lowered[next(choice for distance, choice in close if distance == least)]
    words = set(flat.split("_"))
    whole = [choice for choice in lowered if len(choice) > 1 and set(choice.split("_")) <= words]
    whole = whole or [choice for choice in lowered if len(flat) > 2 and words <= set(choice.split("_"))]
    stem = flat[: max(3, len(flat) - 2)]
    starts = whole or [choice for choice in lowered if len(flat) > 2 and choice.startswith(stem)]
    starts = starts or [choice for choice in lowered if len(choice) > 3 and flat.startswith(choice)]
    return lowered[starts[0]] if len(starts) == 1 else None


def _allowed(word: str, choice: str) -> int:
    """Typing mistakes that still leave a word recognisable: one in four letters."""
    return max(1, min(len(word), len(choice)) // 4) if min(len(word), len(choice)) > 2 else 0


def edits(a: str, b: str) -> int:
    """Letters to put in, take out, change or swap with a neighbour (optimal string alignment)."""
    if abs(len(a) - len(b)) > 16:
        return max(len(a), len(b))
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        next_row = [i]
        for j, other in enumerate(b, 1):
            cost = min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            next_row.append(cost)
        before, row = row, next_row
    return row[-1]
