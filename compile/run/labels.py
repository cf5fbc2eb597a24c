"""What the user asks for → one label per clip. Torch-free."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TypeVar

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import ClassCondition, TextCondition
from sora_spec.language.schema.spec import Spec

T = TypeVar("T")
DEFAULT_COUNT = 4
"""Clips when neither labels nor a count are asked for."""
MOST_CLIPS = 100_000
UNCONDITIONAL = "none"
"""What `--label` calls the null label, where no class has this name."""


def plan_labels(
    spec: Spec,
    asked: Sequence[str],
    count: int | None,
    classes: Sequence[str] | None = None,
    unconditional: bool = False,
) -> list[int | None]:
    """The label of each clip, None where the model has no labels and for clips without one.

    `asked` holds labels, ranges (`0-9`), lists (`0,3,5`), class names, and `none` for the null label, which is also
    what `unconditional` asks for, for all clips. With labels, `count` is the number of clips in all and a multiple of
    their number; without, clips go through the classes in order. `classes`: names of the classes that the model was
    trained on; there may be fewer than it has labels for.

    Raises UserError for a label that the model does not know, or a count that does not fit.
    """
    check_count(count)
    if not isinstance(spec.condition, ClassCondition):
        return _without_labels(spec, asked, count)
    if unconditional:
        if asked:
            raise UserError(
                "--unconditional and --label ask for two things", "give one; --label none may stand in a list"
            )
        _check_null(spec.condition)
        return [None] * (count or DEFAULT_COUNT)
    labels = [label for text in asked for label in parse_labels(text, spec.condition, classes)]
    if len(labels) > MOST_CLIPS:
        raise UserError(f"{len(labels):,} labels are more than {MOST_CLIPS:,}", "ask for fewer at a time")
    _check_trained(spec, labels, classes)
    if not labels:
        known = min(len(classes or ()) or spec.condition.classes, spec.condition.classes)
        return [index % known for index in range(count or min(DEFAULT_COUNT, known))]
    return spread(labels, count, "labels")


def spread(asked: list[T], count: int | None, what: str) -> list[T]:
    """Each of `asked` as often as makes `count` clips in all; once without. Raises UserError where that is uneven."""
    if count is None:
        return asked
    if count % len(asked):
        raise UserError(
            f"--count {count} is not a multiple of the {len(asked)} {what} asked for",
            f"--count {len(asked) * (count // len(asked) + 1)}, or leave it out for one clip per {what[:-1]}",
        )
    return [value for value in asked for _ in range(count // len(asked))]


def check_count(count: int | None) -> None:
    """Raise UserError for a number of clips that cannot be meant."""
    if count is not None and not 1 <= count <= MOST_CLIPS:
        raise UserError(f"--count {count} is outside 1..{MOST_CLIPS:,}", "ask for at least one clip")


def check_names(names: object, spec: Spec, where: str) -> list[str]:
    """Class names as they were read from `where`. Raises UserError unless they can be the spec's."""
    again = "bring back the file as training wrote it"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where} is not a list of class names", again)
    listed: list[str] = names
    if len(set(listed)) < len(listed):
        raise UserError(f"{where} names a class twice", again)
    if isinstance(spec.condition, ClassCondition) and len(listed) > spec.condition.classes:
        raise UserError(
            f"{where} names {len(listed)} classes, condition.classes of the spec is {spec.condition.classes}", again
        )
    return listed


def _check_trained(spec: Spec, labels: Sequence[int | None], classes: Sequence[str] | None) -> None:
    """Refuse labels that the data had no class for; where the weights came from elsewhere, they may know it."""
    untrained = sorted({label for label in labels if label is not None and classes and label >= len(classes)})
    if not untrained or classes is None:
        return
    text = f"label {untrained[0]} was not in the data: it has {len(classes)} classes, labels 0 to {len(classes) - 1}"
    if getattr(spec.backbone, "weights", None) is None:
        raise UserError(text, _known("", len(classes), classes))
    output.warn(f"{text}; backbone.weights may have known it")


def _check_null(condition: ClassCondition) -> None:
    if condition.dropout == 0:
        raise UserError(
            "this model was trained without a null label (condition.dropout is 0)", "ask for a class by --label"
        )


def _without_labels(spec: Spec, asked: Sequence[str], count: int | None) -> list[int | None]:
    if asked:
        instead = "leave --label out, and say --count N for N clips"
        if isinstance(spec.condition, TextCondition):
            instead = 'leave --label out, and give prompts: sora-spec generate RUN "a prompt"'
        raise UserError(f"{spec.name} takes no labels: its condition is {spec.condition.kind}", instead)
    return [None] * (count or DEFAULT_COUNT)


def parse_labels(text: str, condition: ClassCondition, names: Sequence[str] | None = None) -> list[int | None]:
    """Labels of one argument: `3`, `0-9`, `0,3,5-7`, a class name, or `none`. Names go before numbers.

    Raises UserError for what is none of these.
    """
    if names is not None and text in names:
        return [names.index(text)]
    return [label for part in text.split(",") for label in _parse_part(part.strip(), condition, names)]


def _parse_part(part: str, condition: ClassCondition, names: Sequence[str] | None) -> Sequence[int | None]:
    classes = condition.classes
    if names is not None and part in names:
        return [names.index(part)]
    if part == UNCONDITIONAL:
        _check_null(condition)
        return [None]
    match = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", part, re.ASCII)
    if match is None:
        raise UserError(f"unknown label {part!r}", _known(part, classes, names))
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise UserError(f"the label range {part} is empty", f"write it as {last}-{first}")
    if last >= classes:
        null = f"; {classes} is the null label: --label none" if first == last == classes and condition.dropout else ""
        raise UserError(
            f"label {last} is outside 0..{classes - 1}: the model has {classes} classes{null}",
            _known(part, classes, names),
        )
    return range(first, last + 1)


def _known(part: str, classes: int, names: Sequence[str] | None) -> str:
    if names is None:
        return f"labels are 0 to {classes - 1}"
    classes = min(classes, len(names))
    close = difflib.get_close_matches(part, names, n=1)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return (f"did you mean {close[0]}? " if close else "") + f"labels are 0 to {classes - 1}, or a name: {shown}"
