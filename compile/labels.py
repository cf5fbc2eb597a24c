"""What the user asks for → one label per clip. Torch-free."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from sora_spec.errors import UserError
from sora_spec.schema.condition import ClassCondition, NoCondition
from sora_spec.schema.spec import Spec

DEFAULT_COUNT = 4
"""Clips when neither labels nor a count are asked for."""
MOST_CLIPS = 100_000


def plan_labels(
    spec: Spec, asked: Sequence[str], count: int | None, classes: Sequence[str] | None = None
) -> list[int | None]:
    """The label of each clip, None where the model has no labels.

    `asked` holds labels, ranges (`0-9`), lists (`0,3,5`) and class names. With labels, `count` is the number of clips
    in all and a multiple of their number; without, clips go through the classes in order.

    Raises UserError for a label that the model does not know, or a count that does not fit.
    """
    if count is not None and not 1 <= count <= MOST_CLIPS:
        raise UserError(f"--count {count} is outside 1..{MOST_CLIPS:,}", "ask for at least one clip")
    if not isinstance(spec.condition, ClassCondition):
        return _without_labels(spec, asked, count)
    labels = [label for text in asked for label in parse_labels(text, spec.condition.classes, classes)]
    if not labels:
        return [index % spec.condition.classes for index in range(count or min(DEFAULT_COUNT, spec.condition.classes))]
    if count is None:
        return list(labels)
    if count % len(labels):
        raise UserError(
            f"--count {count} is not a multiple of the {len(labels)} labels asked for",
            f"--count {len(labels) * (count // len(labels) + 1)}, or leave it out for one clip per label",
        )
    return [label for label in labels for _ in range(count // len(labels))]


def _without_labels(spec: Spec, asked: Sequence[str], count: int | None) -> list[int | None]:
    if asked:
        kind = spec.condition.kind
        raise UserError(
            f"{spec.name} takes no labels: its condition is {kind}", "leave --label out, and say --count N for N clips"
        )
    if not isinstance(spec.condition, NoCondition):
        raise UserError(
            f"{spec.name} is steered by text, and text encoders cannot be run yet",
            "generate from a model with condition.kind class or none",
        )
    return [None] * (count or DEFAULT_COUNT)


def parse_labels(text: str, classes: int, names: Sequence[str] | None = None) -> list[int]:
    """Labels of one argument: `3`, `0-9`, `0,3,5-7`, or a class name. Names go before numbers.

    Raises UserError for what is none of these.
    """
    if names is not None and text in names:
        return [names.index(text)]
    return [label for part in text.split(",") for label in _parse_part(part.strip(), classes, names)]


def _parse_part(part: str, classes: int, names: Sequence[str] | None) -> list[int]:
    if names is not None and part in names:
        return [names.index(part)]
    match = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", part, re.ASCII)
    if match is None:
        raise UserError(f"unknown label {part!r}", _known(part, classes, names))
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise UserError(f"the label range {part} is empty", f"write it as {last}-{first}")
    if last >= classes:
        raise UserError(
            f"label {last} is outside 0..{classes - 1}: the model has {classes} classes", _known(part, classes, names)
        )
    return list(range(first, last + 1))


def _known(part: str, classes: int, names: Sequence[str] | None) -> str:
    if names is None:
        return f"labels are 0 to {classes - 1}"
    close = difflib.get_close_matches(part, names, n=1)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return (f"did you mean {close[0]}? " if close else "") + f"labels are 0 to {classes - 1}, or a name: {shown}"
