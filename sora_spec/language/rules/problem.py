"""What a rule returns: a problem in terms of dotted paths. Rules know neither text nor positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.language.diagnostics import Severity

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class At:
    """A value of the spec and what is to be said beside it."""

    path: str
    label: str


@dataclass(frozen=True)
class Problem:
    """Sections that do not fit together."""

    code: str
    message: str
    at: At
    """The value to mend."""
    also: tuple[At, ...] = ()
    """The values it does not fit."""
    help: str = ""
    severity: Severity = "error"


Rule = Callable[["Spec"], Iterable[Problem]]


def sentence(hint: str) -> str:
    """The hint of an error as a line of help: `use one` becomes `Use one.`"""
    return f"{hint[:1].upper()}{hint[1:]}."


def counted(count: int, word: str) -> str:
    """A number with its noun: `1 frame`, `2 frames`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def multiples_around(value: int, step: int) -> str:
    """The nearest multiples of `step` below and above `value`, as words of a help line."""
    below, above = value // step * step, -(-value // step) * step
    return f"{below} or {above}" if below > 0 else str(above)


def divisors(value: int) -> list[int]:
    """Every divisor, ascending."""
    small = [n for n in range(1, int(value**0.5) + 1) if value % n == 0]
    return sorted({*small, *(value // n for n in small)})
